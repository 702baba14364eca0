package guesttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// GivenJSON starts a case natively with an event as the journal has it: under the name, which may be
// an alias or the name of an old type, and with the data that an earlier build wrote. It checks what
// [Case.AndJSON] checks, which adds further events.
func GivenJSON[S any](t testing.TB, s *guest.Service[S], key, event, data string) *Case[S] {
	t.Helper()
	return GivenOn(t, Native(s), s, key).AndJSON(event, data)
}

// AndJSON adds an event to the history, as [GivenJSON] takes it. The test fails if the service does not
// know the name, or cannot rebuild the entity. It also fails if a snapshot at an earlier version and the
// rest of the events give another state.
func (c *Case[S]) AndJSON(event, data string) *Case[S] {
	c.t.Helper()
	c.step = "the stored events of entity " + c.key
	if err := c.store(event, []byte(data)); err != nil {
		c.t.Fatal(err)
	}
	c.restore(c.step, c.rebuild())
	return c
}

// GivenSnapshot starts a case natively with a snapshot as the journal has it, which stands for the events
// up to a version. The schema is the state schema of the build that wrote it. The test fails if the service
// does not take snapshots of that schema, or refuses this one.
func GivenSnapshot[S any](t testing.TB, s *guest.Service[S], key string, version uint64, schema uint32,
	state string) *Case[S] {
	t.Helper()
	c := newCase(t, Native(s), s, key)
	c.step = "the stored snapshot of entity " + key
	c.base = base{version: version, state: []byte(state)}
	if schema != c.manifest.StateSchema {
		n := slices.Index(c.manifest.EarlierSchemas, schema)
		if n < 0 {
			t.Fatalf("the service does not take snapshots of state schema %d: its own is %d, and it has upcasters "+
				"for %d", schema, c.manifest.StateSchema, c.manifest.EarlierSchemas)
		}
		c.base.earlier, c.base.schema = true, uint16(n)
	}
	c.restore(c.step, c.rebuild())
	return c
}

// And adds events to the history.
func (c *Case[S]) And(events ...guest.Event[S]) *Case[S] {
	c.t.Helper()
	for _, e := range events {
		c.history = append(c.history, c.record(e))
	}
	return c
}

// store adds a stored event to the history.
func (c *Case[S]) store(event string, data []byte) error {
	number, known := find(c.manifest.Events, event)
	switch {
	case !known:
		return fmt.Errorf("the service does not know events of type %q: keep the type, name it as an alias of "+
			"another one, or upcast it to another one", event)
	case len(data) > 0 && !json.Valid(data):
		return fmt.Errorf("the data of event %s is not JSON: %s", event, data)
	}
	c.history = append(c.history, recorded{number, string(data)})
	return nil
}

// Entities are the entities in an export, each as a case.
type Entities[S any] struct {
	t     testing.TB
	keys  []string
	cases map[string]*Case[S]
}

// GivenExport starts a case natively for each entity in a file of "bulkhead journal export" or "bulkhead
// journal dump". Commands in it are ignored. The test fails if the service does not know an event, cannot
// rebuild an entity, or makes of a snapshot and the rest of the events another state than of all events.
// So a test with an export of production, and without a single When, says whether a build can take over.
//
// The file must have all events of each entity: export without --after and --type.
func GivenExport[S any](t testing.TB, s *guest.Service[S], file string) *Entities[S] {
	t.Helper()
	return GivenExportOn(t, Native(s), s, file)
}

// GivenExportOn is GivenExport with cases in which the driver runs the service.
func GivenExportOn[S any](t testing.TB, d Driver, s *guest.Service[S], file string) *Entities[S] {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	x := &Entities[S]{t: t, cases: map[string]*Case[S]{}}
	first := newCase(t, d, s, "")
	lines := json.NewDecoder(f)
	for n := 1; ; n++ {
		var l exported
		err := lines.Decode(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = x.line(first, &l)
		}
		if err != nil {
			t.Fatalf("%s: line %d: %v", file, n, err)
		}
	}
	if len(x.keys) == 0 {
		t.Fatalf("%s has no events", file)
	}
	for _, key := range x.keys {
		c := x.cases[key]
		c.step = "the stored events of entity " + key
		c.restore(c.step, c.rebuild())
	}
	return x
}

// Keys are the keys of the entities, in the order in which the file has them first.
func (x *Entities[S]) Keys() []string { return x.keys }

// Entity returns the case of an entity. If the file has none with that key, the test fails.
func (x *Entities[S]) Entity(key string) *Case[S] {
	x.t.Helper()
	c := x.cases[key]
	if c == nil {
		x.t.Fatalf("the export has no entity %q", key)
	}
	return c
}

// exported is a line of an export or a dump. A line of a dump has events and no kind.
type exported struct {
	Kind   string          `json:"kind"`
	Log    string          `json:"log"`
	Key    string          `json:"key"`
	Events json.RawMessage `json:"events"`
	exportedEvent
}

type exportedEvent struct {
	Version    uint64          `json:"version"`
	Type       string          `json:"type"`
	Data       json.RawMessage `json:"data"`
	DataBase64 []byte          `json:"data_base64"`
}

// line adds the events of a line to the cases. Cases are made like the first one.
func (x *Entities[S]) line(first *Case[S], l *exported) error {
	var events []exportedEvent
	switch {
	case l.Log != "" && l.Log != first.manifest.Service:
		return fmt.Errorf("it is of service %q, and this is %q", l.Log, first.manifest.Service)
	case l.Kind == "event":
		events = []exportedEvent{l.exportedEvent}
	case l.Kind == "command":
	case l.Kind == "" && len(l.Events) > 0:
		if err := json.Unmarshal(l.Events, &events); err != nil {
			return err
		}
	default:
		return errors.New("it is neither a line of journal export nor one of journal dump")
	}
	for i := range events {
		c := x.cases[l.Key]
		if c == nil {
			own := *first
			c = &own
			c.key = l.Key
			x.cases[l.Key], x.keys = c, append(x.keys, l.Key)
		}
		if err := c.exported(&events[i]); err != nil {
			return fmt.Errorf("entity %q, version %d: %w", l.Key, events[i].Version, err)
		}
	}
	return nil
}

// exported adds an event of an export to the history.
func (c *Case[S]) exported(e *exportedEvent) error {
	switch want := uint64(len(c.history)) + 1; {
	case e.Version != want:
		return fmt.Errorf("the event of version %d must come first: export all events of the entity", want)
	case len(e.DataBase64) > 0:
		return errors.New("the data is not JSON")
	}
	return c.store(e.Type, e.Data)
}
