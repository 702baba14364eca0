package client

import (
	"encoding/json"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
)

// The cursor of a subscription is never ahead of what Next has given, nor behind it.
func TestACheckpointIsNotAheadOfItsEvents(t *testing.T) {
	s := &Subscription{window: 100, cursor: "begin", events: make(chan json.RawMessage, 100),
		ended: make(chan struct{})}
	take := func(m api.ServerMessage) {
		t.Helper()
		if err := s.take(&m); err != nil {
			t.Fatal(err)
		}
	}
	event := func(id string) {
		take(api.ServerMessage{Op: api.OpEvent, Event: json.RawMessage(`{"id":"` + id + `"}`)})
	}
	checkpoint := func(c string) { take(api.ServerMessage{Op: api.OpCheckpoint, Reply: api.Reply{Cursor: c}}) }
	is := func(want string) {
		t.Helper()
		if got := s.Cursor(); got != want {
			t.Errorf("the cursor is %s, want %s", got, want)
		}
	}
	next := func() {
		t.Helper()
		if _, err := s.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	is("begin")
	checkpoint("c1")
	is("c1")
	event("e2")
	checkpoint("c3")
	event("e4")
	is("c1") // e2 was not given yet
	next()
	is("c3")
	next()
	is("e4")
	checkpoint("c5")
	checkpoint("c6")
	is("c6")
}
