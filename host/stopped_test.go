package host_test

import (
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// rests checks that a service is stopped, with the events from first to last, which are those of the entity
// k.
func rests(t *testing.T, h *hosttest.Host, first, last service.Position) {
	t.Helper()
	st, err := h.Status("tally")
	if err != nil || st.State != service.StateStopped || st.Problem != "" || st.Head != last || len(st.Shards) != 0 {
		t.Errorf("status %+v, %v", st, err)
	}
	if all := h.Services(); len(all) != 1 || all[0].State != service.StateStopped ||
		h.States()["tally"] != service.StateStopped {
		t.Errorf("services %+v", all)
	}
	page, err := h.Events(t.Context(), service.Selection{Service: "tally"}, 100)
	if err != nil || page.Next != last || !page.AtHead || len(page.Events) != int(last-first)+1 ||
		len(page.Events) > 0 && page.Events[0].Position != first {
		t.Errorf("%d events up to %d, %t, %v", len(page.Events), page.Next, page.AtHead, err)
	}
	own, err := h.EntityEvents(t.Context(), "tally", "k", 0, 0)
	if err != nil || len(own) != len(page.Events) {
		t.Errorf("%d events of the entity, %v", len(own), err)
	}
	types, err := h.EventTypes(t.Context(), "tally")
	if err != nil || len(types) != 1 ||
		types[0] != (journal.EventType{Type: "added", Count: uint64(last - first + 1), First: first, Last: last}) {
		t.Errorf("event types %v, %v", types, err)
	}
	refused := func(err error) {
		t.Helper()
		if service.KindOf(err) != service.KindConflicting || !strings.Contains(err.Error(), "the service is stopped") {
			t.Errorf("got %v", err)
		}
	}
	_, err = h.Send(t.Context(), add("k"))
	refused(err)
	_, err = h.Query(t.Context(), service.Query{Service: "tally", Key: "k", Type: "count"})
	refused(err)
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Errorf("stopped again: %v", err)
	}
}

// A stopped service stays in the list, also after a restart. Its events can be read and deleted, subscribers
// get later events when it is deployed again, and commands are refused with advice.
func TestAStoppedServiceIsReadable(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	for range 3 {
		h.MustSend(add("k"))
	}
	sub, err := h.Subscribe(t.Context(), service.Selection{Service: "tally", From: service.AfterPosition(3)})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	rests(t, h, 1, 3)
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: []byte("no wasm")}); service.KindOf(
		err) != service.KindBadModule {
		t.Errorf("no module: %v", err)
	}
	rests(t, h, 1, 3)
	h.MustDeploy("tally", testguest.Counter("tally"))
	if r := h.MustSend(add("k")); r.Version != 4 {
		t.Errorf("deployed again: %+v", r)
	}
	if events, err := sub.Next(t.Context(), 0); err != nil || len(events) != 1 || events[0].Position != 4 {
		t.Errorf("who waited gets %v, %v", events, err)
	}
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	h.Restart()
	rests(t, h, 1, 4)
	// No module runs that could encode states.
	_, err = h.Retain(t.Context(), "tally", service.Retention{Before: 4})
	if err != nil {
		t.Fatal(err) // all answers are still promised
	}
	done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 4, Force: true})
	if err != nil || done.Events != 3 || done.Uncovered != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	rests(t, h, 4, 4)
	h.Restart()
	rests(t, h, 4, 4)
	if sub, err = h.Subscribe(t.Context(),
		service.Selection{Service: "tally", From: service.AfterPosition(4)}); err != nil {
		t.Fatal(err)
	}
	h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("other"))
	if events, err := sub.Next(t.Context(), 0); err != nil || len(events) != 1 || events[0].Position != 5 {
		t.Errorf("who waited gets %v, %v", events, err)
	}
}

// A retention of a stopped service without snapshots deletes nothing and says why.
func TestAStoppedServiceTakesNoSnapshots(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = 1 })
	h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("k"))
	h.MustSend(add("k"))
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	_, err := h.Retain(t.Context(), "tally", service.Retention{Before: 2})
	if service.KindOf(err) != service.KindConflicting ||
		!strings.Contains(err.Error(), "the service is stopped and takes no snapshots") {
		t.Errorf("got %v", err)
	}
	rests(t, h, 1, 2)
	// Unless MaxKept allows kept events.
	done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 2, MaxKept: 1 << 20})
	if err != nil || done.First != 2 || done.Kept != 1 || done.KeptEvents != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if events, err := h.EntityEvents(t.Context(), "tally", "k", 0, 0); err != nil || len(events) != 2 ||
		events[0].Position != 1 {
		t.Errorf("%d events, %v", len(events), err)
	}
	h.MustDeploy("tally", testguest.Counter("tally"))
	if r := h.MustSend(add("k")); r.Version != 3 {
		t.Errorf("%+v", r)
	}
}

// Stopping a stopped service without readable events removes it: one that never had an event, or has lost
// all.
func TestAStoppedServiceIsForgotten(t *testing.T) {
	t.Parallel()
	for _, events := range []service.Position{0, 3} {
		h := hosttest.New(t)
		h.MustDeploy("tally", testguest.Counter("tally"))
		for range events {
			h.MustSend(add("k"))
		}
		sub, err := h.Subscribe(t.Context(), service.Selection{Service: "tally", From: service.AfterPosition(events)})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Delete(t.Context(), "tally"); err != nil {
			t.Fatal(err)
		}
		if events > 0 {
			rests(t, h, 1, events)
			if _, err := h.Retain(t.Context(), "tally",
				service.Retention{Before: events + 1, Force: true}); err != nil {
				t.Fatal(err)
			}
		}
		if st, err := h.Status("tally"); err != nil || st.State != service.StateStopped {
			t.Errorf("status %+v, %v", st, err)
		}
		if err := h.Delete(t.Context(), "tally"); err != nil {
			t.Fatal(err)
		}
		if _, err := sub.Next(t.Context(), 0); service.KindOf(err) != service.KindNotFound {
			t.Errorf("a subscriber gets %v", err)
		}
		for range 2 {
			if _, err := h.Status("tally"); service.KindOf(err) != service.KindNotFound || len(h.Services()) != 0 {
				t.Errorf("got %v", err)
			}
			if err := h.Delete(t.Context(), "tally"); service.KindOf(err) != service.KindNotFound {
				t.Errorf("got %v", err)
			}
			h.Restart()
		}
		h.MustDeploy("tally", testguest.Counter("tally"))
		if r := h.MustSend(add("new")); r.Position != events+1 {
			t.Errorf("%+v", r)
		}
		h.Stop()
	}
}
