package engine

import (
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Defaults of [Options].
const (
	defaultFirstRetry = 10 * time.Millisecond
	defaultMaxRetry   = 5 * time.Second
	defaultPatience   = time.Minute
)

// condition is what others see of a shard's sandbox: its state, and the attempts to
// make it or to reset it that failed in a row. The shard's goroutine replaces it.
type condition struct {
	state service.State
	service.Attempts
}

// health is the condition of a shard's sandbox, for everybody.
type health struct{ atomic.Pointer[condition] }

// up reports whether the sandbox takes calls.
func (h *health) up() bool { return h.Load().state == service.StateRunning }

func (h *health) set(state service.State, a service.Attempts) {
	h.Store(&condition{state, a})
}

// shardRunning is shared, as it is set after every reset.
var shardRunning = &condition{state: service.StateRunning}

// renew makes the shard's sandbox, or makes it as new. If that fails it is broken, and
// usable tries again when a request comes after the wait.
func (s *shard) renew() {
	a := s.health.Load().Attempts
	a.NextAttempt = time.Time{}
	s.health.set(service.StateStarting, a)
	began := time.Now()
	var err error
	if s.guest == nil {
		var g Guest
		if g, err = s.engine.options.NewGuest(s.starts, s.number); err == nil {
			s.guest = g
		}
	} else {
		err = s.guest.Reset(s.starts)
	}
	if err == nil {
		s.broken, s.why = false, nil
		s.health.Store(shardRunning)
		return
	}
	s.broken, s.why = true, err
	a.Failed++
	a.Problem = s.engine.own(err).Error()
	wait := s.engine.options.Retry.Wait(a.Failed, time.Since(began))
	a.NextAttempt = time.Now().Add(wait)
	s.health.set(service.StateFailed, a)
	if s.starts.Err() == nil {
		s.logger.Error("the shard's sandbox cannot be set up", "error", err, "attempts", a.Failed, "next_attempt_in", wait)
	}
}

// cure makes the guest usable if it is not, unless it is too early for another attempt.
func (s *shard) cure() {
	if s.broken && s.starts.Err() == nil && !time.Now().Before(s.health.Load().NextAttempt) {
		s.renew()
	}
}

// usable reports whether the guest can be called, and tries to make it so. It
// returns why not.
func (s *shard) usable() error {
	if !s.broken {
		return nil
	}
	if s.starts.Err() != nil {
		return s.unavailable(nil, "the service was stopped while the command waited for its sandbox; nothing was written")
	}
	if s.cure(); !s.broken {
		return nil
	}
	if why := s.engine.own(s.why); why.Kind == service.KindQuota { // which somebody has to act on
		own := *why
		own.Message = "the service's sandbox cannot be set up: " + own.Message + "; nothing was written"
		return &own
	}
	err := s.unavailable(nil, "the service's sandbox cannot be set up at present; nothing was written")
	err.RetryAfter = max(minRetry, time.Until(s.health.Load().NextAttempt))
	return err
}

// expect arms the timer of a task that has to wait for its shard's sandbox: when its
// deadline passes, or the engine's patience ends, it is refused, and the shard passes
// it by. A task that waits for others only has no timer: its shard gets to it soon.
// It fails if that would be long after the deadline.
func (t *task) expect() error {
	s := t.shard
	now := s.health.Load()
	if now.state == service.StateRunning {
		return nil
	}
	wait := s.engine.options.Patience
	if d := t.command.Deadline; !d.IsZero() {
		wait = min(wait, time.Until(d))
	}
	if wait <= 0 {
		if now.state != service.StateStarting {
			return nil // the shard gets to it soon, and sees the deadline
		}
		return s.engine.errorf(service.KindDeadline, "the deadline passed before the command ran; nothing was written")
	}
	if t.command.Claim == nil {
		t.command.Claim = new(service.Claim)
	}
	claim := t.command.Claim // of the task, which belongs to somebody else when the timer fires
	t.timer = time.AfterFunc(wait, func() {
		if claim.Refuse() {
			t.fail(s.engine.starting())
		}
	})
	return nil
}

// wanted reports whether a sandbox should be started for the task.
func (t *task) wanted() bool {
	d := t.command.Deadline
	return !t.command.Claim.Refused() && (d.IsZero() || time.Now().Before(d))
}

// begin takes the task's claim; false if somebody has refused it, and answered.
func (t *task) begin() bool {
	if t.timer != nil {
		t.timer.Stop()
	}
	return t.command.Claim.Begin()
}

// starting is the answer to a request that has waited for a sandbox in vain.
func (e *Engine) starting() *service.Error {
	err := e.errorf(service.KindUnavailable, "the service's sandbox is still starting; nothing was written")
	err.RetryAfter = startRetry
	return err
}

// startRetry is when a request that has waited for a sandbox in vain may come again.
const startRetry = time.Second

// Starting returns the error of a request for an entity that has to wait for its
// shard's sandbox, or nil if it does not have to.
func (e *Engine) Starting(key service.Key) error {
	if e.shards[shardOf(key, len(e.shards))].health.up() {
		return nil
	}
	return e.starting()
}

// CancelStarts ends the starts of sandboxes that are under way, and begins none any
// more: requests that wait for one are refused. It is for a Stop that shall not wait for them.
func (e *Engine) CancelStarts() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.startsOver = true
	if e.cancelStarts != nil {
		e.cancelStarts(errPatience)
	}
}
