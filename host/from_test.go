package host_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A reader may begin at a position, a time or an age, and gets the right first event.
func TestPlacesInALog(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	begin := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	now.Store(begin.UnixNano())
	h := hosttest.New(t, func(o *host.Options) {
		o.Journal.Clock = func() journal.UnixNano { return journal.UnixNano(now.Load()) }
	})
	h.MustDeploy("tally", testguest.Counter("tally"))
	place := func(text string) (service.Position, error) {
		from, err := service.ParseFrom(text)
		if err != nil {
			return 0, err
		}
		c, err := h.Place(context.Background(), "tally", from)
		return c.Position, err
	}
	check := func(text string, want service.Position) {
		t.Helper()
		if got, err := place(text); err != nil || got != want {
			t.Errorf("from %s begins after position %d, %v; want %d", text, got, err, want)
		}
	}
	refused := func(text, want string) {
		t.Helper()
		if got, err := place(text); service.KindOf(err) != service.KindBadCursor ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("from %s begins after position %d, %v; want %s", text, got, err, want)
		}
	}
	check("-1h", 0)
	check("1", 0)
	refused("2", "not come that far")
	for range 10 { // the events 1 to 10, at 8:00 to 8:09
		h.MustSend(add("k"))
		now.Add(int64(time.Minute))
	}
	for text, want := range map[string]service.Position{
		"start": 0, "end": 10, "1": 0, "7": 6, "11": 10, "-1m": 9, "-4m": 6, "-3m30s": 7, "-0s": 10, "-1h": 0, "-7d": 0,
		"2026-01-31T08:00:00Z": 0, "2026-01-31T09:06:00+01:00": 6, "2026-01-31T08:06:00.000000001Z": 7,
		"0001-01-01T00:00:00Z": 0, "9999-01-01T00:00:00Z": 10,
	} {
		check(text, want)
	}
	refused("12", "not come that far")
	cursor := h.MustSend(add("k")).Position
	if _, err := h.Retain(t.Context(), "tally", service.Retention{Before: 5, Force: true}); err != nil {
		t.Fatal(err)
	}
	start, err := place("start")
	if err != nil || start == 0 {
		t.Fatalf("after a retention the start is after position %d, %v", start, err)
	}
	check("-1h", start)
	check("2026-01-31T08:06:00Z", 6)
	check("-1m", cursor-2)
	refused("1", "deleted by a retention")
	if _, err := h.Place(t.Context(), "nobody", service.From{Kind: service.FromAge}); service.KindOf(
		err) != service.KindNotFound {
		t.Errorf("of no service: %v", err)
	}
}

// A cursor at an edge of the log is accepted exactly if the log has that place.
func TestCursorsAtTheEdges(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	h.MustDeploy("tally", testguest.Counter("tally"))
	parse := func(c service.Cursor) error {
		got, err := h.ParseCursor(t.Context(), "tally", c.String())
		if err == nil && got.Position != c.Position {
			t.Errorf("the cursor after %d is parsed as one after %d", c.Position, got.Position)
		}
		return err
	}
	refused := func(c service.Cursor, part string) {
		t.Helper()
		if err := parse(c); service.KindOf(err) != service.KindBadCursor || !strings.Contains(err.Error(), part) {
			t.Errorf("the cursor after %d: %v; want %s", c.Position, err, part)
		}
	}
	accepted := func(c service.Cursor) {
		t.Helper()
		if err := parse(c); err != nil {
			t.Errorf("the cursor after %d: %v", c.Position, err)
		}
	}
	unborn, err := h.Cursor(t.Context(), "tally", 0)
	if err != nil {
		t.Fatal(err)
	}
	accepted(unborn)
	first := h.MustSend(add("k")).Cursor
	accepted(unborn) // the place before the first event of every history
	accepted(first)
	born, err := h.Cursor(t.Context(), "tally", 0)
	if err != nil || born == unborn {
		t.Fatalf("%+v, %v", born, err)
	}
	accepted(born)
	other := born
	other.Stamp = first.Stamp
	refused(other, "does not have") // no event proves the beginning
	for _, p := range []service.Position{2, 1 << 63, 1<<64 - 2, 1<<64 - 1} {
		beyond := first
		beyond.Position = p
		refused(beyond, "has not reached")
	}
	second := h.MustSend(add("k")).Cursor
	h.MustSend(add("k"))
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 3}); err != nil || done.First != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	for _, c := range []service.Cursor{unborn, born, first} {
		refused(c, "deleted by a retention")
	}
	accepted(second) // the one before the first readable event
	second.Stamp[0]++
	refused(second, "does not have")
}

// A reader that resumes at the place before the first event is refused if a retention has deleted that event.
// A reader that begins at the start gets the first readable event.
func TestTheBeginningIsAPlace(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	h.MustDeploy("tally", testguest.Counter("tally"))
	for range 3 {
		h.MustSend(add("k"))
	}
	ctx := t.Context()
	read := func(s service.Selection) (first service.Position, err error) {
		page, err := h.Events(ctx, s, 1)
		if err == nil && len(page.Events) > 0 {
			first = page.Events[0].Position
		}
		return first, err
	}
	start, exact := service.Selection{Service: "tally"},
		service.Selection{Service: "tally", From: service.AfterPosition(0)}
	for _, s := range []service.Selection{start, exact} {
		if first, err := read(s); err != nil || first != 1 {
			t.Errorf("%+v begins with %d, %v", s, first, err)
		}
	}
	if done, err := h.Retain(ctx, "tally", service.Retention{Before: 3}); err != nil || done.First != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	if first, err := read(start); err != nil || first != 3 {
		t.Errorf("the start is %d, %v", first, err)
	}
	if first, err := read(exact); service.KindOf(err) != service.KindBadCursor {
		t.Errorf("position 0 begins with %d, %v", first, err)
	}
}
