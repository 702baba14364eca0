package fair

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// patient waits for hours.
func patient(ctx context.Context) *Waiter { return &Waiter{Context: ctx, Patience: 10 * time.Hour} }

func mustWait(t *testing.T, turns ...*Place) {
	t.Helper()
	for _, turn := range turns {
		if err := turn.Wait(patient(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

func TestServicesThatUseLittleTakeNoTurns(t *testing.T) {
	a := NewAccount(NewProcessors(1))
	now := int64(1_000_000_000)
	for range 1000 { // at exactly the free rate
		if a.Heavy(now) {
			t.Fatal("a service within the light rate is heavy")
		}
		now += 1000 * lightShare
		a.Burn(1000, now, false)
	}
	a = NewAccount(NewProcessors(1))
	a.Burn(burst/lightShare, now, true)
	if a.Heavy(now) {
		t.Error("heavy after one burst")
	}
	a.Burn(1000, now, true)
	if !a.Heavy(now) {
		t.Error("not heavy after more than a burst")
	}
	a.Burn(1000*burst, now, true)
	if later := now + debt - burst; a.Heavy(later) || !a.Heavy(later-1) {
		t.Error("what was used is not forgotten in time, or too soon")
	}
}

// Many services that each stay below the free use do not use all processors together: above half a processor
// they take turns, except those that do next to nothing.
func TestWhatManyServicesUseWithoutTurnsIsBounded(t *testing.T) {
	g := NewProcessors(1)
	services := make([]*Account, 50)
	for k := range services {
		services[k] = NewAccount(g)
	}
	quiet := NewAccount(g)
	now, free := int64(1_000_000_000), int64(0)
	const step, work = 1_000_000, 100_000 // each wants a tenth of a processor: five in all
	start := now
	for range 1000 {
		now += step
		for _, a := range services {
			if !a.Heavy(now) {
				a.Burn(work, now, false)
				free += work
			}
		}
		quiet.Burn(1000, now, false) // a thousandth
		if quiet.Heavy(now) && g.crowd.level(now) <= throng {
			t.Fatal("a service that does next to nothing has to take turns")
		}
	}
	maximum := (now-start)/crowdShare + throng/crowdShare + int64(len(services))*work // each looks before it works
	if free > maximum {
		t.Errorf("services used %d ms of a processor without turns in a second; at most %d are free", free/1e6,
			maximum/1e6)
	}
}

// A free turn goes to the service with the least use.
func TestTheServiceThatUsedLeastGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewProcessors(1)
		holder := NewPlace(NewAccount(g))
		mustWait(t, holder)
		order := make(chan string, 10)
		var all sync.WaitGroup
		for _, s := range []struct {
			name string
			work int64
		}{{"much", 3 * turnTime}, {"little", turnTime}, {"more", 2 * turnTime}} {
			a := NewAccount(g)
			a.Burn(s.work, 1, true)
			all.Go(func() {
				turn := NewPlace(a)
				mustWait(t, turn)
				order <- s.name
				turn.Release()
			})
			synctest.Wait() // it waits now
		}
		holder.Release()
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

// However many instances compute, no more than slots do so at once. All finish, even if callers go away while
// they wait.
func TestTurnsAreBounded(t *testing.T) {
	for _, slots := range []int{1, 3} {
		g := NewProcessors(slots)
		var running, peak atomic.Int64
		var all sync.WaitGroup
		for s := range 5 {
			a := NewAccount(g)
			for k := range 4 {
				all.Go(func() {
					turn := NewPlace(a)
					defer turn.Release()
					for n := range 200 {
						ctx, cancel := context.WithCancel(t.Context())
						if s == 0 && n%3 == 0 {
							go cancel()
						}
						if !turn.Resume() {
							if err := turn.Wait(patient(ctx)); err != nil {
								if !errors.Is(err, context.Canceled) || s > 0 {
									t.Error(err)
								}
								cancel()
								continue
							}
						}
						now := running.Add(1)
						for old := peak.Load(); now > old && !peak.CompareAndSwap(old, now); old = peak.Load() {
						}
						running.Add(-1)
						turn.credit -= turnTime / int64(1+(n+k)%4)
						if turn.Renew(Now()) {
							turn.Pause(Now())
						}
						cancel()
					}
				})
			}
		}
		all.Wait()
		if peak.Load() > int64(slots) {
			t.Errorf("%d ran at once; there are %d slots", peak.Load(), slots)
		}
		if len(g.holders) != 0 || len(g.queue) != 0 || g.waiting.Load() != 0 {
			t.Errorf("left: %d holders, %d in the queue, %d waiting", len(g.holders), len(g.queue), g.waiting.Load())
		}
	}
}

// queuedPlaces are waiting places, and the order in which they got their turns.
type queuedPlaces struct {
	t     *testing.T
	order chan string
	all   sync.WaitGroup
}

func newQueued(t *testing.T) *queuedPlaces { return &queuedPlaces{t: t, order: make(chan string, 10)} }

// add makes an account wait for a turn, and returns when it does.
func (w *queuedPlaces) add(name string, a *Account) {
	w.all.Go(func() {
		turn := NewPlace(a)
		mustWait(w.t, turn)
		w.order <- name
		turn.Release()
	})
	synctest.Wait()
}

// Turns go round among services, however many instances one has.
func TestTurnsGoRoundAmongServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewProcessors(1)
		busy, other := NewAccount(g), NewAccount(g)
		holder := NewPlace(busy)
		mustWait(t, holder)
		waiters := newQueued(t)
		for range 3 {
			waiters.add("busy", busy)
		}
		waiters.add("other", other)
		holder.Release()
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

// A turn lasts over several calls while there is credit. It is taken away when it is held and not used, but
// not when it is used.
func TestTurnsBetweenCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAccount(NewProcessors(1))
		first, second := NewPlace(a), NewPlace(a)
		mustWait(t, first)
		first.credit -= turnTime / 2
		first.Pause(Now())
		if !first.Resume() {
			t.Fatal("a turn with credit left cannot be taken up again")
		}
		got := make(chan struct{})
		go func() {
			mustWait(t, second)
			close(got)
		}()
		time.Sleep(time.Hour) // the bubble's clock: all timers fire
		select {
		case <-got:
			t.Fatal("a turn in use was taken away")
		default:
		}
		first.Pause(Now())
		<-got
		if first.Resume() || first.Held() || !second.Held() {
			t.Error("an unused turn was not taken away")
		}
		second.credit = 0
		if !second.Renew(1) || second.credit != turnTime {
			t.Error("nobody waits, and the turn is not renewed")
		}
		second.Release()
	})
}

func TestWaitingForATurnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAccount(NewProcessors(1))
		holder, waiter := NewPlace(a), NewPlace(a)
		mustWait(t, holder)
		gone := make(chan struct{})
		close(gone)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for name, c := range map[string]struct {
			m    Waiter
			want error
		}{
			"patience": {Waiter{Context: t.Context(), Patience: 10 * time.Second}, ErrPatience},
			"context":  {Waiter{Context: ended, Patience: time.Hour}, context.Canceled},
			"caller":   {Waiter{Context: t.Context(), Gone: gone, Patience: time.Hour}, context.Canceled},
			"deadline": {Waiter{Context: t.Context(), Until: time.Now().Add(time.Minute), Patience: time.Hour},
				context.DeadlineExceeded},
		} {
			if err := waiter.Wait(&c.m); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if a.gate.waiting.Load() != 0 || len(a.waiters) != 0 {
			t.Error("who gave up still waits")
		}
		// A start waits as long as its caller does.
		patient, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		start := Waiter{Context: patient, Patience: time.Second, Patient: true}
		began := time.Now()
		if err := waiter.Wait(&start); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Hour {
			t.Errorf("a start: %v after %v", err, time.Since(began))
		}
		holder.Release()
	})
}

