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

// budget is what one request may spend.
type budget struct {
	fuel int64
	time time.Duration // processor time of the guest
	// patient says that the call is a start, or a replay. It waits for its turns as long as its caller does:
	// if it were ended because of others, it would have to start over.
	patient bool
}

// patience is how long a call waits for its turns, as a multiple of its own time limit.
const patience = 10

// retryTurn is the RetryAfter of a call that waited too long for its turn.
const retryTurn = 100 * time.Millisecond

// burnRate is about the most fuel that a guest spends in a nanosecond of processor time. So spent fuel is
// charged as at least that much time.
const burnRate = 7

// meter grants fuel to a guest and counts what it spends. The guest counts down in a global that the
// rewriting has added, see package metering; when the global is below zero the guest calls refuel.
//
// The goroutine that runs the instance owns it; refuel runs on that goroutine, too.
type meter struct {
	fuel  api.MutableGlobal // left of the grants; negative when more is needed
	stack api.MutableGlobal // bytes left

	budget  budget
	granted int64 // fuel granted to the call so far
	left    int64 // the part that is left, while the guest does not run
	charged int64 // spent fuel that the account has been charged for

	slice   fair.Lap
	first   bool          // this is the call's first slice
	hosts   bool          // this slice is the host's own work on an answer; see hostLap
	grantAt int64         // fair.Now at the present grant
	spentAt int64         // spent at the present grant
	ran     time.Duration // processor time before the present slice
	waited  time.Duration // time spent waiting for turns
	owed    int64         // host work that follows the call, in ns: see byteTime

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

// forget drops the references to the caller's context.
func (m *meter) forget() { m.ctx, m.gone, m.until = nil, nil, time.Time{} }

// arm prepares the globals for entering the guest.
func (m *meter) arm(stack int) {
	m.fuel.Set(uint64(m.left))
	m.stack.Set(uint64(stack))
}

// stop reads back the fuel that is left after the guest has returned.
func (m *meter) stop() { m.left = int64(m.fuel.Get()) }

// spent is the fuel that the call has used, never more than its limit.
func (m *meter) spent() int64 { return m.granted - m.left }

// spend charges the guest for work that the host does on its behalf.
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
		// Work that could not be paid for was not done, so it is not counted. It could be a charge by a size
		// that the guest made up.
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

// grant gives the guest more fuel: an amount that is expected to last a short time.
func (i *Instance) grant(now int64) {
	m := &i.meter
	maxFuel := int64(maxGrant)
	if m.first {
		maxFuel = firstSliceGrant
	}
	m.spentAt, m.grantAt = m.spent(), now
	m.left = min(i.pace.next(i.account, maxFuel), m.budget.fuel-m.spentAt)
	m.granted = m.spentAt + m.left
	if i.account.watch != nil {
		i.account.watch.began()
	}
}

// nextSlice ends a slice, whose last grant took lastGrant ns, and begins the next one. Between the two it
// checks everything that can end a call, and whose turn it is.
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
		// Goroutines that wait for this processor and run no guest go first.
		runtime.Gosched()
	}
	now = fair.Now()
	m.slice, m.first = fair.StartLap(now, true), false
	return now
}

// endGrant evaluates the last grant of a call, which was not used up.
func (i *Instance) endGrant(now int64) {
	m := &i.meter
	elapsed, spent := now-m.grantAt, m.spent()-m.spentAt
	if m.hosts || elapsed <= slowGrant || spent <= minGrant { // smaller grants would not have been shorter
		return
	}
	i.pace.took(elapsed, spent)
	if elapsed > fair.LongLap {
		i.account.slow.long(elapsed, spent, m.slice.Took(now, false), !m.slice.Read())
	}
}

// lap ends the present slice and charges what it used to the account and the turn. Time is not measured until
// the next slice begins. The host's own work is charged to the service, but does not count toward the call's
// time.
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

// byteTime is about how much processor time the host spends later on each byte of a request or an answer, in
// nanoseconds: it hashes and compresses the byte, and writes it to the journal and to clients.
const byteTime = 4

// largeAnswer is the size, in bytes, above which the host's work on an answer is measured apart from the
// guest's, by the processor time of the thread.
const largeAnswer = 64 << 10

// hostLap ends the guest's slice; what follows is measured as the host's work.
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

// charge charges the account and the turn with work for the guest, in nanoseconds of processor time.
//
// The account is shared, so small amounts are collected before it is called.
func (i *Instance) charge(work, now int64) {
	i.turn.Spend(work) // no effect unless the turn is held
	if i.unbilled += work; i.unbilled >= billing {
		i.account.Burn(i.unbilled, now, i.turn.Held())
		i.unbilled = 0
	}
}

// billing is the work, in nanoseconds, from which on the account is called.
const billing = 10_000

// waiter describes how long the call waits for a turn.
func (m *meter) waiter() *fair.Waiter {
	return &fair.Waiter{
		Context: m.ctx, Gone: m.gone, Until: m.until,
		Patience: patience*m.budget.time - m.waited, Patient: m.budget.patient,
	}
}

// interrupted returns the reason why the guest must end now, or nil.
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

// abandoned is the trap for a guest whose caller no longer waits for it.
func (m *meter) abandoned(why error) *hostTrap {
	so := fmt.Sprintf("after %v, with %d of %d fuel spent; nothing was written", m.ran.Round(time.Microsecond),
		m.spent(), m.budget.fuel)
	if errors.Is(why, context.DeadlineExceeded) {
		return &hostTrap{service.KindGuestDeadline, "the caller's time limit for the call ran out " + so}
	}
	return &hostTrap{service.KindCanceled, "the caller went away " + so}
}

// takeTurn waits for the instance's turn to run, and returns the time when it came.
func (i *Instance) takeTurn(now int64) (int64, *hostTrap) {
	m := &i.meter
	if i.turn.Resume() || i.turn.Held() {
		if i.turn.Renew(now) {
			return now, nil
		}
	}
	w := m.waiter()
	w.Patient = w.Patient || i.account.Background()
	err := i.turn.Wait(w)
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

// The budgets of requests that are neither commands nor queries. A guest that answers quickly may still have
// much to set up at its start, and it does so once.
const startCalls = 10

func (i *Instance) callBudget() budget {
	return budget{fuel: i.limits.Fuel, time: i.limits.CallTime}
}

func (i *Instance) startBudget() budget {
	return budget{fuel: saturate(startCalls, i.limits.Fuel), time: startCalls * i.limits.CallTime, patient: true}
}

// replayBudget is the budget of a hydration request. It has no time limit, as the events have already
// happened: fuel bounds it, by what the commands of these events took.
func (i *Instance) replayBudget(c *chunk) budget {
	fuel := i.limits.Fuel + saturate(int64(c.events), i.limits.EventFuel)
	return budget{fuel: min(fuel+min(c.fuel, math.MaxInt64/4)+min(c.opens, math.MaxInt64/8), math.MaxInt64/2),
		time: math.MaxInt64, patient: true}
}

// framesBudget is the budget of a request about n entities.
func (i *Instance) framesBudget(n uint32) budget {
	return budget{fuel: i.limits.Fuel + saturate(int64(n), i.limits.EventFuel), time: i.limits.CallTime}
}

// saturate multiplies two numbers; the product is at most half of the largest int64.
func saturate(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/2/a {
		return math.MaxInt64 / 2
	}
	return a * b
}
