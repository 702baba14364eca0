package sandbox

import (
	"sync/atomic"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Fuel counts what a guest has done, not how long it took: instructions differ by a factor of a thousand,
// from an addition to a load that misses every cache. So the clock determines the length of a slice. Within a
// slice the guest gets fuel in grants, which are small enough to be short even with the slowest instructions.
// Asking for a grant takes about a tenth of a microsecond.
const (
	// sliceTime is the length of a slice: it ends with the grant in which this time has passed. Then the host
	// checks everything that can end a call, and whose turn it is.
	sliceTime = 150_000 // ns

	// yieldTime is how often an instance of a service with heavy use yields between two calls. A yield takes
	// about 15 µs, as another thread picks the goroutine up.
	yieldTime = 500_000 // ns

	// The bounds of a grant. The smallest takes 0.15 ms if each instruction takes 150 ns (a load that misses
	// every cache), and 0.5 ms if each instruction causes a page fault. The largest takes about 10 µs in most
	// guests, so that asking takes one percent of that.
	minGrant   = 1_024
	maxGrant   = 65_536
	firstGrant = 4_096 // the first of an instance

	// firstSliceGrant is the maximum grant in the first slice of a call. In that slice the thread's processor
	// time is not read unless the service is suspected: reading takes longer than many calls.
	firstSliceGrant = 32_768

	// A grant that took longer than slowGrant makes the next ones smaller. One that took less than quickGrant
	// makes them larger.
	slowGrant  = 300_000 // ns
	quickGrant = 100_000 // ns
	goodGrant  = 200_000 // ns; the target for grants of a slow guest

	// healing is the processor time after which the grants of a slow service double again.
	healing = 250_000_000 // ns

	// suspicion is the processor time for which a service is suspected of being slow. Lowered grants never
	// take longer than this to heal.
	suspicion = 8 * healing
)

// account is what a service's programs share: their recent use, and how slow their guests were.
type account struct {
	*fair.Account
	slow  slowness
	watch watch // for a test; nil otherwise

	name     service.Name
	programs int // number of programs that share it; guarded by the runtime's mutex
}

func newAccount(g *fair.Processors, name service.Name) *account {
	a := &account{Account: fair.NewAccount(g), name: name}
	a.slow.account = a.Account
	return a
}

// ceiling is the largest grant for the service's instances.
func (a *account) ceiling() int64 { return a.slow.ceiling() }

// watch is told of each grant, on the thread that runs the guest.
type watch interface {
	began()
	ended() // the grant was used up
}

// pace determines the size of one instance's grants. The goroutine that runs the instance owns it.
type pace struct {
	grant int64
}

// next is the size of the next grant.
func (p *pace) next(a *account, maxFuel int64) int64 {
	if p.grant == 0 {
		p.grant = firstGrant
	}
	return min(p.grant, maxFuel, a.ceiling())
}

// took records how long a grant took, and how much fuel the guest spent in it.
func (p *pace) took(elapsed, spent int64) {
	switch {
	case elapsed > slowGrant:
		p.grant = fitting(elapsed, spent)
	case elapsed < quickGrant:
		p.grant = min(2*p.grant, maxGrant)
	}
}

// fitting is the grant that would have taken goodGrant.
func fitting(elapsed, spent int64) int64 {
	return min(max(int64(float64(spent)*(goodGrant/float64(elapsed))), minGrant), maxGrant)
}

// slowness is what a service's instances learn from each other: how small grants must be for the slowest
// guest so far. A guest could be quick until its grants are large, and only then be slow. So this is
// forgotten slowly, by the processor time that the service has used since. It is safe for concurrent use.
type slowness struct {
	account *fair.Account
	maxFuel atomic.Int64 // maximum fuel of a grant at since; 0: no maximum
	since   atomic.Int64 // processor time of the service when maxFuel was set, in ns
	suspect atomic.Int64 // processor time at which the suspicion ends, in ns; 0: none
}

// long records a grant that took longer than fair.LongLap by the clock, in a slice that used so much
// processor time. In a call's first slice the thread's time may not have been read; then unproven is true. In
// that case the thread may just have had no processor, which is common on a busy machine. So the service is
// only suspected, and its calls are measured from their beginning. Lowering its grants at once made quick
// services ask for fuel 25 times as often.
func (s *slowness) long(elapsed, spent, used int64, unproven bool) {
	switch {
	case unproven:
		s.suspect.Store(s.account.Served() + suspicion)
	case used > fair.LongLap:
		s.lower(fitting(min(elapsed, used), spent))
	}
}

// suspected reports whether the thread's time must be read in the first slice of a call, too.
func (s *slowness) suspected() bool {
	until := s.suspect.Load()
	return until != 0 && s.account.Served() < until
}

// ceiling is the largest grant.
func (s *slowness) ceiling() int64 {
	maxFuel := s.maxFuel.Load()
	if maxFuel == 0 {
		return maxGrant
	}
	doubled := (s.account.Served() - s.since.Load()) / healing
	if doubled >= 8 { // then it is above the largest grant
		s.maxFuel.CompareAndSwap(maxFuel, 0)
		return maxGrant
	}
	return min(maxFuel<<max(doubled, 0), maxGrant)
}

// lower lowers the maximum grant to maxFuel.
func (s *slowness) lower(maxFuel int64) {
	if maxFuel < s.ceiling() {
		s.since.Store(s.account.Served())
		s.maxFuel.Store(maxFuel)
	}
}
