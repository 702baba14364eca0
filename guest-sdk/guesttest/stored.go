package guesttest

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
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
	if err := c.store(event, []byte(data), c.instant(), nil); err != nil {
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
	if err := c.start(version, schema, []byte(state)); err != nil {
		t.Fatal(err)
	}
	c.restore(c.step, c.rebuild())
	return c
}

// start makes a stored snapshot what the history starts from.
func (c *Case[S]) start(version uint64, schema uint32, state []byte) error {
	index, earlier, ok := c.manifest.stored.Snapshot(schema)
	if !ok {
		return fmt.Errorf("the service does not take snapshots of state schema %d: its own is %d, and it has "+
			"upcasters for %d", schema, c.manifest.StateSchema, c.manifest.EarlierSchemas)
	}
	c.base = base{version: version, state: state, earlier: earlier, schema: index}
	return nil
}

// And adds events to the history.
func (c *Case[S]) And(events ...guest.Event[S]) *Case[S] {
	c.t.Helper()
	for _, e := range events {
		c.AndWith(e, nil)
	}
	return c
}

// AndWith adds an event with metadata to the history, as [guest.Tx.EmitWith] gives them to it.
func (c *Case[S]) AndWith(e guest.Event[S], metadata guest.Metadata) *Case[S] {
	c.t.Helper()
	if err := metadata.Valid(); err != nil {
		c.t.Fatalf("the metadata of event %T: %v", e, err)
	}
	c.history = append(c.history, stored{c.record(e), c.instant(), string(metadata)})
	return c
}

// store adds a stored event to the history.
func (c *Case[S]) store(event string, data []byte, at uint64, metadata guest.Metadata) error {
	number, known := c.manifest.stored.Event(event)
	switch {
	case !known:
		return fmt.Errorf("the service does not know events of type %q: %s", event, abi.UnknownEvent)
	case len(data) > 0 && !json.Valid(data):
		return fmt.Errorf("the data of event %s is not JSON: %s", event, data)
	}
	c.history = append(c.history, stored{recorded{number, string(data)}, at, string(metadata)})
	return nil
}
