package registry

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// starter starts the services that are recorded as deployed, and tries again those
// that fail.
//
// Quick ones go first, by how long their start took when they were deployed, and in
// places of their own, so that slow ones never hold up others. Who is slow is found
// out at the latest by being so: a start that has taken longer than quickStart gives
// its place back and goes on among the slow ones. Nothing ends a start for the time it
// takes; what its guest may use is the sandbox's business.
type starter struct {
	places int // for quick starts; the same number again for slow ones
	retry  lifecycle.Backoff
	rare   time.Duration // between attempts that trying again does not heal
	try    func(context.Context, *start) error
	logger *slog.Logger

	life    context.Context
	end     context.CancelFunc
	workers sync.WaitGroup
	tried   chan struct{} // closed when every service has been tried that was there at the beginning

	mu      sync.Mutex // guards all below; held for a few instructions
	closed  bool
	waiting []*start // by what they are expected to take
	running []*start
	untried int
	timer   *time.Timer // when the next one is due, or turns out to be slow; nil before it is needed
}

// quickStart is what a quick start takes at most. A person does not notice it, and
// Go guests take a twentieth of it.
const quickStart = time.Second

// overtime is how many times as many slow starts may go on, as found out after they
// had begun, as may begin.
const overtime = 4

// start is one service's way to its first engine. The starter's mu guards it.
type start struct {
	svc      *Service
	spec     service.Spec
	expected time.Duration // what it takes
	first    bool          // it counts as untried
	due      time.Time     // not before
	failed   int           // attempts in a row

	// Of the attempt under way.
	began   time.Time
	slow    bool
	dropped bool // its service has got another module, or is gone
	hurried bool // if it fails, the next attempt comes at once
	cancel  context.CancelFunc
	ended   chan struct{} // closed when it has given back what it held
}

func newStarter(o Options, try func(context.Context, *start) error) *starter {
	st := &starter{places: o.StartPlaces, retry: o.Retry, rare: o.RareRetry, try: try, logger: o.Logger,
		tried: make(chan struct{})}
	st.life, st.end = context.WithCancel(context.Background())
	return st
}

// begin starts the services of all. It is called once, before everything else.
func (st *starter) begin(all []*start) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, x := range all {
		x.first = true
		st.untried++
		st.enqueue(x)
	}
	if st.untried == 0 {
		close(st.tried)
	}
	st.step()
}

// again tries a service later that has just failed outside of the starter.
func (st *starter) again(svc *Service, spec service.Spec, err error) {
	st.mu.Lock()
	told := st.fail(&start{svc: svc, spec: spec}, err, 0)
	st.step()
	st.mu.Unlock()
	told()
}

// drop ends the attempts to start a service: the one under way is canceled, and there
// will be no others. When it has returned, they do not change the service any more; when
// ended is closed, they hold nothing of it either.
func (st *starter) drop(svc *Service) (ended <-chan struct{}) {
	st.mu.Lock()
	defer st.mu.Unlock()
	none := make(chan struct{})
	close(none)
	ended = none
	st.waiting = slices.DeleteFunc(st.waiting, func(x *start) bool {
		if x.svc == svc {
			st.over(x)
		}
		return x.svc == svc
	})
	for _, x := range st.running {
		if x.svc == svc {
			x.dropped = true
			x.cancel()
			ended = x.ended // of a service there is one at a time
		}
	}
	return ended
}

// hurry tries a service now that waits for its next attempt, or once more if the one under way fails.
func (st *starter) hurry(svc *Service) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, x := range st.running {
		if x.svc == svc {
			x.hurried = true
		}
	}
	for _, x := range st.waiting {
		if x.svc == svc {
			x.due = time.Time{}
			st.step()
			return
		}
	}
}

// close ends all attempts and waits for their end, which is near, as a guest looks
// whether its caller has gone.
func (st *starter) close() {
	st.mu.Lock()
	st.closed = true
	if st.timer != nil {
		st.timer.Stop()
	}
	for _, x := range st.waiting {
		st.over(x)
	}
	st.waiting = nil
	st.mu.Unlock()
	st.end()
	st.workers.Wait()
}

