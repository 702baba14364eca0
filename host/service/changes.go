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
	maxChanges   = 32 // changes that are reported
	changesDepth = 8  // nesting of members
)

// ChangedEvents compares the schemas of the events of a service's present module with those of its next
// module. It reports members that the next module lacks or declares with another type. Earlier events have
// these members, and a module that renames one without knowing both names continues with zeros. Events are
// matched by name and alias; those without schemas are not compared. It is total, and reports at most 32
// changes.
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

// changes collects the results.
type changes struct {
	event string
	found []string
	more  int // number of changes that are not listed
}

func (c *changes) add(format string, args ...any) {
	if len(c.found) == maxChanges {
		c.more++
		return
	}
	c.found = append(c.found, fmt.Sprintf("event %s: ", c.event)+fmt.Sprintf(format, args...))
}

// shape is the part of a schema that is compared.
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

// isMap reports whether members with any name are allowed.
func (s *shape) isMap() bool { return len(s.Additional) > 0 && s.Additional[0] == '{' }

// compare compares two schemas for the value at a path. An empty schema equals every other.
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

// covers reports whether has includes every type of had.
func covers(has, had []string) bool {
	for _, t := range had {
		if !slices.Contains(has, t) && (t != "integer" || !slices.Contains(has, "number")) {
			return false
		}
	}
	return true
}
