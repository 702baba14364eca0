package fair

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Processors share the processors of the machine among services that compute in sandboxes. Go's
// scheduler cannot interrupt a guest within a slice. If guests that compute took all processors,
// everybody else (guests that do little, the journal, the gateway) would wait a slice for each of
// their steps. So one processor is always left to those: a service that has used much of late takes
// turns, no more than a number of slots at a time; a service that has not takes none.
//
// A turn is an amount of processor time. An instance that holds one may leave the guest and enter it
// again, so a service with many short calls gets as much as one with few long ones. A free turn goes
// to the waiting service that has used the least of late: one that seldom computes does not wait for
// all that always do. Among equals, and within a service among its instances, turns go in the order
// in which they came.
//
// Their methods are safe for concurrent use. They hold nothing that has to be closed.
type Processors struct {
	slots int
	now   func() int64

	mu      sync.Mutex
	holders []*Place   // at most slots
	queue   []*Account // that have somebody waiting, in order
	waiting atomic.Int64
	crowd   bucket      // what was used without turns
	timer   *time.Timer // for turns that are held and not used; nil before it is needed
	armed   bool
}

// What a service may use without a turn: one part in lightShare of a processor at all
// times, and burst beyond. debt is the most that is held against it, so that what it
// did is forgotten in time.
//
// All that services use without turns is bounded too, or a hundred of them that each
// stay below their share would take all processors: beyond half a processor, only those
// that use next to nothing do without turns, one part in littleShare; and if even these
// are too many, nobody does.
//
// Bursts and debts are in nanoseconds of the time in which they are forgotten.
const (
	lightShare  = 7
	burst       = 10_000_000
	debt        = 10 * burst
	littleShare = 70
	littleBurst = 10_000_000
	littleDebt  = 10 * littleBurst
	crowdShare  = 2
	crowdBurst  = 10_000_000
	crowdDebt   = 10 * crowdBurst
	throng      = 3 * crowdBurst
)

// turnTime is how much of a processor a turn is, in nanoseconds.
const turnTime = 1_400_000

// idleTurn is how long a turn may be held between two calls while others wait.
const idleTurn = 100 * time.Microsecond

// NewProcessors makes slots, of which there is at least one, for services that take turns.
func NewProcessors(slots int) *Processors {
	return &Processors{slots: max(1, slots), now: Now}
}

// Slots is how many turns there are at a time.
func (g *Processors) Slots() int { return g.slots }

// Account is what one service has used of late, with all its instances. It is safe for concurrent
// use.
type Account struct {
	gate    *Processors
	served  atomic.Int64 // ns of processor time, ever
	used    bucket
	little  bucket   // the same, forgotten more slowly
	waiters []*Place // guarded by gate.mu
	rank    int64    // of the service in the queue: what used was when it came; guarded by gate.mu
}

// NewAccount makes the account of a service that has used nothing.
func NewAccount(g *Processors) *Account { return &Account{gate: g} }

// bucket leaks all the time: it holds the instant at which it will be empty.
type bucket struct{ empty atomic.Int64 }

// add fills the bucket, but not beyond what takes most to leak out.
func (b *bucket) add(n, most, now int64) {
	for {
		old := b.empty.Load()
		next := min(max(old, now)+n, now+most)
		if b.empty.CompareAndSwap(old, next) {
			return
		}
	}
}

// level is how long the bucket takes to leak out.
func (b *bucket) level(now int64) int64 { return b.empty.Load() - now }

// Heavy reports whether the service has to take turns.
func (a *Account) Heavy(now int64) bool {
	if a.used.level(now) > burst {
		return true
	}
	crowd := a.gate.crowd.level(now)
	return crowd > crowdBurst && (crowd > throng || a.little.level(now) > littleBurst)
}

// Burn notes work of so many nanoseconds of a processor, by an instance that held a turn or did not.
func (a *Account) Burn(work, now int64, inTurn bool) {
	a.served.Add(work)
	a.used.add(work*lightShare, debt, now)
	a.little.add(work*littleShare, littleDebt, now)
	if !inTurn {
		a.gate.crowd.add(work*crowdShare, crowdDebt, now)
	}
}

