package stream

import (
	"context"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a journal whose commits are published to a hub.
type bench struct {
	t        testing.TB
	memory   *journaltest.Memory
	journal  *commitlog.Journal
	hub      *Hub
	versions map[string]journal.Version
	commits  int
	deaf     bool // commits are not published
}

func newBench(t testing.TB, o Options) *bench {
	t.Helper()
	m := journaltest.NewMemory()
	b := &bench{t: t, memory: m, journal: openJournal(t, m), versions: map[string]journal.Version{}}
	b.open(o)
	return b
}

func openJournal(t testing.TB, m *journaltest.Memory) *commitlog.Journal {
	t.Helper()
	j, err := commitlog.Open(t.Context(), m.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close(context.Background()) })
	return j
}

// open makes a new hub on the same journal.
func (b *bench) open(o Options) {
	o.Service, o.Reader = "bank", b.journal
	b.hub = New(o)
}

// commit writes a commit with the given events and waits until it is published.
func (b *bench) commit(key string, events ...journal.NewEvent) journal.Receipt {
	b.t.Helper()
	b.commits++
	c := &journal.Commit{
		Log:      "bank",
		Command:  journal.Command{ID: journal.CommandID(fmt.Sprint("c", b.commits)), Type: "do", Key: key},
		Expected: b.versions[key], Events: events,
	}
	b.versions[key] += journal.Version(len(events))
	got := make(chan journal.Receipt, 1)
	err := b.journal.Append(context.Background(), c, func(r journal.Receipt, err error) {
		if err != nil {
			b.t.Error(err)
		} else if !b.deaf {
			b.hub.Publish(r, c)
		}
		got <- r
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return <-got
}

// event is a small event.
func event(typ, data string) journal.NewEvent {
	return journal.NewEvent{Type: typ, Data: []byte(data), Metadata: abi.Metadata(nil).AppendPair("traceparent",
		"00-01")}
}

// roomFor returns the size of a ring for about the given number of fill's events.
func roomFor(events int) int64 {
	e := event("down", "1")
	largest := service.Event{Event: journal.Event{Key: "alice", Type: e.Type, CommandID: "c100", Data: e.Data,
		Metadata: e.Metadata}}
	return int64(events) * largest.Size()
}

// fill commits n events in commits of one to three.
func (b *bench) fill(n int) {
	b.t.Helper()
	for n > 0 {
		size := min(n, 1+b.commits%3)
		var events []journal.NewEvent
		for i := range size {
			events = append(events, event([]string{"up", "down"}[(b.commits+i)%2], fmt.Sprint(b.commits, i)[:1]))
		}
		b.commit([]string{"alice", "bob", "carol"}[b.commits%3], events...)
		n -= size
	}
}

func (b *bench) subscribe(after journal.Position, f Filter) *Cursor {
	b.t.Helper()
	c, err := b.hub.Subscribe(after, f, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// next reads until it has n events and checks that they follow each other
// without a gap. at is the position before them.
func next(t testing.TB, c *Cursor, n, maxEvents int) {
	t.Helper()
	at := c.Position()
	for n > 0 {
		events, err := c.Next(t.Context(), min(n, maxEvents))
		if err != nil {
			t.Fatal(err)
		}
		if len(events) == 0 || len(events) > maxEvents {
			t.Fatalf("%d events, at maxEvents %d were asked for", len(events), maxEvents)
		}
		for _, e := range events {
			if e.Position != at+1 {
				t.Fatalf("position %d follows %d", e.Position, at)
			}
			at = e.Position
		}
		n -= len(events)
	}
	if c.Position() != at {
		t.Fatalf("the cursor stands at %d, the last event at %d", c.Position(), at)
	}
}

func wantKind(t testing.TB, err error, kind service.Kind) {
	t.Helper()
	if err == nil || service.KindOf(err) != kind {
		t.Fatalf("got %v, want an error of kind %s", err, kind)
	}
}
