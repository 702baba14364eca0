package sandbox

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// patient is the meter of a call that waits as long as it takes.
func patient(ctx context.Context) *meter {
	return &meter{ctx: ctx, budget: budget{fuel: 1, time: time.Hour}}
}

func mustWait(t *testing.T, turns ...*turn) {
	t.Helper()
	for _, turn := range turns {
		if err := turn.wait(patient(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

func TestServicesThatUseLittleTakeNoTurns(t *testing.T) {
	a := &account{gate: newGate(1)}
	now := int64(1_000_000_000)
	for range 1000 { // at just the rate that is free
		if a.heavy(now) {
			t.Fatal("a service within the light rate is heavy")
		}
		now += 1000 * lightShare
		a.burn(1000, now, false)
	}
	a = &account{gate: newGate(1)}
	a.burn(burst/lightShare, now, true)
	if a.heavy(now) {
		t.Error("heavy after one burst")
	}
	a.burn(1000, now, true)
	if !a.heavy(now) {
		t.Error("not heavy after more than a burst")
	}
	a.burn(1000*burst, now, true)
	if later := now + debt - burst; a.heavy(later) || !a.heavy(later-1) {
		t.Error("what was used is not forgotten in time, or too soon")
	}
}

// Many services that each stay below what is free do not use all processors
// together: beyond half a processor they take turns, but for those that do next to
// nothing.
func TestWhatManyServicesUseWithoutTurnsIsBounded(t *testing.T) {
	g := newGate(1)
	services := make([]*account, 50)
	for k := range services {
		services[k] = &account{gate: g}
	}
	quiet := &account{gate: g}
	now, free := int64(1_000_000_000), int64(0)
	const step, work = 1_000_000, 100_000 // each wants a tenth of a processor: five in all
	start := now
	for range 1000 {
		now += step
		for _, a := range services {
			if !a.heavy(now) {
				a.burn(work, now, false)
				free += work
			}
		}
		quiet.burn(1000, now, false) // a thousandth
		if quiet.heavy(now) && g.crowd.level(now) <= throng {
			t.Fatal("a service that does next to nothing has to take turns")
		}
	}
	most := (now-start)/crowdShare + throng/crowdShare + int64(len(services))*work // each looks before it works
	if free > most {
		t.Errorf("services used %d ms of a processor without turns in a second; at most %d are free", free/1e6, most/1e6)
	}
}

// A free turn goes to the service that has used the least.
func TestTheServiceThatUsedLeastGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		holder := newTurn(&account{gate: g})
		mustWait(t, holder)
		order := make(chan string, 10)
		var all sync.WaitGroup
		for _, s := range []struct {
			name string
			work int64
		}{{"much", 3 * turnTime}, {"little", turnTime}, {"more", 2 * turnTime}} {
			a := &account{gate: g}
			a.burn(s.work, 1, true)
			all.Go(func() {
				turn := newTurn(a)
				mustWait(t, turn)
				order <- s.name
				turn.release()
			})
			synctest.Wait() // it waits now
		}
		holder.release()
		all.Wait()
		close(order)
		got := ""
		for name := range order {
			got += name + " "
		}
		if got != "little more much " {
			t.Errorf("turns went to %s", got)
		}
	})
}

// However many instances compute, no more than slots do so at once; all get
// through, also when callers go away while they wait.
func TestTurnsAreBounded(t *testing.T) {
	for _, slots := range []int{1, 3} {
		g := newGate(slots)
		var running, most atomic.Int64
		var all sync.WaitGroup
		for s := range 5 {
			a := &account{gate: g}
			for k := range 4 {
				all.Go(func() {
					turn := newTurn(a)
					defer turn.release()
					for n := range 200 {
						ctx, cancel := context.WithCancel(t.Context())
						if s == 0 && n%3 == 0 {
							go cancel()
						}
						if !turn.resume() {
							if err := turn.wait(patient(ctx)); err != nil {
								if !errors.Is(err, context.Canceled) || s > 0 {
									t.Error(err)
								}
								cancel()
								continue
							}
						}
						now := running.Add(1)
						for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
						}
						running.Add(-1)
						turn.credit -= turnTime / int64(1+(n+k)%4)
						if turn.renew(clock()) {
							turn.pause(clock())
						}
						cancel()
					}
				})
			}
		}
		all.Wait()
		if most.Load() > int64(slots) {
			t.Errorf("%d ran at once; there are %d slots", most.Load(), slots)
		}
		if len(g.holders) != 0 || len(g.queue) != 0 || g.waiting.Load() != 0 {
			t.Errorf("left: %d holders, %d in the queue, %d waiting", len(g.holders), len(g.queue), g.waiting.Load())
		}
	}
}