// Served is the processor time, in nanoseconds, that the account was ever told of.
func (a *Account) Served() int64 { return a.served.Load() }

// The states of a turn; any other says since when it has been idle: held between two
// calls, so that whoever waits may take it.
const (
	turnNone int64 = math.MinInt64     // not held
	turnUsed int64 = math.MinInt64 + 1 // held by a call that runs
)

// Place is where one instance takes its turns. One goroutine at a time uses it, which runs the
// instance; its state is also changed by others, from idle to none.
type Place struct {
	account *Account
	state   atomic.Int64
	credit  int64 // ns left of the turn
	granted chan struct{}
}

// NewPlace makes a place of an instance of the account's service. It holds no turn.
func NewPlace(a *Account) *Place {
	t := &Place{account: a, granted: make(chan struct{}, 1)}
	t.state.Store(turnNone)
	return t
}

// Held reports whether the instance has a turn and uses it.
func (t *Place) Held() bool { return t.state.Load() == turnUsed }

// Spend takes work of so many nanoseconds off the turn, if it is held.
func (t *Place) Spend(work int64) { t.credit -= work }

// idle reports whether the turn is held and not used, and since when.
func (t *Place) idle() (since int64, ok bool) {
	since = t.state.Load()
	return since, since > turnUsed
}

// Resume takes an idle turn up again.
func (t *Place) Resume() bool {
	since, ok := t.idle()
	return ok && t.state.CompareAndSwap(since, turnUsed)
}

// Pause leaves the turn idle at the end of a call, or gives it up if it is used up.
func (t *Place) Pause(now int64) {
	if !t.Held() {
		return
	}
	g := t.account.gate
	if t.credit <= 0 {
		t.Release()
		return
	}
	t.state.Store(now)
	if g.waiting.Load() > 0 {
		g.mu.Lock()
		g.watch()
		g.mu.Unlock()
	}
}

// Renew reports whether the turn can go on within a call: it has credit left, or
// nobody else wants it. A service that uses little does not wait for the credit of one
// that uses much.
func (t *Place) Renew(now int64) bool {
	if !t.Held() {
		return false
	}
	g := t.account.gate
	switch wanted := g.waiting.Load() > 0; {
	case wanted && (t.credit <= 0 || g.overtakes(t.account, now)):
		t.Release()
		return false
	case t.credit <= 0:
		t.credit = turnTime
	}
	return true
}

// overtakes reports whether a service waits that has used little while this one has
// used much.
func (g *Processors) overtakes(holder *Account, now int64) bool {
	if holder.used.level(now) <= burst {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.queue, func(a *Account) bool { return a.used.level(now) <= burst })
}

// Release gives the turn up. Without one it does nothing.
func (t *Place) Release() {
	g := t.account.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(t)
	t.state.Store(turnNone)
	g.grant()
}

// ErrPatience is why a wait ended whose patience was over.
var ErrPatience = errors.New("no turn came")

// Waiter is who waits for a turn, and for how long.
type Waiter struct {
	Context context.Context
	Gone    <-chan struct{} // closed when nobody wants the work any more; may be nil
	Until   time.Time       // the work's deadline; zero is none
	// Patience bounds the wait, unless Patient is set.
	Patience time.Duration
	Patient  bool
}

