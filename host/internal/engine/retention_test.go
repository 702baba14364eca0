package engine

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// An entity whose events were deleted goes on from its snapshot, which the engine takes
// when it is asked to: under every build of the same state schema, and under no other.
func TestEntitiesWhoseEventsAreDeleted(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory())
	deploy := func(digest byte, schema uint32, double bool) *Engine {
		o, guests := bankOptions(t, j, 1)
		o.Spec.Module = service.Digest{digest}
		o.Spec.Settings.SnapshotEvery = -1
		o.withSchema(t, schema)
		guests[0].double = double
		return start(t, o)
	}
	snapshot := func(e *Engine, key string) error {
		done := make(chan error, 1)
		if err := e.Snapshot(service.Key(key), func(err error) { done <- err }); err != nil {
			return err
		}
		return <-done
	}
	e := deploy(1, 3, false)
	deposits(t, e, "alice", 5)
	deposits(t, e, "bob", 2)
	asked := 0
	retained, err := j.Retain(t.Context(), "bank", journal.Retention{Before: 6, Schema: 3, Force: true, Cover: func(_ context.Context, key string, _ journal.Version) error {
		asked++
		return snapshot(e, key)
	}})
	if err != nil || asked != 1 || retained.Uncovered != 0 || retained.First != 6 {
		t.Fatalf("%+v, %v; asked %d times", retained, err, asked)
	}
	deposits(t, e, "alice", 1)
	for _, digest := range []byte{1, 2} {
		e = deploy(digest, 3, false)
		wantBalance(t, e, "alice", 6)
		wantSnapshots(t, e, 0, 1, 0)
	}
	// A build that makes another state of the same events has one of them only.
	e = deploy(3, 3, true)
	if r, err := ask(e, balance("alice")); err != nil || string(r.Data) != "7" || r.Version != 6 {
		t.Errorf("alice has %s at version %d, %v; want 5 and twice 1", r.Data, r.Version, err)
	}
	e = deploy(4, 4, false)
	_, err = ask(e, balance("alice"))
	var failure *service.Error
	if !errors.As(err, &failure) || failure.Kind != service.KindFault || failure.Code != historyDeleted || !strings.Contains(err.Error(), "up to version 5") {
		t.Errorf("a module of another schema: %v", err)
	}
	if err := snapshot(e, "alice"); service.KindOf(err) != service.KindFault {
		t.Errorf("a snapshot by it: %v", err)
	}
	wantBalance(t, e, "bob", 2) // has all events
	e = deploy(5, 3, false)
	wantBalance(t, e, "alice", 6)
}
