package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// counting is a journal that counts what is read of its log, and can be held up.
type counting struct {
	Reader
	reads, events, inside, maxSeen atomic.Int64
	hold                           chan struct{} // if not nil, a read waits until it is closed
}

func (c *counting) Read(ctx context.Context, log journal.LogName, after journal.Position, limit int,
	yield func(*journal.Event) error) error {
	c.reads.Add(1)
	c.maxSeen.Store(max(c.maxSeen.Load(), c.inside.Add(1)))
	defer c.inside.Add(-1)
	if c.hold != nil {
		<-c.hold
	}
	return c.Reader.Read(ctx, log, after, limit, func(e *journal.Event) error {
		c.events.Add(1)
		return yield(e)
	})
}

// behindRing makes a bench with n events, none of which is in the ring.
func behindRing(t *testing.T, n int, b *Backlog) (*bench, *counting) {
	x := newBench(t, Options{})
	x.deaf = true
	x.fill(n)
	c := &counting{Reader: x.journal}
	x.hub = New(Options{Service: "bank", Reader: c, Backlog: b})
	return x, c
}

// Many subscribers resume at the same position, and others near it. The log is read about once, by
// no more readers at a time than there are turns.
func TestSubscribersShareAScan(t *testing.T) {
	const events = 5000
	turns := fair.New(fair.Options{Slots: 2})
	b, c := behindRing(t, events, NewBacklog(turns, 0))
	var readers sync.WaitGroup
	for n := range 200 {
		begin := journal.Position(0)
		if n%4 == 0 {
			begin = journal.Position(n)
		}
		cursor := b.subscribe(begin, Filter{})
		readers.Go(func() { next(t, cursor, events-int(begin), 1+n*3) })
	}
	readers.Wait()
	// Cursors that begin within the first piece use it once it is cached. Those that begin earlier
	// read up to a piece each.
	if n := c.events.Load(); n < events || n > 4*events {
		t.Errorf("200 subscribers of %d events read %d from the log", events, n)
	}
	if n := c.maxSeen.Load(); n > 2 {
		t.Errorf("%d read at a time", n)
	}
	if s := turns.Stats(); s.Begun < 200 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// Cursors with keys do not read the log at all, and share what they read from the index.
func TestAFilterByKeyReadsTheIndex(t *testing.T) {
	b, c := behindRing(t, 3000, NewBacklog(nil, 0))
	for b.journal.Indexed("bank") < 3000 {
		b.commit("dora", event("up", "1")) // the index waits for nothing but commits
	}
	head := b.journal.Head("bank")
	var readers sync.WaitGroup
	for _, keys := range [][]service.Key{{"alice"}, {"carol", "alice"}, {"alice", "carol"}, {"nobody"},
		{"nobody", "zoe"}} {
		want := 0
		x := newFilter(Filter{Keys: keys})
		if err := b.journal.Read(t.Context(), "bank", 0, 0, func(e *journal.Event) error {
			if x.wants(e) && e.Position <= 3000 {
				want++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			cursor := b.subscribe(0, Filter{Keys: keys})
			readers.Go(func() {
				got := 0
				for cursor.Position() < 3000 {
					events, _, err := cursor.Poll(t.Context(), 0)
					if err != nil {
						t.Error(err)
						return
					}
					got += len(events)
				}
				if got != want || cursor.Position() > head {
					t.Errorf("%v: %d events up to %d, want %d", keys, got, cursor.Position(), want)
				}
			})
		}
	}
	readers.Wait()
	if n := c.reads.Load(); n != 0 {
		t.Errorf("the log was read %d times", n)
	}
}

// Events that a damaged index cannot return are read from the log.
func TestADamagedIndexIsNotFollowed(t *testing.T) {
	b, c := behindRing(t, 600, NewBacklog(nil, 0))
	for b.journal.Indexed("bank") < 600 {
		b.commit("dora", event("up", "1"))
	}
	if err := b.journal.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole, damaged := b.memory.CrashClone(0), b.memory.CrashClone(0)
	prefix := []byte{'e'}
	var pairs []journal.Pair
	if err := damaged.Index().Scan(t.Context(), prefix, prefix, func(key, _ []byte) error {
		pairs = append(pairs, journal.Pair{Key: bytes.Clone(key), Value: []byte("nonsense")})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := damaged.Index().Update(t.Context(), pairs); err != nil {
		t.Fatal(err)
	}
	c.Reader = openJournal(t, whole)
	broken := &brokenKeys{c, openJournal(t, damaged)}
	b.hub = New(Options{Service: "bank", Reader: broken, Backlog: NewBacklog(nil, 0)})
	cursor := b.subscribe(0, Filter{Keys: []service.Key{"alice"}})
	got := 0
	for cursor.Position() < 600 {
		events, _, err := cursor.Poll(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Key != "alice" {
				t.Fatalf("an event of %s", e.Key)
			}
		}
		got += len(events)
	}
	if got == 0 || c.reads.Load() == 0 {
		t.Errorf("%d events, %d reads of the log", got, c.reads.Load())
	}
}

// brokenKeys reads by key from an index that is damaged.
type brokenKeys struct {
	*counting
	broken *commitlog.Journal
}

func (b *brokenKeys) ReadKeys(log journal.LogName, keys []string) *commitlog.KeyReader {
	return b.broken.ReadKeys(log, keys)
}

// A cursor that is far behind in the ring takes turns as well; one at the head does not.
func TestALongWayInTheRingIsGoneInTurns(t *testing.T) {
	turns := fair.New(fair.Options{})
	b := newBench(t, Options{Backlog: NewBacklog(turns, 0)})
	live := b.subscribe(0, Filter{})
	for range 6 {
		b.fill(500)
		next(t, live, 500, 100)
	}
	if s := turns.Stats(); s.Begun != 0 {
		t.Errorf("at the head: %+v", s)
	}
	c := b.subscribe(0, Filter{})
	next(t, c, 100, 100)
	if s := turns.Stats(); s.Begun != 1 {
		t.Errorf("far behind: %+v", s)
	}
	next(t, c, 2900, 100)
	if c.turned || turns.Stats().Working != 0 {
		t.Errorf("at the head it keeps its turn: %+v", turns.Stats())
	}
}

// A cursor that is cancelled while it waits for a turn, or for another's read, loses nothing.
func TestGoingAwayWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := fair.New(fair.Options{Slots: 2})
		b, c := behindRing(t, 100, NewBacklog(turns, 0))
		c.hold = make(chan struct{})
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(context.Background())
		var cursors []*Cursor
		errs := make(chan error)
		for range 3 { // one reads, one waits for that, one for a turn
			cursor := b.subscribe(0, Filter{})
			cursors = append(cursors, cursor)
			go func() {
				_, err := cursor.Next(ctx, 0)
				errs <- err
			}()
			synctest.Wait()
		}
		if s := turns.Stats(); s.Working != 2 || s.Waiting != 1 {
			t.Errorf("%+v", s)
		}
		cancel(gone)
		synctest.Wait()
		for range 2 {
			if err := <-errs; err != gone {
				t.Errorf("got %v", err)
			}
		}
		close(c.hold)
		if err := <-errs; err != nil && err != gone {
			t.Errorf("got %v", err)
		}
		c.hold = nil
		for _, cursor := range cursors {
			next(t, cursor, 100-int(cursor.Position()), 7)
		}
		if s := turns.Stats(); s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Waiting readers above the maximum are refused.
func TestTooManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, c := behindRing(t, 100, NewBacklog(fair.New(fair.Options{Waiting: 1}), 0))
		c.hold = make(chan struct{})
		var waiting sync.WaitGroup
		for range 2 {
			cursor := b.subscribe(0, Filter{})
			waiting.Go(func() { next(t, cursor, 100, 100) })
			synctest.Wait()
		}
		_, err := b.subscribe(0, Filter{}).Next(t.Context(), 0)
		var full *service.Error
		if !errors.As(err, &full) || full.Kind != service.KindOverloaded || full.Resource != "waiting_readers" ||
			full.Used != 1 || full.Limit != 1 || full.RetryAfter <= 0 {
			t.Errorf("%+v", err)
		}
		close(c.hold)
		waiting.Wait()
	})
}

// TestBytesOfTheBacklog reads more than it may keep.
func TestBytesOfTheBacklog(t *testing.T) {
	const maxBytes = 1 << 20
	backlog := NewBacklog(nil, maxBytes)
	b, c := behindRing(t, 4000, backlog)
	for range 2 {
		next(t, b.subscribe(0, Filter{}), 4000, 300)
		if n := backlog.Bytes(); n <= maxBytes/4 || n > maxBytes {
			t.Errorf("%d bytes are kept", n)
		}
	}
	if n := c.events.Load(); n < 5000 {
		t.Errorf("%d events were read", n)
	}
	b.hub.Close(errors.New("over"))
	if n := backlog.Bytes(); n != 0 {
		t.Errorf("%d bytes are kept of a hub that is gone", n)
	}
}

// BenchmarkResume has subscribers come back to the start of a log that is in no ring.
func BenchmarkResume(b *testing.B) {
	const events = 20000
	x, _, _ := receipts(b, events)
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				x.open(Options{})
				var readers sync.WaitGroup
				for range n {
					c := x.subscribe(0, Filter{})
					readers.Go(func() {
						for c.Position() < events {
							if _, err := c.Next(context.Background(), 0); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				readers.Wait()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/events, "ns/event")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/events/float64(n), "ns/event/cursor")
		})
	}
}
