package stream

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

func TestFromRingAndFromJournal(t *testing.T) {
	b := newBench(t, Options{RingBytes: roomFor(16)})
	b.fill(100)
	for _, after := range []journal.Position{0, 1, 50, 83, 84, 85, 99} {
		c := b.subscribe(after, Filter{})
		next(t, c, 100-int(after), 7)
	}
	if s := b.hub.Stats(); s.Head != 100 || s.Events != 16 || s.Gaps != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestWaitingAtTheHead(t *testing.T) {
	b := newBench(t, Options{RingBytes: roomFor(4)})
	c := b.subscribe(0, Filter{})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("gone")
	returned := make(chan error)
	go func() { _, err := c.Next(ctx, 1); returned <- err }()
	cancel(why)
	if err := <-returned; err != why {
		t.Errorf("got %v", err)
	}
	var readers sync.WaitGroup
	for range 8 {
		c := b.subscribe(0, Filter{})
		readers.Go(func() { next(t, c, 300, 5) })
	}
	b.fill(300)
	readers.Wait()
	next(t, c, 300, 300)
}

// TestGapsAreNotHidden leaves commits out and repeats others: subscribers get
// what the journal has.
func TestGapsAreNotHidden(t *testing.T) {
	b := newBench(t, Options{RingBytes: roomFor(64)})
	b.fill(10)
	b.deaf = true
	b.fill(5)
	b.deaf = false
	waiting := b.subscribe(10, Filter{})
	b.fill(10)
	next(t, waiting, 15, 3)
	next(t, b.subscribe(0, Filter{}), 25, 100)
	if s := b.hub.Stats(); s.Gaps != 1 || s.Events != 10 || s.Head != 25 {
		t.Errorf("stats %+v", s)
	}
	c := &journal.Commit{Log: "bank", Command: journal.Command{ID: "again", Key: "dora"},
		Events: []journal.NewEvent{event("up", "1")}}
	r := b.commit("dora", c.Events...)
	b.hub.Publish(r, c)
	next(t, b.subscribe(0, Filter{}), 26, 100)
	if s := b.hub.Stats(); s.Gaps != 2 || s.Head != 26 {
		t.Errorf("stats after a repeated publication %+v", s)
	}
	b.fill(3)
	next(t, b.subscribe(20, Filter{}), 9, 100)
}

// TestAcrossARestart resumes by a position at another hub.
func TestAcrossARestart(t *testing.T) {
	b := newBench(t, Options{})
	b.fill(20)
	c := b.subscribe(0, Filter{})
	next(t, c, 13, 13)
	b.open(Options{})
	b.fill(10)
	next(t, b.subscribe(c.Position(), Filter{}), 17, 100)
}

func TestFilters(t *testing.T) {
	b := newBench(t, Options{RingBytes: roomFor(32)})
	b.fill(1000)
	for _, f := range []Filter{{}, {Types: []service.Type{"up"}}, {Keys: []service.Key{"bob", "alice"}},
		{Types: []service.Type{"down"}, Keys: []service.Key{"carol"}}, {Keys: []service.Key{"nobody"}}} {
		want, got := map[journal.Position]bool{}, map[journal.Position]bool{}
		x := newFilter(f)
		if err := b.journal.Read(t.Context(), "bank", 0, 0, func(e *journal.Event) error {
			if x.wants(e) {
				want[e.Position] = true
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		c := b.subscribe(0, f)
		for atHead := false; !atHead; {
			var events []*service.Event
			var err error
			if events, atHead, err = c.Poll(t.Context(), 10); err != nil {
				t.Fatal(err)
			}
			if len(events) > 10 {
				t.Fatalf("%d events", len(events))
			}
			for _, e := range events {
				if got[e.Position] {
					t.Errorf("%d came twice", e.Position)
				}
				got[e.Position] = true
			}
		}
		if c.Position() != 1000 {
			t.Errorf("%+v: the cursor came to %d", f, c.Position())
		}
		if len(got) != len(want) {
			t.Errorf("%+v: %d events, want %d", f, len(got), len(want))
		}
	}
}

// TestProgressWithoutMatches waits at the head although nothing was wanted, and
// can resume there.
func TestProgressWithoutMatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{RingBytes: roomFor(32)})
		b.fill(1000)
		c := b.subscribe(0, Filter{Types: []service.Type{"sideways"}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { _, err := c.Next(ctx, 0); done <- err }()
		synctest.Wait()
		b.fill(10)
		synctest.Wait()
		cancel()
		wantKind(t, <-done, service.KindCanceled)
		if c.Position() != 1010 {
			t.Errorf("the cursor came to %d", c.Position())
		}
		b.commit("alice", event("sideways", "1"))
		events, err := c.Next(t.Context(), 0)
		if err != nil || len(events) != 1 || events[0].Position != 1011 {
			t.Errorf("got %v, %v", events, err)
		}
	})
}

// Cursors with a filter are woken only by events that they want, also after a gap, and continue at
// the right position.
func TestWaitingCursorsAreWokenByTheirEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{RingBytes: roomFor(4)})
		var got []journal.Position
		follow := func(ctx context.Context, f Filter) *Cursor {
			c := b.subscribe(0, f)
			go func() {
				for {
					events, err := c.Next(ctx, 0)
					if err != nil {
						return
					}
					for _, e := range events {
						got = append(got, e.Position)
					}
				}
			}()
			synctest.Wait()
			return c
		}
		sleeps := func(c *Cursor, at, head journal.Position, positions ...journal.Position) {
			t.Helper()
			synctest.Wait()
			if c.waiter == nil || c.waiter.woken || c.at != at || b.hub.Head() != head ||
				!slices.Equal(got, positions) {
				t.Errorf("at %d of %d, with %v", c.at, b.hub.Head(), got)
			}
			got = nil
		}
		names := func(want int) {
			t.Helper()
			synctest.Wait()
			if n := len(b.hub.waiting.byKey) + len(b.hub.waiting.byType); n != want {
				t.Errorf("%d names are waited for, want %d", n, want)
			}
		}
		for i, f := range []Filter{
			{Keys: []service.Key{"zoe", "yves"}}, {Types: []service.Type{"never", "rare"}},
			{Keys: []service.Key{"zoe", "alice"}, Types: []service.Type{"rare"}},
		} {
			begin := b.hub.Head()
			ctx, cancel := context.WithCancel(t.Context())
			c := follow(ctx, f)
			got = nil
			b.fill(10) // more than the ring has
			sleeps(c, begin, begin+10)
			b.commit("zoe", event("up", "1"), event("rare", "2"))
			if f.Types == nil {
				sleeps(c, begin+12, begin+12, begin+11, begin+12)
			} else {
				sleeps(c, begin+12, begin+12, begin+12)
			}
			b.deaf = true
			b.commit("zoe", event("rare", "3"))
			b.fill(5)
			b.deaf = false
			sleeps(c, begin+12, begin+18)
			b.fill(1)
			sleeps(c, begin+19, begin+19, begin+13)
			names(2)
			if i < 2 {
				cancel()
			} else {
				b.hub.Close(errors.New("over"))
			}
			names(0)
			cancel()
		}
	})
}

