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

// starter starts the services that are recorded as deployed, and tries those that fail again.
//
// Services that start quickly go first, in the order of how long their start took when they were deployed.
// They have their own places, so that slow ones never delay them. If a start takes longer than quickStart, it
// gives its place back and goes on among the slow ones. The time alone never ends a start; the sandbox limits
// what its guest may use.
type starter struct {
	places int // for quick starts; the same number again for slow ones
	retry  lifecycle.Backoff
	rare   time.Duration // wait between attempts if another attempt is not expected to help
	try    func(context.Context, *start) error
	logger *slog.Logger

	life  context.Context
	end   context.CancelFunc
	runs  lifecycle.Life // the attempts
	tried chan struct{}  // closed when every service of the first begin has been tried

	mu      sync.Mutex // guards all below; held for a few instructions
	closed  bool
	waiting []*start // ordered by expected duration
	running []*start
	untried int
	timer   *time.Timer // when the next start is due, or a quick one turns out to be slow; nil before its first use
}

// quickStart is the maximum duration of a quick start. People do not notice it, and Go guests take a
// twentieth of it.
const quickStart = time.Second

// overtime bounds starts that turn out to be slow while they run: there may be overtime times as many as
// there are places.
const overtime = 4

// start is a service that has no engine yet. The starter's mu guards it.
type start struct {
	svc      *Service
	spec     service.Spec
	expected time.Duration // expected duration
	first    bool          // it counts as untried
	due      time.Time     // earliest time
	failed   int           // failed attempts in a row

	// Of the attempt in progress.
	began   time.Time
	slow    bool
	dropped bool // its service has got another module, or was deleted
	hurried bool // if it fails, the next attempt follows immediately
	cancel  context.CancelFunc
	ended   chan struct{} // closed when it has freed everything
}

func newStarter(o Options, try func(context.Context, *start) error) *starter {
	st := &starter{places: o.StartPlaces, retry: o.Retry, rare: o.RareRetry, try: try, logger: o.Logger,
		tried: make(chan struct{})}
	st.life, st.end = context.WithCancel(context.Background())
	return st
}

// begin starts the given services. It is called once, before everything else.
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

// again tries a service again, later, after it failed outside of the starter.
func (st *starter) again(svc *Service, spec service.Spec, err error) {
	st.mu.Lock()
	told := st.fail(&start{svc: svc, spec: spec}, err, 0)
	st.step()
	st.mu.Unlock()
	told()
}

// drop ends the attempts to start a service: it cancels the one in progress and prevents others. When it has
// returned, they no longer change the service. When ended is closed, they no longer hold anything of it.
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
			ended = x.ended // a service has at most one
		}
	}
	return ended
}

// hurry tries a service immediately that waits for its next attempt. If an attempt in progress fails, another
// follows immediately.
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

// close ends all attempts and waits for them. They end soon, as guests check whether their caller has gone.
func (st *starter) close() { _ = st.runs.Close(context.Background(), st.cancel, nil) }

func (st *starter) cancel() {
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
}

// over counts a start as tried. The caller holds mu, here and below.
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

// step begins the starts that may begin, and sets the timer for the next step.
func (st *starter) step() {
	if st.closed {
		return
	}
	now := time.Now()
	var next time.Time // of the next step
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
			quick++ // until a slow start ends, which calls step
		}
	}
	quickWait := false // a quick one waits for a place; slow ones begin after it
	st.waiting = slices.DeleteFunc(st.waiting, func(x *start) bool {
		isSlow := x.expected > quickStart
		switch {
		case x.due.After(now):
			at(x.due)
			return false
		case !isSlow && quick < st.places:
			quick++
			at(now.Add(quickStart))
		case isSlow && slow < st.places && !quickWait: // slow ones come after the quick ones
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

// wake is step, called by the timer.
func (st *starter) wake() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.step()
}

// run makes one attempt, on its own goroutine. close waits for it.
func (st *starter) run(x *start) {
	ctx, cancel := context.WithCancel(st.life)
	ended := make(chan struct{})
	x.cancel, x.ended = cancel, ended
	st.running = append(st.running, x)
	x.svc.setStarting()
	st.runs.Go(func() {
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

// fail records a failed attempt and plans the next one. told informs those who wait for the service, and the
// log; call it without the lock.
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

// heals reports whether a start that failed with err may succeed later. A module's own errors repeat.
func heals(err error) bool {
	switch service.KindOf(err) {
	case service.KindBadModule, service.KindConflicting, service.KindInvalid, service.KindNotFound,
		service.KindTooLarge, service.KindUnsupported:
		return false
	}
	return true
}
