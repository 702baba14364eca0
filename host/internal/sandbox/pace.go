package sandbox

import (
	"sync/atomic"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Fuel says how much a guest has done, not how long that took: instructions differ by
// a factor of a thousand, from an addition to a load that misses every cache. So a
// slice is sized by the clock. Within one, the guest gets its fuel in grants that are
// small enough that the slowest instructions do not make them long; asking for one
// costs about a tenth of a microsecond.
const (
	// sliceTime is after how long the host looks at everything that can end a call, and
	// at whose turn it is: at the end of the grant in which it has passed.
	sliceTime = 150_000 // ns

	// yieldTime is after how long an instance of a service that uses much lets others run
	// between two calls. It costs some 15 µs, as another thread takes the goroutine up.
	yieldTime = 500_000 // ns

	// The bounds of a grant. The smallest takes 0.15 ms if each of its instructions takes
	// 150 ns, which is a load from memory that no cache has, and 0.5 ms if each meets a page
	// that the system has to find first. The largest takes about 10 µs in most guests: then
	// asking is one percent of it.
	minGrant   = 1_024
	maxGrant   = 65_536
	firstGrant = 4_096 // of an instance

	// firstSliceGrant bounds the grants in the first slice of a call, in which the
	// thread's processor time is not read, as that costs more than many a call, unless the
	// service is suspected.
	firstSliceGrant = 32_768

	// A grant that took longer than slowGrant makes the next ones smaller, one that took
	// less than quickGrant larger.
	slowGrant  = 300_000 // ns
	quickGrant = 100_000 // ns
	goodGrant  = 200_000 // ns; what a slow guest's grants are made to take

	// healing is after how much processor time a service that was slow gets grants twice
	// as large again.
	healing = 250_000_000 // ns

	// suspicion is for how much processor time a service is suspected of being slow. No grants
	// that are lowered take longer to heal, so the grants that nobody has measured are not more.
	suspicion = 8 * healing
)

// account is what a service's programs share: what it has used of late, and how slow its guests were.
type account struct {
	*fair.Account
	slow  slowness
	watch watch // of a test; nil otherwise

	name     service.Name
	programs int // that share it; guarded by the runtime's mutex
}

func newAccount(g *fair.Processors, name service.Name) *account {
	a := &account{Account: fair.NewAccount(g), name: name}
	a.slow.account = a.Account
	return a
}

// ceiling is the largest grant of the service's instances.
func (a *account) ceiling() int64 { return a.slow.ceiling() }

// watch is told of each grant, on the thread that runs the guest.
type watch interface {
	began()
	ended() // all of it was used
}

// pace is how large the grants of one instance are. The goroutine that runs it owns it.
type pace struct {
	grant int64
}

// next is the size of the next grant.
func (p *pace) next(a *account, most int64) int64 {
	if p.grant == 0 {
		p.grant = firstGrant
	}
	return min(p.grant, most, a.ceiling())
}

// took tells how long a grant took, in which the guest spent so much fuel.
func (p *pace) took(elapsed, spent int64) {
	switch {
	case elapsed > slowGrant:
		p.grant = fitting(elapsed, spent)
	case elapsed < quickGrant:
		p.grant = min(2*p.grant, maxGrant)
	}
}

// fitting is the fuel of a grant that would have taken a good time.
func fitting(elapsed, spent int64) int64 {
	return min(max(int64(float64(spent)*(goodGrant/float64(elapsed))), minGrant), maxGrant)
}

// slowness is what a service's instances know of each other: how small grants have to
// be, by the slowest that was met. A guest could be quick until its grants are large,
// and slow then; so this is forgotten slowly, by the processor time that the service
// has had since. It is safe for concurrent use.
type slowness struct {
	account *fair.Account
	most    atomic.Int64 // fuel of a grant when since was set; 0 is no bound
	since   atomic.Int64 // what the service had had then, in ns of processor time
	suspect atomic.Int64 // what it has had when the suspicion ends; 0 is none
}

// long notes a grant that took longer than fair.LongLap by the clock, in a slice that used so much processor time. If
// that is unproven, as the thread's time was not read in the call's first slice, it may as well be that the thread had
// no processor, which is common on a busy machine: then the service is suspected, and its calls are measured from their
// beginning. To give it small grants at once had quick services ask for fuel 25 times as often.
func (s *slowness) long(elapsed, spent, used int64, unproven bool) {
	switch {
	case unproven:
		s.suspect.Store(s.account.Served() + suspicion)
	case used > fair.LongLap:
		s.lower(fitting(min(elapsed, used), spent))
	}
}

// suspected reports whether the thread's time has to be read also in the first slice of a call.
func (s *slowness) suspected() bool {
	until := s.suspect.Load()
	return until != 0 && s.account.Served() < until
}

// ceiling is the largest grant.
func (s *slowness) ceiling() int64 {
	most := s.most.Load()
	if most == 0 {
		return maxGrant
	}
	doubled := (s.account.Served() - s.since.Load()) / healing
	if doubled >= 8 { // by then it is beyond the largest
		s.most.CompareAndSwap(most, 0)
		return maxGrant
	}
	return min(most<<max(doubled, 0), maxGrant)
}

// lower notes that grants have to be small.
func (s *slowness) lower(most int64) {
	if most < s.ceiling() {
		s.since.Store(s.account.Served())
		s.most.Store(most)
	}
}