func TestBytesOfTheRing(t *testing.T) {
	b := newBench(t, Options{RingBytes: 20000})
	c := b.subscribe(0, Filter{})
	big := event("up", `"`+strings.Repeat("x", 30000)+`"`)
	b.fill(200)
	if s := b.hub.Stats(); s.Bytes > 20000 || s.Events == 0 || s.Events > 30 {
		t.Errorf("stats %+v", s)
	}
	b.commit("alice", big)
	if s := b.hub.Stats(); s.Bytes != 0 || s.Events != 0 || s.Head != 201 {
		t.Errorf("stats with a giant %+v", s)
	}
	b.fill(3)
	next(t, c, 204, 100)
}

func TestFutureAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{})
		b.fill(5)
		_, err := b.hub.Subscribe(6, Filter{}, "")
		wantKind(t, err, service.KindBadCursor)
		if !strings.Contains(err.Error(), "future") {
			t.Errorf("got %v", err)
		}
		c := b.subscribe(0, Filter{})
		next(t, c, 5, 5)
		ended := service.Errorf(service.KindNotFound, "the service was deleted")
		done := make(chan error)
		go func() { _, err := c.Next(t.Context(), 1); done <- err }()
		synctest.Wait()
		b.hub.Close(ended)
		b.hub.Close(errors.New("later"))
		if err := <-done; err != ended {
			t.Errorf("got %v", err)
		}
		rest := b.subscribe(2, Filter{})
		next(t, rest, 3, 3)
		if _, err := rest.Next(t.Context(), 1); err != ended {
			t.Errorf("got %v", err)
		}
	})
}

