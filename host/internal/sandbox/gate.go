package sandbox

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// gate shares the processors among the services of a host. Go's scheduler cannot
// interrupt a guest within a slice, so if guests that compute took all processors,
// everybody else (the guests that do little, the journal, the gateway) would wait a
// slice for each of their steps. So one processor is always left to those: services
// that have used much of late run in turns, no more than slots at a time; services
// that have not never meet the gate.
//
// A turn is an amount of processor time. An instance that holds one may leave the
// guest and enter it again, so a service with many short calls gets as much as one with
// few long ones. A free turn goes to the waiting service that has used the least of
// late: one that seldom computes does not wait for all that always do. Among equals,
// and within a service among its instances, turns go in the order in which they came.
type gate struct {
	slots int
	now   func() int64

	mu      sync.Mutex
	holders []*turn    // at most slots
	queue   []*account // that have somebody waiting, in order
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

func newGate(slots int) *gate {
	return &gate{slots: max(1, slots), now: clock}
}

// account is what one service has used of late, with all its instances. It is safe
// for concurrent use.
type account struct {
	gate    *gate
	used    bucket
	little  bucket // the same, forgotten more slowly
	slow    slowness
	waiters []*turn // guarded by gate.mu
	rank    int64   // of the service in the queue: what used was when it came; guarded by gate.mu
	watch   watch   // of a test; nil otherwise

	name     service.Name
	programs int // that share it; guarded by the runtime's mutex
}

// watch is told of each grant, on the thread that runs the guest.
type watch interface {
	began()
	ended() // all of it was used
}

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

// heavy reports whether the service has to take turns.
func (a *account) heavy(now int64) bool {
	if a.used.level(now) > burst {
		return true
	}
	crowd := a.gate.crowd.level(now)
	return crowd > crowdBurst && (crowd > throng || a.little.level(now) > littleBurst)
}

// burn notes work of so many nanoseconds.
func (a *account) burn(work, now int64, inTurn bool) {
	a.slow.served.Add(work)
	a.used.add(work*lightShare, debt, now)
	a.little.add(work*littleShare, littleDebt, now)
	if !inTurn {
		a.gate.crowd.add(work*crowdShare, crowdDebt, now)
	}
}

// ceiling is the largest grant of the service's instances.
func (a *account) ceiling() int64 { return a.slow.ceiling() }

// The states of a turn; any other says since when it has been idle: held between two
// calls, so that whoever waits may take it.
const (
	turnNone int64 = math.MinInt64     // not held
	turnUsed int64 = math.MinInt64 + 1 // held by a call that runs
)

// turn is one instance's place at the gate. Its owner is the goroutine that runs the
// instance; state is also changed by others, from idle to none.
type turn struct {
	account *account
	state   atomic.Int64
	credit  int64 // ns left of the turn
	granted chan struct{}
}

func newTurn(a *account) *turn {
	t := &turn{account: a, granted: make(chan struct{}, 1)}
	t.state.Store(turnNone)
	return t
}

func (t *turn) held() bool { return t.state.Load() == turnUsed }

// idle reports whether the turn is held and not used, and since when.
func (t *turn) idle() (since int64, ok bool) {
	since = t.state.Load()
	return since, since > turnUsed
}

// resume takes an idle turn up again.
func (t *turn) resume() bool {
	since, ok := t.idle()
	return ok && t.state.CompareAndSwap(since, turnUsed)
}

// pause leaves the turn idle at the end of a call, or gives it up if it is used up.
func (t *turn) pause(now int64) {
	if !t.held() {
		return
	}
	g := t.account.gate
	if t.credit <= 0 {
		t.release()
		return
	}
	t.state.Store(now)
	if g.waiting.Load() > 0 {
		g.mu.Lock()
		g.watch()
		g.mu.Unlock()
	}
}

// renew reports whether the turn can go on within a call: it has credit left, or
// nobody else wants it. A service that uses little does not wait for the credit of one
// that uses much.
func (t *turn) renew(now int64) bool {
	if !t.held() {
		return false
	}
	g := t.account.gate
	switch wanted := g.waiting.Load() > 0; {
	case wanted && (t.credit <= 0 || g.overtakes(t.account, now)):
		t.release()
		return false
	case t.credit <= 0:
		t.credit = turnTime
	}
	return true
}

// overtakes reports whether a service waits that has used little while this one has
// used much.
func (g *gate) overtakes(holder *account, now int64) bool {
	if holder.used.level(now) <= burst {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.queue, func(a *account) bool { return a.used.level(now) <= burst })
}

// release gives the turn up.
func (t *turn) release() {
	g := t.account.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(t)
	t.state.Store(turnNone)
	g.grant()
}

var errNoTurn = errors.New("no turn came")

// wait waits for a turn; it fails when the call's caller goes away, or when the
// call's patience ends, which that of a start does not.
func (t *turn) wait(m *meter) error {
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
	if !m.budget.patient {
		d := time.NewTimer(patience*m.budget.time - m.waited)
		defer d.Stop()
		limit = d.C
	}
	if !m.until.IsZero() {
		d := time.NewTimer(time.Until(m.until))
		defer d.Stop()
		deadline = d.C
	}
	var err error
	select {
	case <-t.granted:
		return nil
	case <-m.ctx.Done():
		err = m.ctx.Err()
	case <-m.gone:
		err = context.Canceled
	case <-deadline:
		err = context.DeadlineExceeded
	case <-limit:
		err = errNoTurn
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
func (g *gate) room() bool {
	if len(g.holders) < g.slots {
		return true
	}
	g.reclaim()
	return len(g.holders) < g.slots
}

// reclaim takes turns away that have not been used for a while.
func (g *gate) reclaim() {
	now := g.now()
	g.holders = slices.DeleteFunc(g.holders, func(h *turn) bool {
		since, ok := h.idle()
		return ok && now-since >= int64(idleTurn) && h.state.CompareAndSwap(since, turnNone)
	})
}

func (g *gate) take(t *turn) {
	t.credit = turnTime
	t.state.Store(turnUsed)
	g.holders = append(g.holders, t)
}

func (g *gate) remove(t *turn) {
	if k := slices.Index(g.holders, t); k >= 0 {
		g.holders = slices.Delete(g.holders, k, k+1)
	}
}

// grant gives free slots to those that wait.
func (g *gate) grant() {
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
func (g *gate) enqueue(a *account) {
	a.rank = a.used.empty.Load()
	g.queue = append(g.queue, a)
}

// next is the place in the queue of the service that had used the least.
func (g *gate) next() int {
	least := 0
	for k, a := range g.queue {
		if a.rank < g.queue[least].rank {
			least = k
		}
	}
	return least
}

// forget takes a turn out of the queue; false if it is not there.
func (g *gate) forget(t *turn) bool {
	a := t.account
	k := slices.Index(a.waiters, t)
	if k < 0 {
		return false
	}
	a.waiters = slices.Delete(a.waiters, k, k+1)
	if len(a.waiters) == 0 {
		g.queue = slices.DeleteFunc(g.queue, func(x *account) bool { return x == a })
	}
	g.waiting.Add(-1)
	return true
}

// watch has the timer look after turns that are held and not used.
func (g *gate) watch() {
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
func (g *gate) sweep() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = false
	if len(g.queue) > 0 {
		g.reclaim()
		g.grant()
		g.watch()
	}
}