// waiters are turns that wait, and the order in which they were given.
type waiters struct {
	t     *testing.T
	order chan string
	all   sync.WaitGroup
}

func newWaiters(t *testing.T) *waiters { return &waiters{t: t, order: make(chan string, 10)} }

// add has an account wait for a turn, and returns when it does.
func (w *waiters) add(name string, a *account) {
	w.all.Go(func() {
		turn := newTurn(a)
		mustWait(w.t, turn)
		w.order <- name
		turn.release()
	})
	synctest.Wait()
}

// Turns go round among services, however many instances one has.
func TestTurnsGoRoundAmongServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		busy, other := &account{gate: g}, &account{gate: g}
		holder := newTurn(busy)
		mustWait(t, holder)
		waiters := newWaiters(t)
		for range 3 {
			waiters.add("busy", busy)
		}
		waiters.add("other", other)
		holder.release()
		waiters.all.Wait()
		close(waiters.order)
		got := ""
		for name := range waiters.order {
			got += name + " "
		}
		if got != "busy other busy busy " {
			t.Errorf("turns went to %s", got)
		}
	})
}

// A turn lasts over several calls as long as there is credit; held and not used it
// is taken away, used it is not.
func TestTurnsBetweenCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{gate: newGate(1)}
		first, second := newTurn(a), newTurn(a)
		mustWait(t, first)
		first.credit -= turnTime / 2
		first.pause(clock())
		if !first.resume() {
			t.Fatal("a turn with credit left cannot be taken up again")
		}
		got := make(chan struct{})
		go func() {
			mustWait(t, second)
			close(got)
		}()
		time.Sleep(time.Hour) // the bubble's: all timers fire
		select {
		case <-got:
			t.Fatal("a turn in use was taken away")
		default:
		}
		first.pause(clock())
		<-got
		if first.resume() || first.held() || !second.held() {
			t.Error("an unused turn was not taken away")
		}
		second.credit = 0
		if !second.renew(1) || second.credit != turnTime {
			t.Error("nobody waits, and the turn is not renewed")
		}
		second.release()
	})
}

func TestWaitingForATurnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{gate: newGate(1)}
		holder, waiter := newTurn(a), newTurn(a)
		mustWait(t, holder)
		gone := make(chan struct{})
		close(gone)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for name, c := range map[string]struct {
			m    meter
			want error
		}{
			"patience": {meter{ctx: t.Context(), budget: budget{time: time.Second}}, errNoTurn},
			"context":  {meter{ctx: ended, budget: budget{time: time.Hour}}, context.Canceled},
			"caller":   {meter{ctx: t.Context(), gone: gone, budget: budget{time: time.Hour}}, context.Canceled},
			"deadline": {meter{ctx: t.Context(), until: time.Now().Add(time.Minute), budget: budget{time: time.Hour}}, context.DeadlineExceeded},
		} {
			if err := waiter.wait(&c.m); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if a.gate.waiting.Load() != 0 || len(a.waiters) != 0 {
			t.Error("who gave up still waits")
		}
		i := Instance{account: a, turn: waiter}
		i.meter = meter{ctx: t.Context(), budget: budget{time: time.Second}}
		if _, trap := i.takeTurn(clock()); trap == nil || trap.kind != service.KindOverloaded {
			t.Errorf("%v", trap)
		}
		// A start waits as long as its caller does.
		patient, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		start := meter{ctx: patient, budget: budget{time: time.Second, patient: true}}
		began := time.Now()
		if err := waiter.wait(&start); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Hour {
			t.Errorf("a start: %v after %v", err, time.Since(began))
		}
		holder.release()
	})
}

