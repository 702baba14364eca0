package fair

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func begin(t *testing.T, p *Turn) {
	t.Helper()
	if err := p.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantStats(t *testing.T, turns *Turns, working, waiting int) {
	t.Helper()
	if s := turns.Stats(); s.Working != working || s.Waiting != waiting {
		t.Errorf("%d work and %d wait, want %d and %d", s.Working, s.Waiting, working, waiting)
	}
}

// TestTurnsGoRound has one account with many members, one member with many turns, and small ones. Each
// account gets as many turns as the others, and so does each member within it.
func TestTurnsGoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := New(Options{})
		first := turns.Turn("first", "")
		begin(t, first)
		var order []string
		var all sync.WaitGroup
		wait := func(account, member string) {
			p := turns.Turn(account, member)
			all.Go(func() {
				if err := p.Begin(context.Background()); err != nil {
					t.Error(err)
				}
				order = append(order, account+member)
				p.End()
			})
			synctest.Wait()
		}
		for range 3 {
			wait("a", "1")
		}
		for range 2 {
			wait("a", "2")
		}
		wait("b", "1")
		wait("c", "1")
		wait("c", "1")
		wantStats(t, turns, 1, 8)
		first.End()
		all.Wait()
		if want := []string{"a1", "b1", "c1", "a2", "c1", "a1", "a2", "a1"}; !slices.Equal(order, want) {
			t.Errorf("turns came as %v, want %v", order, want)
		}
		wantStats(t, turns, 0, 0)
		if len(turns.queue.byName) != 0 || turns.queue.accounts.Len() != 0 {
			t.Errorf("the queue keeps %v", turns.queue.byName)
		}
	})
}

// A turn lasts while its holder works, may end when the holder asks, and is taken away only while it rests.
func TestWhenATurnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := New(Options{Length: time.Millisecond})
		a, b := turns.Turn("a", ""), turns.Turn("b", "")
		begin(t, a)
		if time.Sleep(5 * time.Millisecond); a.Spent() {
			t.Error("a turn is spent while nobody waits")
		}
		begin(t, a) // another turn, as no one else wants it
		got := make(chan struct{})
		go func() { begin(t, b); close(got) }()
		synctest.Wait()
		begin(t, a) // continues
		wantStats(t, turns, 1, 1)
		time.Sleep(5 * time.Millisecond)
		if synctest.Wait(); !a.Spent() {
			t.Error("a turn is not spent while somebody waits")
		}
		wantStats(t, turns, 1, 1) // no one took it
		a.Rest()
		<-got
		wantStats(t, turns, 1, 0)

		again := make(chan struct{})
		go func() { begin(t, a); close(again) }()
		synctest.Wait()
		wantStats(t, turns, 1, 1)
		b.Rest() // its time is not over
		synctest.Wait()
		wantStats(t, turns, 1, 1)
		begin(t, b)
		b.Rest()
		time.Sleep(999 * time.Microsecond)
		synctest.Wait()
		wantStats(t, turns, 1, 1)
		time.Sleep(time.Microsecond)
		<-again
		b.End() // holds nothing
		wantStats(t, turns, 1, 0)
		a.End()
		a.End()
		wantStats(t, turns, 0, 0)
	})
}

// A holder whose turn has lasted long enough waits after the others for the next one.
func TestWhoHadATurnWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := New(Options{Length: time.Millisecond})
		var order []string
		var all sync.WaitGroup
		for _, name := range []string{"a", "b", "c"} {
			p := turns.Turn(name, "")
			all.Go(func() {
				for range 3 {
					if err := p.Begin(context.Background()); err != nil {
						t.Error(err)
					}
					order = append(order, name)
					time.Sleep(time.Millisecond)
				}
				p.End()
			})
			synctest.Wait()
		}
		all.Wait()
		if want := []string{"a", "b", "c", "a", "b", "c", "a", "b", "c"}; !slices.Equal(order, want) {
			t.Errorf("turns came as %v", order)
		}
	})
}

// A holder that gives up its turn, and finds one that another has left unused for too long, continues
// immediately, and so holds one turn.
func TestTwoTurnsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := New(Options{Slots: 2, Length: time.Millisecond})
		a, b, c, d := turns.Turn("a", ""), turns.Turn("b", ""), turns.Turn("c", ""), turns.Turn("d", "")
		begin(t, a)
		begin(t, b)
		got := make(chan struct{}, 2)
		go func() { begin(t, c); got <- struct{}{} }()
		synctest.Wait()
		turns.mu.Lock()
		turns.armed = true // the timer is late
		turns.mu.Unlock()
		b.Rest()
		time.Sleep(time.Millisecond)
		begin(t, a)
		<-got
		wantStats(t, turns, 2, 0)
		go func() { begin(t, d); got <- struct{}{} }()
		synctest.Wait()
		a.End()
		<-got
		wantStats(t, turns, 2, 0)
		go func() { begin(t, a); got <- struct{}{} }()
		synctest.Wait()
		wantStats(t, turns, 2, 1)
		if len(got) > 0 {
			t.Error("it goes on without a turn")
		}
		c.End()
		<-got
		a.End()
		d.End()
	})
}