// Wait waits for a turn. It fails with the context's error, with context.Canceled if w.Gone was
// closed, with context.DeadlineExceeded at w.Until, and with [ErrPatience].
func (t *Place) Wait(w *Waiter) error {
	g := t.account.gate
	g.mu.Lock()
	if len(g.queue) == 0 && g.room() {
		g.take(t)
		g.mu.Unlock()
		return nil
	}
	if len(t.account.waiters) == 0 {
		g.enqueue(t.account)
	}
	t.account.waiters = append(t.account.waiters, t)
	g.waiting.Add(1)
	g.watch()
	g.mu.Unlock()

	var limit, deadline <-chan time.Time
	if !w.Patient {
		d := time.NewTimer(w.Patience)
		defer d.Stop()
		limit = d.C
	}
	if !w.Until.IsZero() {
		d := time.NewTimer(time.Until(w.Until))
		defer d.Stop()
		deadline = d.C
	}
	var err error
	select {
	case <-t.granted:
		return nil
	case <-w.Context.Done():
		err = w.Context.Err()
	case <-w.Gone:
		err = context.Canceled
	case <-deadline:
		err = context.DeadlineExceeded
	case <-limit:
		err = ErrPatience
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.forget(t) {
		return err
	}
	// It was granted meanwhile.
	<-t.granted
	g.remove(t)
	t.state.Store(turnNone)
	g.grant()
	return err
}

// room reports whether there is a slot, or makes one of a turn that is not used.
// The caller holds mu, as for all below.
func (g *Processors) room() bool {
	if len(g.holders) < g.slots {
		return true
	}
	g.reclaim()
	return len(g.holders) < g.slots
}

// reclaim takes turns away that have not been used for a while.
func (g *Processors) reclaim() {
	now := g.now()
	g.holders = slices.DeleteFunc(g.holders, func(h *Place) bool {
		since, ok := h.idle()
		return ok && now-since >= int64(idleTurn) && h.state.CompareAndSwap(since, turnNone)
	})
}

func (g *Processors) take(t *Place) {
	t.credit = turnTime
	t.state.Store(turnUsed)
	g.holders = append(g.holders, t)
}

func (g *Processors) remove(t *Place) {
	if k := slices.Index(g.holders, t); k >= 0 {
		g.holders = slices.Delete(g.holders, k, k+1)
	}
}

// grant gives free slots to those that wait.
func (g *Processors) grant() {
	for len(g.queue) > 0 && len(g.holders) < g.slots {
		k := g.next()
		a := g.queue[k]
		t := a.waiters[0]
		g.queue = slices.Delete(g.queue, k, k+1)
		a.waiters = slices.Delete(a.waiters, 0, 1)
		if len(a.waiters) > 0 {
			g.enqueue(a)
		}
		g.waiting.Add(-1)
		g.take(t)
		t.granted <- struct{}{}
	}
}

// enqueue has a service wait. Its rank is what it has used by now: all that use much come
// to the same in the end, as debts are bounded, and so those that came earlier go first.
// Were it what it has used when a turn is free, one for which work is done elsewhere
// meanwhile could wait for ever.
func (g *Processors) enqueue(a *Account) {
	a.rank = a.used.empty.Load()
	g.queue = append(g.queue, a)
}

// next is the place in the queue of the service that had used the least.
func (g *Processors) next() int {
	least := 0
	for k, a := range g.queue {
		if a.rank < g.queue[least].rank {
			least = k
		}
	}
	return least
}

// forget takes a turn out of the queue; false if it is not there.
func (g *Processors) forget(t *Place) bool {
	a := t.account
	k := slices.Index(a.waiters, t)
	if k < 0 {
		return false
	}
	a.waiters = slices.Delete(a.waiters, k, k+1)
	if len(a.waiters) == 0 {
		g.queue = slices.DeleteFunc(g.queue, func(x *Account) bool { return x == a })
	}
	g.waiting.Add(-1)
	return true
}

// watch has the timer look after turns that are held and not used.
func (g *Processors) watch() {
	if g.armed || len(g.queue) == 0 {
		return
	}
	for _, h := range g.holders {
		if _, ok := h.idle(); ok {
			g.armed = true
			if g.timer == nil {
				g.timer = time.AfterFunc(idleTurn, g.sweep)
			} else {
				g.timer.Reset(idleTurn)
			}
			return
		}
	}
}

// sweep runs when the timer does.
func (g *Processors) sweep() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = false
	if len(g.queue) > 0 {
		g.reclaim()
		g.grant()
		g.watch()
	}
}
