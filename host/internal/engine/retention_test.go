package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// An entity whose events were deleted continues from its snapshot, which the engine takes on
// request: under every build with the same state schema, and under no other.
func TestEntitiesWhoseEventsAreDeleted(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
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
	retained, err := j.Retain(t.Context(), "bank", journal.Retention{Before: 6, Schema: 3, Force: true,
		Cover: func(_ context.Context, key string, _ journal.Version) error {
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
	// A build that makes another state from the same events has only one of them.
	e = deploy(3, 3, true)
	if r, err := ask(e, balance("alice")); err != nil || string(r.Data) != "7" || r.Version != 6 {
		t.Errorf("alice has %s at version %d, %v; want 5 and twice 1", r.Data, r.Version, err)
	}
	e = deploy(4, 4, false)
	_, err = ask(e, balance("alice"))
	var failure *service.Error
	if !errors.As(err, &failure) || failure.Kind != service.KindFault || failure.Code != historyDeleted ||
		!strings.Contains(err.Error(), "up to version 5") {
		t.Errorf("a module of another schema: %v", err)
	}
	if err := snapshot(e, "alice"); service.KindOf(err) != service.KindFault {
		t.Errorf("a snapshot by it: %v", err)
	}
	wantBalance(t, e, "bob", 2) // has all its events
	e = deploy(5, 3, false)
	wantBalance(t, e, "alice", 6)
}

// A module takes snapshots of earlier schemas, the latest one and that of a retention. What it writes has its
// own schema.
func TestSnapshotsOfEarlierSchemas(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	deploy := func(digest byte, every int, schema uint32, earlier ...uint32) *Engine {
		o, _ := bankOptions(t, j, 1)
		o.Spec.Module = service.Digest{digest}
		o.Spec.Settings.SnapshotEvery = every
		o.withSchema(t, schema, earlier...)
		return start(t, o)
	}
	latest := func(version journal.Version, schema uint32) {
		t.Helper()
		s, ok, err := j.Snapshot(t.Context(), "bank", "alice")
		if !ok || err != nil || s.Version != version || s.Schema != schema {
			t.Errorf("got %+v, %v, %v", s, ok, err)
		}
	}
	e := deploy(1, 5, 3)
	deposits(t, e, "alice", 5)
	counted(t, e)
	if r, err := j.Retain(t.Context(), "bank", journal.Retention{Before: 6, Schema: 3, Force: true}); err != nil ||
		r.Uncovered != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	deposits(t, e, "alice", 1)
	latest(5, 3)
	e = deploy(2, 2, 4, 9, 3)
	wantBalance(t, e, "alice", 6)
	wantSnapshots(t, e, 0, 1, 0)
	deposits(t, e, "alice", 2)
	counted(t, e)
	latest(7, 4)
	// It does not take the latest snapshot, but that of the retention.
	e = deploy(3, -1, 5, 3)
	wantBalance(t, e, "alice", 8)
	wantSnapshots(t, e, 0, 1, 1)
	e = deploy(4, -1, 5)
	if _, err := ask(e, balance("alice")); service.KindOf(err) != service.KindFault {
		t.Errorf("a module that takes neither: %v", err)
	}
}

// A snapshot that the module refuses is not used: if the events are there they are replayed; if they are
// deleted, the entity faults, the error says why, and its snapshot is kept, so that the build that made it
// can go on. The snapshot of a retention is used in place of a later one that is refused.
func TestRefusedSnapshotsOfDeletedEvents(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	deploy := func(digest byte, form string) (*Engine, *bankGuest) {
		e, g, _ := bankOn(t, j, func(o *Options) {
			o.Spec.Module = service.Digest{digest}
			o.Spec.Settings.SnapshotEvery = 2
		})
		g.form = form
		return e, g
	}
	stop := func(e *Engine) {
		t.Helper()
		if err := e.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := deploy(1, "")
	deposits(t, first, "alice", 4)
	deposits(t, first, "bob", 4)
	deposits(t, first, "carol", 4)
	counted(t, first)
	if _, err := j.Retain(t.Context(), "bank", journal.Retention{Before: 5, Force: true}); err != nil { // alice's
		t.Fatal(err)
	}
	stop(first)
	// The form is another one, under the same schema.
	second, _ := deploy(2, "other")
	for range 3 {
		_, err := ask(second, balance("alice"))
		var failure *service.Error
		if !errors.As(err, &failure) || failure.Kind != service.KindFault || failure.Code != historyDeleted ||
			!strings.Contains(failure.Message, `"alice"`) ||
			!strings.Contains(failure.Message, "up to version 4") || !strings.Contains(failure.Message, "not my form") {
			t.Errorf("alice: %v", err)
		}
	}
	_, err := send(second, command("deposit", "alice", "", "1"))
	wantKind(t, err, service.KindFault)
	wantBalance(t, second, "bob", 4)
	deposits(t, second, "bob", 2)
	if f := second.Faults(); f.Count != 1 || f.Latest[0].Key != "alice" || f.Latest[0].Version != 1 {
		t.Errorf("%+v", f)
	}
	counted(t, second)
	if s, ok, err := j.Snapshot(t.Context(), "bank", "alice"); !ok || err != nil ||
		s.Module != (journal.Digest{1}) || s.Version != 4 {
		t.Errorf("%+v, %v", s, err)
	}
	stop(second)
	third, _ := deploy(1, "")
	for key, n := range map[string]int{"alice": 4, "bob": 6, "carol": 4} {
		wantBalance(t, third, key, n)
	}
	stop(third)

	// A build that accepts the old form and writes a new one, and then the old build again.
	fourth, g := deploy(4, "other")
	g.lenient = true
	wantBalance(t, fourth, "alice", 4)
	deposits(t, fourth, "alice", 4)
	counted(t, fourth)
	if s, ok, err := j.Snapshot(t.Context(), "bank", "alice"); !ok || err != nil ||
		s.Module != (journal.Digest{4}) || s.Version != 8 {
		t.Errorf("%+v, %v", s, err)
	}
	stop(fourth)
	fifth, _ := deploy(1, "")
	wantBalance(t, fifth, "alice", 8)
}

// Entities without a snapshot keep their events when a retention deletes those of all other
// entities. If there is no room for these events, the log is kept from the first of them on. The
// retention names the entities. They are hydrated from the kept events, within the budget that
// these allow, and fail at the same event as before.
func TestRetentionWithEntitiesThatCannotBeEncoded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, journaltest.NewMemory().Storage())
		e, g, _ := bankOn(t, j, nil)
		g.unlucky = true
		g.encode = func(a *account) error {
			if a.key == "nan" {
				return service.Errorf(service.KindFault, "the state cannot be encoded: NaN")
			}
			return nil
		}
		deposits(t, e, "alice", 5)
		deposits(t, e, "nan", 1)
		deposits(t, e, "bob", 5)
		history(t, j, "broken", 0, 7, "13")
		deposits(t, e, "carol", 5)
		time.Sleep(25 * time.Hour) // no answer is promised now
		maxKept := int64(-1)
		retain := func(force bool) (journal.Retained, error) {
			return j.Retain(t.Context(), "bank", journal.Retention{Before: 100, MaxKept: maxKept, Force: force,
				Cover: func(_ context.Context, key string, _ journal.Version) error {
					done := make(chan error, 1)
					if err := e.Snapshot(service.Key(key), func(err error) { done <- err }); err != nil {
						return err
					}
					return <-done
				}})
		}
		got, err := retain(false)
		if err != nil || got.First != 6 || got.Events != 5 || got.Entities != 1 || got.Uncovered != 0 ||
			got.Held != 2 || fmt.Sprint(got.HeldBy) != "[broken nan]" {
			t.Fatalf("%+v, %v", got, err)
		}
		if _, err = retain(false); journal.KindOf(err) != journal.KindInvalid ||
			!strings.Contains(err.Error(), `"broken", "nan"`) {
			t.Errorf("there is nothing that can go: %v", err)
		}
		for key, n := range map[string]int{"alice": 5, "bob": 5, "carol": 5, "nan": 1} {
			wantBalance(t, e, key, n)
		}
		if f := e.Faults(); f.Count != 2 {
			t.Errorf("%+v", f)
		}
		maxKept = 0
		got, err = retain(false)
		if err != nil || got.First != 18 || got.Events != 12 || got.Held != 0 || got.Kept != 2 ||
			got.KeptEvents != 2 || fmt.Sprint(got.KeptOf) != "[broken nan]" {
			t.Fatalf("%+v, %v", got, err)
		}
		encode := g.encode
		for range 2 {
			for key, n := range map[string]int{"alice": 5, "bob": 5, "carol": 5, "nan": 1} {
				wantBalance(t, e, key, n)
			}
			var fault *service.Error
			if _, err := ask(e, balance("broken")); !errors.As(err, &fault) || fault.Code == historyDeleted ||
				!strings.Contains(fault.Message, "at version 1, position 12") {
				t.Errorf("broken: %v", err)
			}
			if err := e.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			e, g, _ = bankOn(t, j, nil)
			g.unlucky, g.encode = true, encode
		}
		g.encode = nil
		deposits(t, e, "nan", 1)
		time.Sleep(25 * time.Hour)
		got, err = retain(false)
		if err != nil || got.First != 19 || got.Kept != 1 || fmt.Sprint(got.KeptOf) != "[broken]" {
			t.Errorf("%+v, %v", got, err)
		}
		wantBalance(t, e, "nan", 2)
		got, err = retain(true)
		if err != nil || got.Uncovered != 1 || got.Kept != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
