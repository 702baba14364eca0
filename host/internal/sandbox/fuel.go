package sandbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero/api"
)

// budget is what a request may spend.
type budget struct {
	fuel int64
	time time.Duration // of the guest on a processor
	// patient is a start: it waits for its turns as long as its caller does. Were it
	// ended for what others do, it would only have to begin again.
	patient bool
}

// patience is what a call may wait for its turns, as a multiple of its own time.
const patience = 10

// retryTurn is when to try again after patience ended.
const retryTurn = 100 * time.Millisecond

// burnRate is what a processor executes for a guest at best, in fuel a nanosecond, about.
// So fuel is worth at least that much time.
const burnRate = 7

// meter gives a guest its fuel and counts what it spends. The guest counts down in
// a global of its own that the rewriting has put there, see package metering; when
// it is below zero the guest calls refuel.
//
// One goroutine owns it: that which runs the instance. refuel runs on it, too.
type meter struct {
	fuel  api.MutableGlobal // left of what was granted; negative when more is needed
	stack api.MutableGlobal // bytes left

	budget  budget
	granted int64 // to the call so far
	left    int64 // of it, when the guest is not running
	charged int64 // of what was spent: told to the account

	slice   fair.Lap
	first   bool          // the slice is the call's first
	hosts   bool          // the slice is the host's own work on an answer; see hostLap
	grantAt int64         // of fair.Now: when the present grant was given
	spentAt int64         // what was spent then
	ran     time.Duration // on a processor, up to the present slice
	waited  time.Duration // for turns
	owed    int64         // work that is done later, in ns: see byteTime

	ctx   context.Context
	gone  <-chan struct{} // see scene
	until time.Time       // see scene
}

// beginMeter starts a call: one request to the guest, which may enter it several times.
func (i *Instance) beginMeter(ctx context.Context, on *scene) {
	m := &i.meter
	m.budget = on.budget
	m.granted, m.left, m.charged = 0, 0, 0
	m.ran, m.waited, m.owed = 0, 0, 0
	m.ctx, m.gone, m.until = ctx, on.gone, on.until
}

// run starts the first slice of a call.
func (i *Instance) run(now int64) {
	i.meter.slice, i.meter.first, i.meter.hosts = fair.StartLap(now, i.account.slow.suspected()), true, false
	i.grant(now)
}

// forget lets go of what the call came with.
func (m *meter) forget() { m.ctx, m.gone, m.until = nil, nil, time.Time{} }

// arm readies the meter for entering the guest.
func (m *meter) arm(stack int) {
	m.fuel.Set(uint64(m.left))
	m.stack.Set(uint64(stack))
}

// stop looks what is left after the guest has been left.
func (m *meter) stop() { m.left = int64(m.fuel.Get()) }

// spent is what the call has cost, never more than its limit.
func (m *meter) spent() int64 { return m.granted - m.left }

// spend charges what the host does for the guest.
func (i *Instance) spend(fuel int64) {
	left := int64(i.meter.fuel.Get()) - fuel
	i.meter.fuel.Set(uint64(left))
	if left < 0 {
		i.refuel()
	}
}

// refuel gives the next grant, or ends the guest with a *hostTrap.
func (i *Instance) refuel() {
	m := &i.meter
	m.stop()
	if m.spent() > m.budget.fuel {
		// What there was no fuel for is not done, and not counted either: it could be a
		// charge by a size that the guest made up.
		m.fuel.Set(uint64(m.granted - m.budget.fuel))
		m.stop()
		i.lap(fair.Now(), false)
		panic(&hostTrap{service.KindGuestFuel, fmt.Sprintf(
			"the call spent its fuel: all of the limit of %d, in %v; do less in one call, or raise the service's "+
				"limit fuel",
			m.budget.fuel, m.ran.Round(time.Microsecond))})
	}
	now := fair.Now()
	elapsed := now - m.grantAt
	if i.account.watch != nil {
		i.account.watch.ended()
	}
	if !m.hosts {
		i.pace.took(elapsed, m.spent()-m.spentAt)
	}
	if m.slice.Elapsed(now) >= sliceTime {
		now = i.nextSlice(now, elapsed)
	}
	i.grant(now)
	m.fuel.Set(uint64(m.left))
}

