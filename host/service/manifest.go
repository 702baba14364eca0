package service

import (
	"encoding/json"
	"fmt"
	"mime"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/jsoncheck"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// maxReasons is how many problems one error lists: enough to repair a module in one go, but not thousands.
const maxReasons = 64

// manifestJSON is the JSON form of [abi.Manifest]. Unknown members are ignored, so that minor versions can
// add members; a member that differs from a known one only in case is refused.
type manifestJSON struct {
	ABI          *int           `json:"abi"`
	Service      string         `json:"service"`
	Version      string         `json:"version"`
	SDK          string         `json:"sdk"`
	Features     []string       `json:"features"`
	StateSchema  uint32         `json:"state_schema"`
	Encoding     string         `json:"encoding"`
	Commands     []callableJSON `json:"commands"`
	Queries      []callableJSON `json:"queries"`
	Events       []eventJSON    `json:"events"`
	Capabilities []string       `json:"capabilities"`

	EarlierSchemas []uint32 `json:"earlier_schemas"`
}

type callableJSON struct {
	Name  string          `json:"name"`
	Input json.RawMessage `json:"input"`
	Reply json.RawMessage `json:"reply"`
}

type eventJSON struct {
	Name     string          `json:"name"`
	Schema   json.RawMessage `json:"schema"`
	Aliases  []string        `json:"aliases"`
	UpcastTo string          `json:"upcast_to"`
}

// ParseManifest parses the JSON that a module answers to Describe. It is total: for any bytes it returns a
// manifest that keeps every rule, or a KindInvalid error whose Reasons list the broken rules (the first 64).
func ParseManifest(b []byte) (abi.Manifest, error) {
	if len(b) > abi.MaxManifestSize {
		return abi.Manifest{}, Errorf(KindInvalid, "manifest has %d bytes; it may have %d", len(b), abi.MaxManifestSize)
	}
	var raw manifestJSON
	if err := jsoncheck.DecodeKnown(b, &raw); err != nil {
		return abi.Manifest{}, Errorf(KindInvalid, "manifest is not the JSON object it should be: %v", err)
	}
	var c manifestChecker
	m := c.manifest(&raw)
	if c.count > 0 {
		if more := c.count - len(c.reasons); more > 0 {
			c.reasons = append(c.reasons, fmt.Sprintf("and %d more", more))
		}
		return abi.Manifest{}, &Error{Kind: KindInvalid, Message: "manifest breaks rules of the ABI",
			Reasons: c.reasons}
	}
	return m, nil
}

// manifestChecker collects problems.
type manifestChecker struct {
	reasons []string
	count   int
}

func (c *manifestChecker) bad(format string, args ...any) {
	c.count++
	if len(c.reasons) < maxReasons {
		c.reasons = append(c.reasons, fmt.Sprintf(format, args...))
	}
}

func (c *manifestChecker) manifest(raw *manifestJSON) abi.Manifest {
	switch {
	case raw.ABI == nil:
		c.bad("abi is missing; this host speaks %d", abi.Version)
	case *raw.ABI != abi.Version:
		c.bad("abi is %d; this host speaks %d", *raw.ABI, abi.Version)
	}
	if _, err := ParseName(raw.Service); err != nil {
		c.bad("service: %s", err.(*Error).Message)
	}
	c.text("version", raw.Version)
	c.text("sdk", raw.SDK)
	if raw.Encoding != "" {
		if _, _, err := mime.ParseMediaType(raw.Encoding); err != nil || len(raw.Encoding) > abi.MaxNameSize {
			c.bad("encoding %s is not a content type of at most %d bytes", quote(raw.Encoding), abi.MaxNameSize)
		}
	}
	c.names("features", raw.Features)
	c.names("capabilities", raw.Capabilities)

	c.earlier(raw)
	m := abi.Manifest{
		ABI: abi.Version, Service: raw.Service, Version: raw.Version, SDK: raw.SDK, Features: raw.Features,
		StateSchema: raw.StateSchema, Encoding: raw.Encoding, Capabilities: raw.Capabilities,
		EarlierSchemas: raw.EarlierSchemas,
	}
	if m.Encoding == "" {
		m.Encoding = abi.EncodingJSON
	}
	if c.size("commands", len(raw.Commands)) {
		taken := map[string]string{}
		for i, x := range raw.Commands {
			c.callable("commands", i, &x, taken)
			m.Commands = append(m.Commands, abi.CommandType{Name: x.Name, Input: string(x.Input),
				Reply: string(x.Reply)})
		}
	}
	if c.size("queries", len(raw.Queries)) {
		taken := map[string]string{}
		for i, x := range raw.Queries {
			c.callable("queries", i, &x, taken)
			m.Queries = append(m.Queries, abi.QueryType{Name: x.Name, Input: string(x.Input), Reply: string(x.Reply)})
		}
	}
	if c.size("events", len(raw.Events)) {
		c.events(raw.Events)
		for _, x := range raw.Events {
			m.Events = append(m.Events, abi.EventType{Name: x.Name, Schema: string(x.Schema), Aliases: x.Aliases,
				UpcastTo: x.UpcastTo})
		}
	}
	return m
}

// earlier checks the earlier state schemas.
func (c *manifestChecker) earlier(raw *manifestJSON) {
	if !c.size("earlier_schemas", len(raw.EarlierSchemas)) {
		return
	}
	if len(raw.EarlierSchemas) > 0 && !slices.Contains(raw.Features, abi.FeatureEarlierSchemas) {
		c.bad("earlier_schemas need the feature %q in features", abi.FeatureEarlierSchemas)
	}
	taken := map[uint32]string{raw.StateSchema: "state_schema"}
	for i, schema := range raw.EarlierSchemas {
		where := fmt.Sprintf("earlier_schemas[%d]", i)
		if first, dup := taken[schema]; dup {
			c.bad("%s: schema %d is taken by %s", where, schema, first)
			continue
		}
		taken[schema] = where
	}
}

// size checks the size of a list before its members are checked.
func (c *manifestChecker) size(what string, n int) bool {
	if n > abi.MaxTypes {
		c.bad("%s has %d members; it may have %d", what, n, abi.MaxTypes)
		return false
	}
	return true
}

func (c *manifestChecker) text(what, s string) {
	if len(s) > 4*abi.MaxNameSize {
		c.bad("%s has %d bytes; it may have %d", what, len(s), 4*abi.MaxNameSize)
	}
	for _, r := range s {
		if unicode.IsControl(r) || r == utf8.RuneError {
			c.bad("%s %s has a control character or is not UTF-8", what, quote(s))
			return
		}
	}
}

func (c *manifestChecker) names(what string, names []string) {
	if !c.size(what, len(names)) {
		return
	}
	taken := map[string]string{}
	for i, n := range names {
		c.name(fmt.Sprintf("%s[%d]", what, i), n, taken)
	}
}

// name checks a type name and claims it for where.
func (c *manifestChecker) name(where, name string, taken map[string]string) {
	if _, err := ParseType(name); err != nil {
		c.bad("%s: %s", where, err.(*Error).Message)
		return
	}
	if first, dup := taken[name]; dup {
		c.bad("%s: name %q is taken by %s", where, name, first)
		return
	}
	taken[name] = where
}

func (c *manifestChecker) callable(what string, i int, x *callableJSON, taken map[string]string) {
	where := fmt.Sprintf("%s[%d]", what, i)
	c.name(where, x.Name, taken)
	x.Input = c.schema(where+".input", x.Input)
	x.Reply = c.schema(where+".reply", x.Reply)
}

// events claims all names before any alias. So it finds an alias that is another event's name, in either
// order.
func (c *manifestChecker) events(events []eventJSON) {
	taken := map[string]string{}
	for i, x := range events {
		c.name(fmt.Sprintf("events[%d]", i), x.Name, taken)
		events[i].Schema = c.schema(fmt.Sprintf("events[%d].schema", i), x.Schema)
	}
	aliases := 0
	for i, x := range events {
		aliases += len(x.Aliases)
		if aliases > abi.MaxTypes {
			c.bad("events have more than %d aliases together", abi.MaxTypes)
			return
		}
		for j, a := range x.Aliases {
			c.name(fmt.Sprintf("events[%d].aliases[%d]", i, j), a, taken)
		}
	}
	c.upcasts(events)
}

// upcasts checks that each old event leads to an event that is not old.
func (c *manifestChecker) upcasts(events []eventJSON) {
	next := make(map[string]string, len(events))
	for _, x := range events {
		next[x.Name] = x.UpcastTo
	}
	ends := map[string]bool{"": true} // names from which the way is known to end, or was reported
	for i, x := range events {
		if _, known := next[x.UpcastTo]; x.UpcastTo != "" && !known {
			c.bad("events[%d].upcast_to: there is no event named %s", i, quote(x.UpcastTo))
			next[x.Name] = ""
		}
	}
	for i, x := range events {
		way, at := map[string]bool{}, x.Name
		for !ends[at] && !way[at] {
			way[at] = true
			at = next[at]
		}
		if way[at] {
			c.bad("events[%d].upcast_to: the way from %s leads round in a circle", i, quote(x.Name))
		}
		for name := range way {
			ends[name] = true
		}
	}
}

// schema checks the outermost form of a JSON Schema document: an object or a boolean. The decoder has already
// checked that it is JSON. null counts as no schema.
func (c *manifestChecker) schema(where string, s json.RawMessage) json.RawMessage {
	switch {
	case len(s) == 0 || string(s) == "null":
		return nil
	case s[0] == '{', string(s) == "true", string(s) == "false":
		return s
	}
	c.bad("%s is %s; a JSON Schema is an object or a boolean", where, quote(string(s)))
	return nil
}

// ManifestIndex maps the names that clients and the journal use to the type numbers in frames, and back. It
// is immutable and safe for concurrent use.
type ManifestIndex struct {
	manifest *abi.Manifest
	commands map[Type]uint16
	queries  map[Type]uint16
	stored   *abi.Stored
}

// NewManifestIndex indexes m, which [ParseManifest] has checked and which must not be changed afterwards.
func NewManifestIndex(m *abi.Manifest) *ManifestIndex {
	x := &ManifestIndex{
		manifest: m,
		commands: make(map[Type]uint16, len(m.Commands)),
		queries:  make(map[Type]uint16, len(m.Queries)),
		stored:   abi.NewStored(m),
	}
	for i, c := range m.Commands {
		x.commands[Type(c.Name)] = uint16(i)
	}
	for i, q := range m.Queries {
		x.queries[Type(q.Name)] = uint16(i)
	}
	return x
}

// Manifest returns what was indexed.
func (x *ManifestIndex) Manifest() *abi.Manifest { return x.manifest }

// Command finds a command's number.
func (x *ManifestIndex) Command(t Type) (uint16, bool) { n, ok := x.commands[t]; return n, ok }

// Query finds a query's number.
func (x *ManifestIndex) Query(t Type) (uint16, bool) { n, ok := x.queries[t]; return n, ok }

// Event finds an event's number by its name or one of its older names.
func (x *ManifestIndex) Event(name string) (uint16, bool) { return x.stored.Event(name) }

// ReadAs is Event for what the module makes of an event: an old type counts as the type that it is upcast to
// in the end.
func (x *ManifestIndex) ReadAs(name string) (uint16, bool) {
	n, ok := x.Event(name)
	for ok && x.manifest.Events[n].UpcastTo != "" { // ParseManifest has checked that each way ends
		n, ok = x.Event(x.manifest.Events[n].UpcastTo)
	}
	return n, ok
}

// EventName is the present name of an event's number; false if the manifest has no such number.
func (x *ManifestIndex) EventName(n uint16) (string, bool) {
	if int(n) >= len(x.manifest.Events) {
		return "", false
	}
	return x.manifest.Events[n].Name, true
}

// Takes reports whether the module takes snapshots of a state schema: its own or an earlier one.
func (x *ManifestIndex) Takes(schema uint32) bool {
	_, _, ok := x.stored.Snapshot(schema)
	return ok
}

// Snapshot is a stored snapshot in the form in which the guest gets it; false if the module does not take
// its state schema. It shares the state.
func (x *ManifestIndex) Snapshot(s *journal.Snapshot) (GuestSnapshot, bool) {
	n, earlier, ok := x.stored.Snapshot(s.Schema)
	return GuestSnapshot{Version: s.Version, State: s.State, Earlier: earlier, Schema: n}, ok
}

// Encoding is the content type of all bodies.
func (x *ManifestIndex) Encoding() string {
	if x.manifest.Encoding == "" {
		return abi.EncodingJSON
	}
	return x.manifest.Encoding
}