// flaky is a journal that fails after some events, or leaves one out.
type flaky struct {
	Reader
	failAfter, leaveOut int
}

func (f *flaky) Read(ctx context.Context, log journal.LogName, after journal.Position, limit int,
	yield func(*journal.Event) error) error {
	n := 0
	return f.Reader.Read(ctx, log, after, limit, func(e *journal.Event) error {
		if n++; f.failAfter > 0 && n > f.failAfter {
			return &journal.Error{Op: "read", Kind: journal.KindFailed, Detail: "of the disk"}
		}
		if int(e.Position) == f.leaveOut {
			return nil
		}
		return yield(e)
	})
}

func TestFailuresOfTheJournal(t *testing.T) {
	b := newBench(t, Options{RingBytes: roomFor(4), Backlog: NewBacklog(nil, -1)}) // each step reads
	b.fill(50)
	f := &flaky{Reader: b.journal, failAfter: 3}
	b.hub.options.Reader = f
	c := b.subscribe(0, Filter{})
	if events, err := c.Next(t.Context(), 10); len(events) != 0 {
		t.Errorf("got %d events and %v", len(events), err)
	} else {
		wantKind(t, err, service.KindUnavailable)
	}
	f.failAfter = 0
	next(t, c, 20, 10)
	f.leaveOut = 22
	_, err := c.Next(t.Context(), 10)
	wantKind(t, err, service.KindInternal)
	f.leaveOut = 0
	next(t, c, 30, 10)
}

// TestManyReadersAtTheirOwnPace has readers with all kinds of pauses and page
// sizes, some of which fall behind the ring, while commits go on.
func TestManyReadersAtTheirOwnPace(t *testing.T) {
	b := newBench(t, Options{RingBytes: roomFor(8)})
	var readers sync.WaitGroup
	for i := range 6 {
		after := journal.Position(0)
		c := b.subscribe(after, Filter{})
		readers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for left := 500; left > 0; {
				n := min(left, 1+random.IntN(40))
				next(t, c, n, 1+random.IntN(20))
				left -= n
			}
		})
	}
	b.fill(500)
	readers.Wait()
}

// A reference to a small event does not keep the large ones in memory that were committed with it,
// neither those of the ring nor those read from the log.
func TestWhatASmallEventKeeps(t *testing.T) {
	const commits, size = 64, 1 << 20
	b := newBench(t, Options{RingBytes: 4 * size, Backlog: NewBacklog(nil, -1)})
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	large := `"` + strings.Repeat("x", size) + `"`
	small := b.subscribe(0, Filter{Types: []service.Type{"small"}})
	var held []*service.Event
	before := heap()
	for range commits {
		b.commit("alice", event("small", "1"), journal.NewEvent{Type: "large", Data: []byte(strings.Clone(large))},
			event("small", "2"))
		events, err := small.Next(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, events...)
	}
	for range 2 { // from the ring, and again from the log
		c := b.subscribe(0, Filter{Types: []service.Type{"small"}})
		for c.Position() < b.hub.Head() {
			events, err := c.Next(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, slices.Clone(events)...)
		}
	}
	if len(held) != 3*2*commits {
		t.Fatalf("%d events", len(held))
	}
	// The journal's index is in memory, and has all of them once; the ring has some.
	if more := heap() - before; more > (commits+16)*size {
		t.Errorf("%d small events keep %d bytes", len(held), more)
	}
	runtime.KeepAlive(held)
}