// A service that uses little takes the turn of one that uses much before its credit is
// used up; one that uses much, too, waits for that.
func TestALightServiceDoesNotWaitForCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		g.now = func() int64 { return 1 }
		heavy := func() *account {
			a := &account{gate: g}
			a.burn(burst, 1, true)
			return a
		}
		holder := newTurn(heavy())
		mustWait(t, holder)
		var waiting sync.WaitGroup
		got := make(chan string, 2)
		wait := func(name string, a *account) {
			waiting.Go(func() {
				turn := newTurn(a)
				mustWait(t, turn)
				got <- name
				turn.release()
			})
			synctest.Wait()
		}
		wait("heavy", heavy())
		if !holder.renew(1) {
			t.Error("a turn with credit left went to a service that uses as much")
		}
		wait("light", &account{gate: g})
		if holder.renew(1) {
			t.Error("a service that uses little waits for the credit of one that uses much")
		}
		waiting.Wait()
		if first := <-got; first != "light" {
			t.Errorf("the turn went to the %s service first", first)
		}
	})
}

// An instance that is reset in a turn and waits for the image that another one makes does
// not keep the turn that the other one needs, and has one again when it goes on.
func TestWhoWaitsForAnImageHoldsNoTurn(t *testing.T) {
	r := newRuntime(t, Options{CacheDir: codeDir()})
	r.gate = newGate(1)
	p, err := r.Compile(t.Context(), "", testguest.Counter("c"), quick, service.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	i, err := p.Instantiate(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, patient := range []bool{true, false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		p.mu.Lock()
		if p.image != nil {
			p.image.close()
			p.image = nil // as if it could not be made
		}
		p.mu.Unlock()
		p.account.used.empty.Store(clock() + int64(time.Hour)) // it has used a lot
		if err := i.takeTurnToReset(ctx); err != nil || !i.turn.held() {
			t.Fatalf("no turn: %v", err)
		}
		i.end(ctx)
		p.making <- struct{}{} // the other one, which needs a turn to go on
		started := make(chan error, 1)
		go func() { started <- i.start(ctx) }()
		other := newTurn(p.account)
		mustWait(t, other)
		if !patient {
			cancel()
			if err := <-started; service.KindOf(err) != service.KindCanceled {
				t.Errorf("whose caller has gone: %v", err)
			}
		}
		other.release()
		<-p.making
		if patient {
			if err := <-started; err != nil || p.image == nil {
				t.Errorf("image %v, %v", p.image, err)
			}
			if since, idle := i.turn.idle(); !i.turn.held() && !idle {
				t.Errorf("the turn is in state %d", since)
			}
			if _, err := i.Handle(t.Context(), add); err != nil {
				t.Error(err)
			}
		}
		cancel()
	}
}

// A service for which work is done elsewhere while it waits is not passed by for ever.
func TestWaitingServicesKeepTheirRank(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		holder := newTurn(&account{gate: g})
		mustWait(t, holder)
		waiters := newWaiters(t)
		first, second := &account{gate: g}, &account{gate: g}
		first.burn(turnTime, 1, true)
		waiters.add("first", first)
		first.burn(10*turnTime, 1, true) // elsewhere
		second.burn(2*turnTime, 1, true)
		waiters.add("second", second)
		holder.release()
		waiters.all.Wait()
		if name := <-waiters.order; name != "first" {
			t.Errorf("the turn went to the %s", name)
		}
	})
}
