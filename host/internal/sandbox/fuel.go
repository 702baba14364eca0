package sandbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero/api"
)

// slice is how much fuel a guest gets at a time. Between two slices the host looks
// at everything that can end a call: its limits, its deadline, a caller that has
// gone, a host that stops; and at whose turn it is. Go's scheduler cannot interrupt
// a guest, so this is also how long everybody waits at most for a guest to let the
// collector have its moment: some 0.3 ms. Asking costs a fifth of a microsecond. With
// slices of ten million a collection beside spinning guests took 27 ms instead of 5.5.
const slice = 2_000_000

// budget is what a request may spend.
type budget struct {
	fuel int64
	time time.Duration
}

// patience is what a call may wait for its turns, as a multiple of its own time.
const patience = 10

// retryTurn is when to try again after patience ended.
const retryTurn = 100 * time.Millisecond

// burnRate is what a processor executes for a guest, in fuel a nanosecond, about:
// it turns the time that the host spends on a guest into fuel.
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
	granted int64         // to the call so far
	left    int64         // of it, when the guest is not running
	charged int64         // of what was spent: told to the account
	began   int64         // of clock
	now     int64         // the last reading of clock
	waited  time.Duration // for turns
	ctx     context.Context
	gone    <-chan struct{} // see scene
	until   time.Time       // see scene
}

// epoch is where clock begins.
var epoch = time.Now()

// clock is monotonic time in nanoseconds.
func clock() int64 { return int64(time.Since(epoch)) }

// begin starts a call: one request to the guest, which may enter it several times.
func (m *meter) begin(ctx context.Context, on scene, now int64) {
	m.budget = on.budget
	m.granted = min(slice, on.budget.fuel)
	m.left, m.charged = m.granted, 0
	m.began, m.now, m.waited = now, now, 0
	m.ctx, m.gone, m.until = ctx, on.gone, on.until
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

// refuel grants the next slice, or ends the guest with a *hostTrap.
func (i *Instance) refuel() {
	m := &i.meter
	m.stop()
	spent := m.spent()
	if spent > m.budget.fuel {
		// What there was no fuel for is not done, and not counted either: it could be a
		// charge by a size that the guest made up.
		m.fuel.Set(uint64(m.granted - m.budget.fuel))
		m.stop()
		panic(&hostTrap{service.KindGuestFuel, fmt.Sprintf(
			"the call spent its fuel: all of the limit of %d, in %v; do less in one call, or raise the service's limit fuel",
			m.budget.fuel, m.ran().Round(time.Microsecond))})
	}
	m.now = clock()
	i.settle()
	if trap := m.interrupted(); trap != nil {
		panic(trap)
	}
	if i.turn.held() || i.account.heavy(m.now) {
		if trap := i.takeTurn(); trap != nil {
			panic(trap)
		}
		// Whoever waits for this processor and is no guest goes first.
		runtime.Gosched()
	}
	m.left = min(slice, m.budget.fuel-spent)
	m.granted = spent + m.left
	m.fuel.Set(uint64(m.left))
}

// settle tells the account, and the turn, what has been spent since it was last told,
// which was less than a slice's time before now.
func (i *Instance) settle() {
	m := &i.meter
	spent := m.spent()
	fresh := spent - m.charged
	m.charged = spent
	i.account.burn(fresh, m.now)
	i.turn.credit -= fresh // of no meaning unless it is held
}

// ran is how long the call has been running, without its waits.
func (m *meter) ran() time.Duration { return time.Duration(clock()-m.began) - m.waited }

// interrupted says why the guest has to end now, if it has to.
func (m *meter) interrupted() *hostTrap {
	if ran := m.ran(); ran > m.budget.time {
		return &hostTrap{service.KindGuestDeadline, fmt.Sprintf(
			"the guest ran longer than the call's time limit: %v of %v, with %d of %d fuel spent; do less in one call, or raise the service's limit call_time",
			ran.Round(time.Microsecond), m.budget.time, m.spent(), m.budget.fuel)}
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
	so := fmt.Sprintf("after %v, with %d of %d fuel spent; nothing was written", m.ran().Round(time.Microsecond), m.spent(), m.budget.fuel)
	if errors.Is(why, context.DeadlineExceeded) {
		return &hostTrap{service.KindGuestDeadline, "the caller's time limit for the call ran out " + so}
	}
	return &hostTrap{service.KindCanceled, "the caller went away " + so}
}

// takeTurn waits for the instance's turn to run.
func (i *Instance) takeTurn() *hostTrap {
	m := &i.meter
	if i.turn.resume() || i.turn.held() {
		if i.turn.renew() {
			return nil
		}
	}
	before := clock()
	err := i.turn.wait(m)
	m.now = clock()
	m.waited += time.Duration(m.now - before)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoTurn):
		return &hostTrap{service.KindOverloaded, fmt.Sprintf(
			"the call waited %v for its turn to compute, behind other calls that take much; nothing was written, try again",
			m.waited.Round(time.Millisecond))}
	}
	return m.abandoned(err)
}

// The budgets of what is no command or query. A guest that is quick to answer may
// have much to set up first, and it does so once.
const startCalls = 10

func (i *Instance) callBudget() budget {
	return budget{i.limits.Fuel, i.limits.CallTime}
}

func (i *Instance) startBudget() budget {
	return budget{saturate(startCalls, i.limits.Fuel), startCalls * i.limits.CallTime}
}

// framesBudget is that of a request about many events or entities.
func (i *Instance) framesBudget(n uint32) budget {
	return budget{i.limits.Fuel + saturate(int64(n), i.limits.EventFuel), i.limits.CallTime}
}

// saturate multiplies, to at most half of what there are numbers for.
func saturate(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/2/a {
		return math.MaxInt64 / 2
	}
	return a * b
}
