package host_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// loadAgain lets senders send a bounded number of commands. Without a bound the test would not end, as the
// work beside them takes longer the more was sent.
func loadAgain(more chan<- bool) {
	for len(more) < cap(more) {
		more <- true
	}
}

// Events are deleted under load, again and again. No command is affected, and after a restart every entity
// has its count.
func TestRetentionUnderLoad(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	h.MustDeploy("tally", testguest.Counter("tally"))
	more := make(chan bool, 400)
	var load sync.WaitGroup
	counts := make([]int, 4)
	for w := range counts {
		load.Go(func() {
			for range more {
				r, err := h.Send(context.Background(), add(service.Key(fmt.Sprint("w", w))))
				if err != nil {
					t.Error(err)
					return
				}
				counts[w]++
				if string(r.Data) != fmt.Sprint(counts[w]) {
					t.Errorf("count %s after %d commands", r.Data, counts[w])
					return
				}
			}
		})
	}
	follower, err := h.Subscribe(t.Context(), service.Selection{Service: "tally"})
	if err != nil {
		t.Fatal(err)
	}
	var first service.Position
	for range 6 {
		loadAgain(more)
		h.MustSend(add("k"))
		position := h.MustSend(add("k")).Position
		if _, err := follower.Next(t.Context(), 0); err != nil && service.KindOf(err) != service.KindBadCursor {
			t.Error(err)
		}
		done, err := h.Retain(t.Context(), "tally", service.Retention{Before: position})
		if err != nil || done.Uncovered > 0 || done.First < first || done.First > position {
			t.Fatalf("%+v, %v", done, err)
		}
		first = done.First
	}
	close(more)
	load.Wait()
	if first < 3 {
		t.Errorf("nothing was deleted: the first event has position %d", first)
	}
	h.Restart()
	for w, n := range counts {
		q, err := h.Query(t.Context(), service.Query{Service: "tally", Key: service.Key(fmt.Sprint("w", w)),
			Type: "count"})
		if err != nil || string(q.Data) != fmt.Sprint(n) || int(q.Version) != n {
			t.Errorf("w%d counts %s at version %d after %d commands, %v", w, q.Data, q.Version, n, err)
		}
	}
	// Reading from the start begins with the first readable event; an earlier place is refused.
	page, err := h.Events(t.Context(), service.Selection{Service: "tally"}, 1)
	if err != nil || len(page.Events) != 1 || page.Events[0].Position != first {
		t.Errorf("from the start: %+v, %v", page.Events, err)
	}
	if _, err := h.Subscribe(t.Context(),
		service.Selection{Service: "tally", From: service.AfterPosition(1)}); service.KindOf(
		err) != service.KindBadCursor ||
		!strings.Contains(err.Error(), fmt.Sprintf("first available has position %d", first)) {
		t.Errorf("a place that is gone: %v", err)
	}
	for _, p := range []service.Position{0, 1, first - 2} {
		if _, err := h.Cursor(t.Context(), "tally", p); service.KindOf(err) != service.KindBadCursor {
			t.Errorf("the cursor of %d: %v", p, err)
		}
		gone := page.Events[0].Cursor()
		gone.Position = p
		if _, err := h.ParseCursor(t.Context(), "tally", gone.String()); service.KindOf(err) != service.KindBadCursor {
			t.Errorf("a cursor at %d: %v", p, err)
		}
	}
	if start, err := h.Start("tally"); err != nil || start != first-1 {
		t.Errorf("the start is %d, %v", start, err)
	}
	c, err := h.Cursor(t.Context(), "tally", first-1)
	if back, again := h.ParseCursor(t.Context(), "tally", c.String()); err != nil || again != nil || back != c ||
		c.Position != first-1 {
		t.Errorf("a cursor at %d: %+v, %+v, %v, %v", first-1, c, back, err, again)
	}
	if _, err := h.EntityEvents(t.Context(), "tally", "k", 1, 0); service.KindOf(err) != service.KindBadCursor {
		t.Errorf("a version that is gone: %v", err)
	}
	left, err := h.EntityEvents(t.Context(), "tally", "k", 0, 1)
	if v, wrong := h.EntityFirst(t.Context(), "tally", "k"); err != nil || wrong != nil || len(left) != 1 ||
		v != left[0].Version || v < 2 {
		t.Errorf("the first version is %d, %v; %+v, %v", v, wrong, left, err)
	}
	if v, err := h.EntityFirst(t.Context(), "tally", "nobody"); err != nil || v != 1 {
		t.Errorf("the first version of nobody is %d, %v", v, err)
	}
	if events, err := h.EntityEvents(t.Context(), "tally", "k", 0, 0); err != nil || len(events) == 0 ||
		events[len(events)-1].Version != 12 {
		t.Errorf("what is left of k: %+v, %v", events, err)
	}
	if _, err := h.Retain(t.Context(), "tally", service.Retention{}); service.KindOf(err) != service.KindInvalid {
		t.Errorf("without a bound: %v", err)
	}
}
