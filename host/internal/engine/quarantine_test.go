package engine

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// release asks for an entity to be hydrated at once.
func release(t *testing.T, e *Engine, key service.Key) (service.Released, error) {
	t.Helper()
	type outcome struct {
		r   service.Released
		err error
	}
	done := make(chan outcome, 1)
	if err := e.Release(key, func(r service.Released, err error) { done <- outcome{r, err} }); err != nil {
		t.Fatal(err)
	}
	o := <-done
	return o.r, o.err
}

// A quarantined entity that can be hydrated again is released on request, before its next attempt is due.
func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, journaltest.NewMemory().Storage())
		history(t, j, "alice", 0, 7, ones(20)...)
		history(t, j, "alice", 20, 7, "13")
		e, g, _ := bankOn(t, j, nil)
		g.unlucky = true
		if _, err := ask(e, balance("alice")); service.KindOf(err) != service.KindFault {
			t.Fatal(err)
		}
		var first *service.Error
		for n := 2; n < 5; n++ {
			_, err := release(t, e, "alice")
			if !errors.As(err, &first) || first.Kind != service.KindFault || first.RetryAfter <= 0 ||
				!strings.Contains(first.Message, "13 is bad luck") {
				t.Fatalf("%+v", err)
			}
			if p := e.Quarantine("", 10); p.Count != 1 || p.Entities[0].Failed != n {
				t.Errorf("attempt %d: %+v", n, p)
			}
		}
		g.unlucky = false
		if _, err := ask(e, balance("alice")); service.KindOf(err) != service.KindFault {
			t.Fatalf("it waits for its next attempt: %v", err)
		}
		began := time.Now()
		if r, err := release(t, e, "alice"); err != nil || !r.Quarantined {
			t.Errorf("%+v, %v", r, err)
		}
		if r, err := ask(e, balance("alice")); err != nil || r.Version != 21 || !time.Now().Equal(began) {
			t.Errorf("%+v, %v", r, err)
		}
		if r, err := release(t, e, "alice"); err != nil || r.Quarantined {
			t.Errorf("again: %+v, %v", r, err)
		}
		if p := e.Quarantine("", 10); p.Count != 0 || len(p.Entities) != 0 {
			t.Errorf("%+v", p)
		}
	})
}

// A snapshot does not hide that an event after it cannot be applied: the entity is quarantined, with that event, at
// each attempt.
func TestASnapshotHidesNoEventAfterIt(t *testing.T) {
	t.Run("all events", func(t *testing.T) { hidesNoEvent(t, false) })
	t.Run("the first are deleted", func(t *testing.T) { hidesNoEvent(t, true) })
}

func hidesNoEvent(t *testing.T, trimmed bool) {
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(t, journaltest.NewMemory().Storage())
		history(t, j, "alice", 0, 7, ones(20)...)
		e, _, _ := bankOn(t, j, nil)
		done := make(chan error, 1)
		if err := e.Snapshot("alice", func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := e.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s, ok, err := j.Snapshot(t.Context(), "bank", "alice"); err != nil || !ok || s.Version != 20 {
			t.Fatalf("snapshot of version %d, %t, %v", s.Version, ok, err)
		}
		history(t, j, "alice", 20, 7, "13")
		history(t, j, "alice", 21, 7, ones(5)...)
		if trimmed {
			got, err := j.Retain(t.Context(), "bank", journal.Retention{Before: 21, Force: true})
			if err != nil || got.First <= 1 || got.Uncovered != 0 {
				t.Fatalf("%+v, %v", got, err)
			}
		}
		e, g, _ := bankOn(t, j, nil)
		g.unlucky = true
		for range 3 {
			_, err := ask(e, balance("alice"))
			if service.KindOf(err) != service.KindFault || !strings.Contains(err.Error(), "version 21, position 21") {
				t.Errorf("got %v", err)
			}
			p := e.Quarantine("", 10)
			if len(p.Entities) != 1 || p.Entities[0].Version != 21 || p.Entities[0].Event != "deposited" ||
				p.Entities[0].Position != journal.Position(21) {
				t.Fatalf("%+v", p)
			}
			time.Sleep(time.Until(p.Entities[0].NextAttempt))
		}
		if _, c := e.Status(); c.SnapshotsUsed != 0 || c.SnapshotsTaken != 0 {
			t.Errorf("%+v", c)
		}
	})
}