func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := New(Options{Waiting: 2})
		a, b, c := turns.Turn("a", ""), turns.Turn("a", ""), turns.Turn("a", "")
		begin(t, a)
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		errs := make(chan error, 2)
		go func() { errs <- b.Begin(ctx) }()
		synctest.Wait()
		go func() { errs <- c.Begin(ctx) }()
		synctest.Wait()
		if err := turns.Turn("b", "").Begin(t.Context()); !isFull(err) {
			t.Errorf("got %v", err)
		}
		if s := turns.Stats(); s.Refused != 1 {
			t.Errorf("%d are said to be refused", s.Refused)
		}
		cancel(gone)
		for range 2 {
			if err := <-errs; err != gone {
				t.Errorf("got %v", err)
			}
		}
		wantStats(t, turns, 1, 0)
		a.End()
		begin(t, b)
		b.End()
	})
}

// A turn that was dropped while it rested is not lost.
func TestADroppedTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := New(Options{Slots: 2, Length: time.Millisecond})
		for range 4 {
			p := turns.Turn("a", "")
			begin(t, p)
			p.Rest()
		}
		b := turns.Turn("b", "")
		begin(t, b)
		wantStats(t, turns, 1, 0)
		b.End()
	})
}

// Work is charged, but neither rest nor waiting.
func TestCharge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		charged := map[string]time.Duration{}
		var mu sync.Mutex
		turns := New(Options{Charge: func(account string, d time.Duration) {
			mu.Lock()
			charged[account] += d
			mu.Unlock()
		}})
		a, b := turns.Turn("a", ""), turns.Turn("b", "")
		begin(t, a)
		time.Sleep(3 * time.Millisecond)
		begin(t, a)
		time.Sleep(time.Millisecond)
		done := make(chan struct{})
		go func() { begin(t, b); close(done) }()
		synctest.Wait()
		time.Sleep(time.Millisecond)
		a.Rest() // and loses it
		<-done
		time.Sleep(2 * time.Millisecond)
		b.Rest()
		time.Sleep(7 * time.Millisecond)
		begin(t, b)
		time.Sleep(time.Millisecond)
		b.End()
		if charged["a"] != 5*time.Millisecond || charged["b"] != 3*time.Millisecond {
			t.Errorf("charged %v", charged)
		}
		if s := turns.Stats(); s.Worked != 8*time.Millisecond || s.Waited != time.Millisecond {
			t.Errorf("%+v", s)
		}
	})
}

// TestAnybodyAtAnyTime makes random calls from many goroutines. There is never more work than slots, no one
// waits forever, and nothing is left.
func TestAnybodyAtAnyTime(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		const slots = 3
		turns := New(Options{Slots: slots, Length: time.Millisecond, Waiting: 40})
		var mu sync.Mutex
		inside, peak := 0, 0
		var all sync.WaitGroup
		for n := range 50 {
			random := rand.New(rand.NewPCG(seed, uint64(n)))
			p := turns.Turn(fmt.Sprint("account", n%4), fmt.Sprint("member", n%3))
			all.Go(func() {
				for range 100 {
					ctx, cancel := context.WithTimeout(context.Background(),
						time.Duration(random.IntN(30))*time.Millisecond)
					err := p.Begin(ctx)
					cancel()
					if err != nil {
						if !errors.Is(err, context.DeadlineExceeded) && !isFull(err) {
							t.Error(err)
						}
						time.Sleep(time.Millisecond)
						continue
					}
					mu.Lock()
					inside++
					peak = max(peak, inside)
					mu.Unlock()
					time.Sleep(time.Duration(random.IntN(2000)) * time.Microsecond)
					mu.Lock()
					inside--
					mu.Unlock()
					switch random.IntN(3) {
					case 0:
						p.End()
					case 1:
						p.Rest()
						time.Sleep(time.Duration(random.IntN(2000)) * time.Microsecond)
					}
				}
				if p.End(); len(p.granted) != 0 {
					t.Error("it has a turn that it does not know of")
				}
			})
		}
		all.Wait()
		if peak > slots || peak == 0 {
			t.Errorf("%d worked at a time", peak)
		}
		wantStats(t, turns, 0, 0)
		if len(turns.holders) != 0 || len(turns.queue.byName) != 0 {
			t.Errorf("%d hold a turn and %d wait at the end", len(turns.holders), len(turns.queue.byName))
		}
	})
}

// BenchmarkAlone measures a turn without competition.
func BenchmarkAlone(b *testing.B) {
	p := New(Options{}).Turn("a", "")
	for b.Loop() {
		_ = p.Begin(b.Context())
		p.Rest()
	}
}

// BenchmarkAmongMany measures turns that go round among a thousand.
func BenchmarkAmongMany(b *testing.B) {
	turns := New(Options{Length: time.Nanosecond})
	var all sync.WaitGroup
	const many = 1000
	for n := range many {
		p := turns.Turn(fmt.Sprint(n%10), fmt.Sprint(n%100))
		all.Go(func() {
			for range max(1, b.N/many) {
				if err := p.Begin(context.Background()); err != nil {
					b.Error(err)
				}
			}
			p.End()
		})
	}
	all.Wait()
}

func isFull(err error) bool {
	var full *FullError
	return errors.As(err, &full) && full.Waiting >= full.Max && full.Max > 0
}