// over counts a start as tried. The caller holds mu, as for all below.
func (st *starter) over(x *start) {
	if !x.first {
		return
	}
	x.first = false
	if st.untried--; st.untried == 0 {
		close(st.tried)
	}
}

func (st *starter) enqueue(x *start) {
	at, _ := slices.BinarySearchFunc(st.waiting, x, func(a, b *start) int {
		return cmp.Or(cmp.Compare(a.expected, b.expected), cmp.Compare(a.spec.Service, b.spec.Service))
	})
	st.waiting = slices.Insert(st.waiting, at, x)
}

// step begins what can begin, and has itself called again when there will be more.
func (st *starter) step() {
	if st.closed {
		return
	}
	now := time.Now()
	var next time.Time // when to look again
	at := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	quick, slow := 0, 0
	for _, x := range st.running {
		if x.slow {
			slow++
		}
	}
	for _, x := range st.running {
		switch {
		case x.slow:
		case now.Sub(x.began) < quickStart:
			quick++
			at(x.began.Add(quickStart))
		case slow < overtime*st.places:
			x.slow = true
			slow++
		default:
			quick++ // until one of the slow ones has ended, which calls step
		}
	}
	quickWait := false // for a place; slow ones begin after them
	st.waiting = slices.DeleteFunc(st.waiting, func(x *start) bool {
		isSlow := x.expected > quickStart
		switch {
		case x.due.After(now):
			at(x.due)
			return false
		case !isSlow && quick < st.places:
			quick++
			at(now.Add(quickStart))
		case isSlow && slow < st.places && !quickWait: // these come after the quick ones
			slow++
		default:
			quickWait = quickWait || !isSlow
			return false
		}
		x.slow, x.began = isSlow, now
		st.run(x)
		return true
	})
	if next.IsZero() {
		return
	}
	if st.timer == nil {
		st.timer = time.AfterFunc(next.Sub(now), st.wake)
	} else {
		st.timer.Reset(next.Sub(now))
	}
}

// wake is step, by the timer.
func (st *starter) wake() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.step()
}

// run makes one attempt, on a goroutine of its own that close waits for.
func (st *starter) run(x *start) {
	ctx, cancel := context.WithCancel(st.life)
	ended := make(chan struct{})
	x.cancel, x.ended = cancel, ended
	st.running = append(st.running, x)
	x.svc.setStarting()
	st.workers.Go(func() {
		defer cancel()
		defer close(ended)
		err := st.try(ctx, x)
		took, told := time.Since(x.began), func() {}
		st.mu.Lock()
		st.running = slices.DeleteFunc(st.running, func(r *start) bool { return r == x })
		if err != nil && !x.dropped && !st.closed {
			told = st.fail(x, err, took)
		}
		st.over(x)
		st.step()
		st.mu.Unlock()
		told()
	})
}

// fail notes a failed attempt and has it made again after a wait. told tells those who
// wait for the service, and the log, without the lock.
func (st *starter) fail(x *start, err error, took time.Duration) (told func()) {
	x.failed++
	wait := st.retry.Wait(x.failed, took)
	if !heals(err) {
		wait = lifecycle.Backoff{First: st.rare, Max: st.rare}.Wait(1, 0)
	}
	if x.hurried {
		x.hurried, wait = false, 0
	}
	x.due, x.expected = time.Now().Add(wait), took
	answers, failed := x.svc.setFailed(err, x.failed, x.due), x.failed
	st.enqueue(x)
	return func() {
		st.logger.Error("a service cannot be started", "service", x.spec.Service, "error", err, "attempts", failed,
			"next_attempt_in", wait)
		for _, answer := range answers {
			answer()
		}
	}
}

// heals reports whether a start that failed with err may succeed if it is just tried
// again. What the module itself does wrong it does each time.
func heals(err error) bool {
	switch service.KindOf(err) {
	case service.KindBadModule, service.KindConflicting, service.KindInvalid, service.KindNotFound,
		service.KindTooLarge, service.KindUnsupported:
		return false
	}
	return true
}
