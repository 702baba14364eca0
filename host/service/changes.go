package service

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// Bounds of a comparison of schemas.
const (
	changesMost  = 32 // that are told
	changesDepth = 8  // of members within members
)

// ChangedEvents compares the schemas of the events that a service's module had with those that its next module has. It
// tells of members that are gone or have another type: earlier events have them, and a module that renames one
// without knowing both names goes on with zeros. Events are matched by name and alias; of those
// without schemas nothing is known. It is total, and tells no more than some.
func ChangedEvents(before, after abi.Manifest) []string {
	var c changes
	for i := range before.Events {
		old := &before.Events[i]
		at := slices.IndexFunc(after.Events, func(e abi.EventType) bool {
			return e.Name == old.Name ||
				slices.Contains(e.Aliases, old.Name)
		})
		if at >= 0 && old.Schema != "" && after.Events[at].Schema != "" {
			c.event = old.Name
			c.compare("", json.RawMessage(old.Schema), json.RawMessage(after.Events[at].Schema), changesDepth)
		}
	}
	if c.more > 0 {
		c.found = append(c.found, fmt.Sprintf("and %d more", c.more))
	}
	return c.found
}

// changes gathers what is found.
type changes struct {
	event string
	found []string
	more  int // that are not among them
}

func (c *changes) add(format string, args ...any) {
	if len(c.found) == changesMost {
		c.more++
		return
	}
	c.found = append(c.found, fmt.Sprintf("event %s: ", c.event)+fmt.Sprintf(format, args...))
}

// shape is what of a schema is compared.
type shape struct {
	Type       any                        `json:"type"`
	Properties map[string]json.RawMessage `json:"properties"`
	Items      json.RawMessage            `json:"items"`
	Additional json.RawMessage            `json:"additionalProperties"`
}

// types are the types that a schema allows; none if it does not say.
func (s *shape) types() (all []string) {
	switch t := s.Type.(type) {
	case string:
		return []string{t}
	case []any:
		for _, one := range t {
			if text, ok := one.(string); ok {
				all = append(all, text)
			}
		}
	}
	return all
}

// isMap reports whether members of any name may be there.
func (s *shape) isMap() bool { return len(s.Additional) > 0 && s.Additional[0] == '{' }

// compare compares two schemas of what is at a path; what is none has nothing to compare.
func (c *changes) compare(path string, before, after json.RawMessage, depth int) {
	var old, now shape
	if depth == 0 || json.Unmarshal(before, &old) != nil || json.Unmarshal(after, &now) != nil {
		return
	}
	what := "the data"
	if path != "" {
		what = "the member " + path
	}
	if had, has := old.types(), now.types(); len(has) > 0 && !covers(has, had) {
		c.add("%s was %s and is %s; earlier events may not be readable", what, strings.Join(had, " or "),
			strings.Join(has, " or "))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(old.Properties)) {
		at := name
		if path != "" {
			at = path + "." + name
		}
		next, there := now.Properties[name]
		switch {
		case there:
			c.compare(at, old.Properties[name], next, depth-1)
		case len(now.types()) > 0 && !now.isMap():
			c.add("the member %s is gone; what earlier events have there is ignored", at)
		}
	}
	if len(old.Items) > 0 && len(now.Items) > 0 {
		c.compare(path+"[]", old.Items, now.Items, depth-1)
	}
}

// covers reports whether every type that there was is among those that there are.
func covers(has, had []string) bool {
	for _, t := range had {
		if !slices.Contains(has, t) && (t != "integer" || !slices.Contains(has, "number")) {
			return false
		}
	}
	return true
}
