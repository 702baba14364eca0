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

// Processors share the processors of the machine among services that compute in sandboxes. Go's scheduler
// cannot interrupt a guest within a slice. If guests that compute took all processors, all other work (guests
// that do little, the journal, the gateway) would wait a slice for each of its steps. So one processor is
// always left for that: a service with much recent use takes turns, and the number of concurrent turns is
// fixed. Other services take none.
//
// A turn is an amount of processor time. An instance that holds one may leave the guest and enter it again,
// so a service with many short calls gets as much as one with few long ones. A free turn goes to the waiting
// service with the least recent use: one that seldom computes does not wait for those that always do. Among
// equals, and among the instances of a service, turns go in the order of arrival.
//
// The methods are safe for concurrent use. Processors need not be closed.
type Processors struct {
	slots int
	now   func() int64

	mu      sync.Mutex
	holders []*Place   // at most slots
	queue   []*Account // those with waiting places, in order
	waiting atomic.Int64
	crowd   bucket      // use without turns
	timer   *time.Timer // for turns that are held and not used; nil before its first use
	armed   bool
}

// What a service may use without a turn: one part in lightShare of a processor at all times, plus burst. debt
// is the maximum that counts against it, so that its use is forgotten in time.
//
// The use of all services without turns is bounded, too. Otherwise a hundred services, each below its share,
// would take all processors. Above half a processor, only services that use next to nothing, one part in
// littleShare, need no turns; and if even these are too many, all need turns.
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

// backgroundWait is about how long work in the background waits for a turn that services want, in nanoseconds. It
// waits longer, by debt at most, if these use little.
const backgroundWait = 20_000_000

// turnTime is the processor time of a turn, in nanoseconds.
const turnTime = 1_400_000

// idleTurn is how long a turn may be held between two calls while others wait.
const idleTurn = 100 * time.Microsecond

// NewProcessors makes slots for services that take turns, at least one.
func NewProcessors(slots int) *Processors {
	return &Processors{slots: max(1, slots), now: Now}
}

// Slots is the number of concurrent turns.
func (g *Processors) Slots() int { return g.slots }

// Account is the recent use of one service, with all its instances. It is safe for concurrent use.
type Account struct {
	gate    *Processors
	served  atomic.Int64 // processor time since the beginning, in ns
	used    bucket
	little  bucket   // the same, but forgotten more slowly
	waiters []*Place // guarded by gate.mu
	rank    int64    // of the service in the queue: its use when it arrived; guarded by gate.mu

	background bool
}

// NewAccount makes the account of a service without any use.
func NewAccount(g *Processors) *Account { return &Account{gate: g} }

// NewBackground makes an account for work that nobody waits for. It takes a turn for all that it does, gets
// one only if no service waits for one, and gives it up as soon as one does. If services want all turns for
// backgroundWait, it gets one as a service does. So its work comes to an end on a host that is always busy,
// and takes a few percent of one processor there.
func NewBackground(g *Processors) *Account { return &Account{gate: g, background: true} }

// Background reports whether the account was made by [NewBackground].
func (a *Account) Background() bool { return a.background }

// bucket leaks at a constant rate: it holds the instant at which it will be empty.
type bucket struct{ empty atomic.Int64 }

// add fills the bucket up to maximum, in time to leak.
func (b *bucket) add(n, maximum, now int64) {
	for {
		old := b.empty.Load()
		next := min(max(old, now)+n, now+maximum)
		if b.empty.CompareAndSwap(old, next) {
			return
		}
	}
}

// level is the time until the bucket is empty.
func (b *bucket) level(now int64) int64 { return b.empty.Load() - now }

// Heavy reports whether the service must take turns.
func (a *Account) Heavy(now int64) bool {
	if a.background || a.used.level(now) > burst {
		return true
	}
	crowd := a.gate.crowd.level(now)
	return crowd > crowdBurst && (crowd > throng || a.little.level(now) > littleBurst)
}

// Burn records work in nanoseconds of processor time, by an instance with or without a turn.
func (a *Account) Burn(work, now int64, inTurn bool) {
	a.served.Add(work)
	a.used.add(work*lightShare, debt, now)
	a.little.add(work*littleShare, littleDebt, now)
	if !inTurn {
		a.gate.crowd.add(work*crowdShare, crowdDebt, now)
	}
}

// Served is the total processor time that was recorded, in nanoseconds.
func (a *Account) Served() int64 { return a.served.Load() }