// A service that uses little takes the turn of one that uses much before its credit is used up. Another that
// uses much waits for that.
func TestALightServiceDoesNotWaitForCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewProcessors(1)
		g.now = func() int64 { return 1 }
		heavy := func() *Account {
			a := NewAccount(g)
			a.Burn(burst, 1, true)
			return a
		}
		holder := NewPlace(heavy())
		mustWait(t, holder)
		var waiting sync.WaitGroup
		got := make(chan string, 2)
		wait := func(name string, a *Account) {
			waiting.Go(func() {
				turn := NewPlace(a)
				mustWait(t, turn)
				got <- name
				turn.Release()
			})
			synctest.Wait()
		}
		wait("heavy", heavy())
		if !holder.Renew(1) {
			t.Error("a turn with credit left went to a service that uses as much")
		}
		wait("light", NewAccount(g))
		if holder.Renew(1) {
			t.Error("a service that uses little waits for the credit of one that uses much")
		}
		waiting.Wait()
		if first := <-got; first != "light" {
			t.Errorf("the turn went to the %s service first", first)
		}
	})
}

// A service for which work is done elsewhere while it waits is not passed over forever.
func TestWaitingServicesKeepTheirRank(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewProcessors(1)
		holder := NewPlace(NewAccount(g))
		mustWait(t, holder)
		waiters := newQueued(t)
		first, second := NewAccount(g), NewAccount(g)
		first.Burn(turnTime, 1, true)
		waiters.add("first", first)
		first.Burn(10*turnTime, 1, true) // elsewhere
		second.Burn(2*turnTime, 1, true)
		waiters.add("second", second)
		holder.Release()
		waiters.all.Wait()
		if name := <-waiters.order; name != "first" {
			t.Errorf("the turn went to the %s", name)
		}
	})
}