// grant gives the guest more fuel, as much as is known to take a short time.
func (i *Instance) grant(now int64) {
	m := &i.meter
	most := int64(maxGrant)
	if m.first {
		most = firstSliceGrant
	}
	m.spentAt, m.grantAt = m.spent(), now
	m.left = min(i.pace.next(i.account, most), m.budget.fuel-m.spentAt)
	m.granted = m.spentAt + m.left
	if i.account.watch != nil {
		i.account.watch.began()
	}
}

// nextSlice ends a slice, of which the last grant took so long, and begins the next
// one: whatever can end a call is looked at between the two, and whose turn it is.
func (i *Instance) nextSlice(now, lastGrant int64) int64 {
	m := &i.meter
	unproven := !m.slice.Read()
	used := i.lap(now, m.ran > m.budget.time/2)
	if !m.hosts && lastGrant > fair.LongLap {
		i.account.slow.long(lastGrant, m.spent()-m.spentAt, used, unproven)
	}
	if trap := m.interrupted(); trap != nil {
		panic(trap)
	}
	if i.turn.Held() || i.account.Heavy(now) {
		if _, trap := i.takeTurn(now); trap != nil {
			panic(trap)
		}
		// Whoever waits for this processor and is no guest goes first.
		runtime.Gosched()
	}
	now = fair.Now()
	m.slice, m.first = fair.StartLap(now, true), false
	return now
}

// endGrant looks how long the last grant of a call took, which it has not used up.
func (i *Instance) endGrant(now int64) {
	m := &i.meter
	elapsed, spent := now-m.grantAt, m.spent()-m.spentAt
	if m.hosts || elapsed <= slowGrant || spent <= minGrant { // smaller ones would not have been shorter
		return
	}
	i.pace.took(elapsed, spent)
	if elapsed > fair.LongLap {
		i.account.slow.long(elapsed, spent, m.slice.Took(now, false), !m.slice.Read())
	}
}

// lap ends the present slice: it tells the account, and the turn, what was used. What
// follows until the next slice begins is not measured. The host's own work is charged to
// the service, but is no time of the call's.
func (i *Instance) lap(now int64, exactly bool) (used int64) {
	m := &i.meter
	used = m.slice.Took(now, exactly)
	if !m.hosts {
		m.ran += time.Duration(used)
	}
	m.slice = fair.StartLap(now, false)
	spent := m.spent()
	i.charge(max(used, (spent-m.charged)/burnRate)+m.owed, now)
	m.charged, m.owed = spent, 0
	return used
}

// byteTime is what the host does later with a byte of a request or an answer, in
// nanoseconds of a processor, about: hash it, pack it, write it to the journal and to
// clients.
const byteTime = 4

// largeAnswer is the size from which on the host's own work on an answer is measured
// apart from the guest's, with the thread's processor time.
const largeAnswer = 64 << 10

// hostLap ends the guest's slice and measures what the host does from here on.
func (i *Instance) hostLap() {
	now := fair.Now()
	i.endGrant(now)
	i.lap(now, false)
	i.meter.slice, i.meter.hosts = fair.StartLap(now, true), true
}

// hostWork charges what the host did for the guest outside of a call.
func (i *Instance) hostWork(l fair.Lap) {
	now := fair.Now()
	i.charge(l.Took(now, false), now)
}

// charge tells the account, and the turn, of work that was done for the guest: so many
// nanoseconds of a processor.
//
// The account is shared, so it is told only of as much as is worth that.
func (i *Instance) charge(work, now int64) {
	i.turn.Spend(work) // of no meaning unless it is held
	if i.unbilled += work; i.unbilled >= billing {
		i.account.Burn(i.unbilled, now, i.turn.Held())
		i.unbilled = 0
	}
}