// The states of a turn. Any other value is the time since which the turn has been idle: held between two
// calls, so that others may take it.
const (
	turnNone int64 = math.MinInt64     // not held
	turnUsed int64 = math.MinInt64 + 1 // held by a call that runs
)

// Place is where one instance takes its turns. Only the goroutine that runs the instance uses it; others may
// change its state from idle to none.
type Place struct {
	account *Account
	state   atomic.Int64
	credit  int64 // ns left of the turn
	owed    bool  // a turn in the background that others wanted: it is kept as others keep theirs; see [NewBackground]
	granted chan struct{}
}

// NewPlace makes a place for an instance of the account's service. It holds no turn.
func NewPlace(a *Account) *Place {
	t := &Place{account: a, granted: make(chan struct{}, 1)}
	t.state.Store(turnNone)
	return t
}

// Held reports whether the instance has a turn and uses it.
func (t *Place) Held() bool { return t.state.Load() == turnUsed }

// Spend takes nanoseconds of work off the turn, if it is held.
func (t *Place) Spend(work int64) { t.credit -= work }

// idle reports whether the turn is held and not used, and since when.
func (t *Place) idle() (since int64, ok bool) {
	since = t.state.Load()
	return since, since > turnUsed
}

// Resume continues an idle turn.
func (t *Place) Resume() bool {
	since, ok := t.idle()
	return ok && t.state.CompareAndSwap(since, turnUsed)
}

// Pause makes the turn idle at the end of a call, or gives it up if it is used up.
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

// Renew reports whether the turn can continue within a call: it has credit left, or no one else wants it. A
// service that uses little does not wait for the credit of one that uses much.
func (t *Place) Renew(now int64) bool {
	if !t.Held() {
		return false
	}
	g := t.account.gate
	switch wanted := g.waiting.Load() > 0; {
	case wanted && (t.credit <= 0 || t.account.background && !t.owed || g.overtakes(t.account, now)):
		t.Release()
		return false
	case t.credit <= 0:
		t.credit = turnTime
	}
	return true
}

// overtakes reports whether a service with little use waits while this one has used much.
func (g *Processors) overtakes(holder *Account, now int64) bool {
	if holder.used.level(now) <= burst {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.queue, func(a *Account) bool { return !a.background && a.used.level(now) <= burst })
}

// Release gives the turn up, if there is one.
func (t *Place) Release() {
	g := t.account.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(t)
	t.state.Store(turnNone)
	g.grant()
}

// ErrPatience says that no turn came within the patience.
var ErrPatience = errors.New("no turn came")

// Waiter describes a wait for a turn.
type Waiter struct {
	Context context.Context
	Gone    <-chan struct{} // closed when the work is no longer needed; may be nil
	Until   time.Time       // the work's deadline; zero: none
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

// room reports whether there is a free slot. It may take one from a turn that is not used. The caller holds
// mu, here and below.
func (g *Processors) room() bool {
	if len(g.holders) < g.slots {
		return true
	}
	g.reclaim()
	return len(g.holders) < g.slots
}

// reclaim takes away turns that have not been used for a while.
func (g *Processors) reclaim() {
	now := g.now()
	g.holders = slices.DeleteFunc(g.holders, func(h *Place) bool {
		since, ok := h.idle()
		unused := now-since >= int64(idleTurn) || h.account.background && !h.owed
		return ok && unused && h.state.CompareAndSwap(since, turnNone)
	})
}

func (g *Processors) take(t *Place) {
	t.credit, t.owed = turnTime, t.account.background && len(g.queue) > 0
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

// enqueue adds a service to the queue. Its rank is its use at this time. All services that use much reach the
// same use in the end, as debts are bounded; among those the earlier one goes first. If the rank were the use
// at the time when a turn is free, a service for which work is done elsewhere meanwhile could wait forever.
func (g *Processors) enqueue(a *Account) {
	if a.rank = a.used.empty.Load(); a.background {
		// The rank of a service that uses much is between the present time and debt later.
		a.rank = g.now() + debt + backgroundWait
	}
	g.queue = append(g.queue, a)
}

// next is the index in the queue of the service with the lowest rank.
func (g *Processors) next() int {
	first := 0
	for k, a := range g.queue {
		if a.rank < g.queue[first].rank {
			first = k
		}
	}
	return first
}

// forget removes a turn from the queue; false if it is not there.
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

// watch sets the timer for turns that are held and not used.
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

// sweep is called by the timer.
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
