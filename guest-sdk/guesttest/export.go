package guesttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

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
// The file must have all events of each entity: export without --after and --type. If a retention has deleted
// events of the service, export with --snapshots too, so that the file has what they were replaced by.
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
	Kind        string          `json:"kind"`
	Log         string          `json:"log"`
	Key         string          `json:"key"`
	CommandTime *time.Time      `json:"command_time"`
	StateSchema uint32          `json:"state_schema"`
	Events      json.RawMessage `json:"events"`
	exportedEvent
}

type exportedEvent struct {
	Version    uint64            `json:"version"`
	Type       string            `json:"type"`
	Data       json.RawMessage   `json:"data"`
	DataBase64 []byte            `json:"data_base64"`
	Emitted    map[string]string `json:"emitted_metadata"`
}

// line adds what is in a line to the cases. Cases are made like the first one.
func (x *Entities[S]) line(first *Case[S], l *exported) error {
	var events []exportedEvent
	switch {
	case l.Log != "" && l.Log != first.manifest.Service:
		return fmt.Errorf("it is of service %q, and this is %q", l.Log, first.manifest.Service)
	case l.Kind == "snapshot":
		return x.snapshot(first, l)
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
		if err := x.of(first, l.Key).exported(&events[i], l.CommandTime); err != nil {
			return fmt.Errorf("entity %q, version %d: %w", l.Key, events[i].Version, err)
		}
	}
	return nil
}

// of is the case of an entity, which is made if there is none.
func (x *Entities[S]) of(first *Case[S], key string) *Case[S] {
	c := x.cases[key]
	if c == nil {
		own := *first
		c = &own
		c.key = key
		x.cases[key], x.keys = c, append(x.keys, key)
	}
	return c
}

// snapshot starts an entity from a snapshot. An export has all snapshots before all events.
func (x *Entities[S]) snapshot(first *Case[S], l *exported) error {
	if x.cases[l.Key] != nil {
		return fmt.Errorf("entity %q: its snapshot comes after what it stands for", l.Key)
	}
	state := []byte(l.Data)
	if state == nil {
		state = append([]byte{}, l.DataBase64...) // a snapshot may have no bytes
	}
	if err := x.of(first, l.Key).start(l.Version, l.StateSchema, state); err != nil {
		return fmt.Errorf("entity %q, version %d: %w", l.Key, l.Version, err)
	}
	return nil
}

// exported adds an event of an export to the history. Those that a snapshot already has are passed over.
func (c *Case[S]) exported(e *exportedEvent, at *time.Time) error {
	switch want := c.version(len(c.history)) + 1; {
	case e.Version <= c.base.version:
		return nil
	case e.Version != want && len(c.history) == 0:
		return errors.New("the events before it are not in the file: export without --after and --type; if a " +
			"retention has deleted them, export with --snapshots, or test the entity alone with GivenSnapshot")
	case e.Version != want:
		return fmt.Errorf("the event of version %d must come first: export all events of the entity", want)
	case len(e.DataBase64) > 0:
		return errors.New("the data is not JSON")
	}
	when := c.instant()
	if at != nil {
		when = uint64(at.UnixNano())
	}
	return c.store(e.Type, e.Data, when, metadataOf(e.Emitted))
}

// metadataOf is metadata with these pairs, in the order of their names.
func metadataOf(pairs map[string]string) (m guest.Metadata) {
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		m = m.AppendPair(name, pairs[name])
	}
	return m
}