// billing is the work, in nanoseconds, of which an account is told at once.
const billing = 10_000

// waiter is who waits for a turn of the call, which has a patience of its own.
func (m *meter) waiter() *fair.Waiter {
	return &fair.Waiter{
		Context: m.ctx, Gone: m.gone, Until: m.until,
		Patience: patience*m.budget.time - m.waited, Patient: m.budget.patient,
	}
}

// interrupted says why the guest has to end now, if it has to.
func (m *meter) interrupted() *hostTrap {
	if m.ran > m.budget.time {
		return &hostTrap{service.KindGuestDeadline, fmt.Sprintf(
			"the guest ran longer than the call's time limit: %v of %v on a processor, with %d of %d fuel spent; do "+
				"less in one call, or raise the service's limit call_time",
			m.ran.Round(time.Microsecond), m.budget.time, m.spent(), m.budget.fuel)}
	}
	select {
	case <-m.ctx.Done():
		return m.abandoned(m.ctx.Err())
	case <-m.gone:
		return m.abandoned(context.Canceled)
	default:
	}
	if !m.until.IsZero() && !time.Now().Before(m.until) {
		return m.abandoned(context.DeadlineExceeded)
	}
	return nil
}

// abandoned is the end of a guest that nobody waits for any more.
func (m *meter) abandoned(why error) *hostTrap {
	so := fmt.Sprintf("after %v, with %d of %d fuel spent; nothing was written", m.ran.Round(time.Microsecond),
		m.spent(), m.budget.fuel)
	if errors.Is(why, context.DeadlineExceeded) {
		return &hostTrap{service.KindGuestDeadline, "the caller's time limit for the call ran out " + so}
	}
	return &hostTrap{service.KindCanceled, "the caller went away " + so}
}

// takeTurn waits for the instance's turn to run, and returns when it came.
func (i *Instance) takeTurn(now int64) (int64, *hostTrap) {
	m := &i.meter
	if i.turn.Resume() || i.turn.Held() {
		if i.turn.Renew(now) {
			return now, nil
		}
	}
	err := i.turn.Wait(m.waiter())
	after := fair.Now()
	m.waited += time.Duration(after - now)
	switch {
	case err == nil:
		return after, nil
	case errors.Is(err, fair.ErrPatience):
		return after, &hostTrap{service.KindOverloaded, fmt.Sprintf(
			"the call waited %v for its turn to compute, behind other calls that take much; nothing was written, try "+
				"again",
			m.waited.Round(time.Millisecond))}
	}
	return after, m.abandoned(err)
}

// The budgets of what is no command or query. A guest that is quick to answer may
// have much to set up first, and it does so once.
const startCalls = 10

func (i *Instance) callBudget() budget {
	return budget{fuel: i.limits.Fuel, time: i.limits.CallTime}
}

func (i *Instance) startBudget() budget {
	return budget{fuel: saturate(startCalls, i.limits.Fuel), time: startCalls * i.limits.CallTime, patient: true}
}

// replayBudget is that of a request of a hydration. It has no limit of time, as the events
// have happened: what they take is bounded by what their commands took.
func (i *Instance) replayBudget(c *chunk) budget {
	fuel := i.limits.Fuel + saturate(int64(c.events), i.limits.EventFuel)
	return budget{fuel: min(fuel+min(c.fuel, math.MaxInt64/4)+min(c.opens, math.MaxInt64/8), math.MaxInt64/2),
		time: math.MaxInt64, patient: true}
}

// framesBudget is that of a request about many entities.
func (i *Instance) framesBudget(n uint32) budget {
	return budget{fuel: i.limits.Fuel + saturate(int64(n), i.limits.EventFuel), time: i.limits.CallTime}
}

// saturate multiplies, to at most half of what there are numbers for.
func saturate(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/2/a {
		return math.MaxInt64 / 2
	}
	return a * b
}
