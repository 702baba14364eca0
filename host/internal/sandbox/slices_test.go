package sandbox

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// grantTimes are the thread's processor times of a guest's grants.
type grantTimes struct {
	thread int
	at     int64
	all    []int64
	sum    int64
}

func (g *grantTimes) began() { g.thread, g.at = threadID(), fair.ThreadTime() }

func (g *grantTimes) ended() {
	if took := fair.ThreadTime() - g.at; threadID() == g.thread {
		g.all = append(g.all, took)
		g.sum += took
	}
}

// grants runs commands of a module for a while of the guest's processor time. It returns the thread's time of
// each grant that was used up.
func grants(t testing.TB, module []byte, during time.Duration) []int64 {
	p := mustCompile(t, module, service.Limits{CallTime: 10 * time.Second, Fuel: endless})
	var g grantTimes
	p.account.watch = &g
	i := instantiate(t, p, nil)
	for g.sum < int64(during) {
		ctx, cancel := context.WithTimeout(t.Context(), during)
		before := len(g.all)
		_, _ = i.Handle(ctx, service.GuestCall{Type: 0, ID: "id", Data: []byte(`1`)})
		cancel()
		if i.Broken() {
			if err := i.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if len(g.all) == before {
			break // its work needs no more than a grant
		}
	}
	return g.all
}

// quantile is the q-quantile of a sorted list.
func quantile(sorted []int64, q float64) time.Duration {
	return time.Duration(sorted[min(int(float64(len(sorted))*q), len(sorted)-1)])
}

// BenchmarkSlices measures how long hostile guests run between two checks of the host, in the thread's
// processor time. It fails nothing; the figures are for people.
func BenchmarkSlices(b *testing.B) {
	for _, g := range testguest.HostileGuests() {
		if g.Name == "slowinit" { // its start is a call like any other
			continue
		}
		b.Run(g.Name, func(b *testing.B) {
			module := g.Make(g.Name)
			for b.Loop() {
				all := grants(b, module, time.Second)
				if len(all) == 0 {
					continue
				}
				slices.Sort(all)
				b.ReportMetric(float64(quantile(all, .5).Microseconds()), "µs-p50")
				b.ReportMetric(float64(quantile(all, .999).Microseconds()), "µs-p99.9")
				b.ReportMetric(float64(quantile(all, 1).Microseconds()), "µs-max")
				b.ReportMetric(float64(len(all)), "grants")
			}
		})
	}
}

// Grants become so small that a slow guest does not run for long between two checks, and large again where it
// is quick.
func TestGrantsFollowTheClock(t *testing.T) {
	a := newAccount(fair.NewProcessors(1), "")
	var p pace
	run := func(nsPerUnit float64, grants int) (last int64) {
		for range grants {
			grant := p.next(a, maxGrant)
			last = int64(float64(grant) * nsPerUnit)
			p.took(last, grant)
			a.Burn(last, 1, false)
		}
		return last
	}
	if got := p.next(a, maxGrant); got != firstGrant {
		t.Errorf("the first grant is %d", got)
	}
	for _, c := range []struct {
		name      string
		nsPerUnit float64
		grant     int64
	}{
		{"quick", 0.15, maxGrant},
		{"the slowest", 150, minGrant},
		{"quick again", 0.15, maxGrant},
		{"slow", 20, 10_000},
	} {
		last := run(c.nsPerUnit, 20)
		if got := p.next(a, maxGrant); got > 2*c.grant || got < c.grant/2 {
			t.Errorf("%s: grants of %d, want about %d", c.name, got, c.grant)
		}
		if last > fair.LongLap {
			t.Errorf("%s: a grant takes %v", c.name, time.Duration(last))
		}
	}
}

// A service that was slow in large grants gets small ones in all of its instances, until it has been quick
// for long.
func TestSlownessIsForgottenSlowly(t *testing.T) {
	a := newAccount(fair.NewProcessors(1), "")
	a.slow.lower(minGrant)
	var p pace
	p.grant = maxGrant
	for served := range int64(4) {
		if got, want := p.next(a, maxGrant), int64(minGrant)<<served; got != want {
			t.Errorf("after %d quarters of a second: a grant of %d, want %d", served, got, want)
		}
		a.Burn(healing, 1, false)
	}
	a.Burn(10*healing, 1, false)
	if got := p.next(a, maxGrant); got != maxGrant {
		t.Errorf("in the end: a grant of %d", got)
	}
	a.slow.lower(maxGrant / 2)
	a.slow.lower(maxGrant / 4)
	a.slow.lower(maxGrant / 2) // not lower than the present maximum
	if got := p.next(a, maxGrant); got != maxGrant/4 {
		t.Errorf("a grant of %d", got)
	}
}

// A call whose thread had no processor does not make its service slow. One that computed for long does, if
// not at the first time.
func TestWhoWaitsForAProcessorIsNotSlow(t *testing.T) {
	const long = 5 * fair.LongLap
	i := instantiate(t, mustCompile(t, testguest.Counter("c"), service.Limits{}), nil)
	slow := &i.account.slow
	call := func(change func(*meter)) {
		t.Helper()
		if err := i.begin(t.Context(), &scene{budget: i.callBudget()}); err != nil {
			t.Fatal(err)
		}
		m := &i.meter
		thread := int64(fair.Unread)
		if m.slice.Read() {
			thread = fair.ThreadTime()
		}
		m.grantAt, m.left = m.grantAt-long, m.left-2*minGrant
		m.slice = fair.LapFrom(fair.Now()-long, thread)
		change(m)
		i.finish()
	}
	waits := func(want bool) func(*meter) {
		return func(m *meter) {
			if got := m.slice.Read(); got != want {
				t.Errorf("the thread's time is read: %v, want %v", got, want)
			}
		}
	}
	call(waits(false))
	if got := slow.ceiling(); got != maxGrant || !slow.suspected() {
		t.Errorf("after one long grant: at most %d, suspected %v", got, slow.suspected())
	}
	if fair.ThreadTime() != fair.Untold {
		call(waits(true))
		if got := slow.ceiling(); got != maxGrant {
			t.Errorf("after a grant in which the thread did nothing: at most %d", got)
		}
	}
	call(func(m *meter) {
		if now := fair.ThreadTime(); now != fair.Untold {
			m.slice = fair.LapFrom(fair.Now()-long, now-long)
		}
	})
	if got, want := slow.ceiling(), fitting(long, 2*minGrant); got > 2*want || got < want/2 {
		t.Errorf("after a grant in which the thread computed: at most %d, want about %d", got, want)
	}
	i.account.Burn(suspicion, 1, false)
	if slow.suspected() {
		t.Error("it is suspected for ever")
	}
}

// A call's time counts only what the guest computed: waiting for a processor does not end it. Here some
// instances compute concurrently, in turns; each has the whole time for itself.
func TestWaitingIsNotInACallsTime(t *testing.T) {
	const limit = 50 * time.Millisecond
	p := mustCompile(t, testguest.Counter("c"), service.Limits{CallTime: limit, Fuel: endless})
	type ended struct {
		err  error
		wall time.Duration
	}
	results := make(chan ended)
	const n = 8
	for range n {
		i := instantiate(t, p, nil)
		go func() {
			began := time.Now()
			_, err := i.Handle(context.Background(), spin)
			results <- ended{err, time.Since(began)}
		}()
	}
	var longest time.Duration
	whole := 0 // calls that had all of their time
	for range n {
		r := <-results
		switch service.KindOf(r.err) {
		case service.KindGuestDeadline:
			whole++
		case service.KindOverloaded: // the machine is so busy that patience ended
		default:
			t.Errorf("%v", r.err)
		}
		longest = max(longest, r.wall)
	}
	// Together they computed so long, in turns, on few processors.
	if minimum := time.Duration(whole) * limit / time.Duration(p.runtime.processors.Slots()+1) * 8 / 10; whole == 0 ||
		longest < minimum {
		t.Errorf("%d calls had their %v; the last of them ended after %v, want at least %v", whole, limit, longest,
			minimum)
	}
}

// A service's use is not forgotten when it is deployed again.
func TestProgramsOfAServiceShareAnAccount(t *testing.T) {
	r := newRuntime(t, Options{})
	program := func(name service.Name) *Program {
		p, err := r.Compile(t.Context(), name, testguest.Counter("c"), service.Limits{}, service.Settings{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := program("c")
	first.account.Burn(int64(time.Second), fair.Now(), true)
	second := program("c")
	if first.account != second.account || !second.account.Heavy(fair.Now()) {
		t.Error("a new program of a service has another account")
	}
	if other := program(""); other.account == first.account {
		t.Error("a program that is nobody's has somebody's account")
	} else if err := other.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, p := range []*Program{first, first, second} { // closing is idempotent
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if len(r.accounts) != 0 {
		t.Errorf("accounts are left: %v", r.accounts)
	}
}

// The host's work on a large answer is charged to the service, but does not count toward the call's time, and
// does not affect the size of grants.
func TestTheHostsWorkIsNoTimeOfTheCall(t *testing.T) {
	i := instantiate(t, mustCompile(t, testguest.Counter("c"), service.Limits{}), nil)
	if err := i.begin(t.Context(), &scene{budget: i.callBudget()}); err != nil {
		t.Fatal(err)
	}
	const guests, hosts = 5_000_000, 900_000_000
	i.meter.slice = fair.LapFrom(fair.Now()-guests, fair.Untold)
	i.hostLap()
	ran, served, grant := i.meter.ran, i.account.Served(), i.pace
	if ran < guests || ran > hosts {
		t.Errorf("the guest ran for %v", ran)
	}
	i.meter.slice, i.meter.grantAt, i.meter.left = fair.LapFrom(fair.Now()-hosts, fair.Untold), fair.Now()-hosts,
		-2*minGrant
	i.endGrant(fair.Now())
	i.lap(fair.Now(), false)
	if i.meter.ran != ran || i.pace != grant || i.account.ceiling() != maxGrant {
		t.Errorf("with the host's work the call took %v, not %v, and its grants are %v, not %v, and at most %d",
			i.meter.ran, ran, i.pace, grant, i.account.ceiling())
	}
	if got := i.account.Served() - served; got < hosts {
		t.Errorf("for %v of the host's work the service is charged %v", time.Duration(hosts), time.Duration(got))
	}
	i.finish()
}
