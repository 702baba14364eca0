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

// condition is the visible state of a shard's sandbox, with the number of failed attempts in a row
// to make or reset it. It is immutable; the shard's goroutine replaces it.
type condition struct {
	state service.State
	service.Attempts
}

// health publishes the condition of a shard's sandbox. Any goroutine may read it.
type health struct{ atomic.Pointer[condition] }

// up reports whether the sandbox takes calls.
func (h *health) up() bool { return h.Load().state == service.StateRunning }

func (h *health) set(state service.State, a service.Attempts) {
	h.Store(&condition{state, a})
}

// shardRunning is shared, so that a reset does not allocate.
var shardRunning = &condition{state: service.StateRunning}

// renew makes the shard's sandbox, or resets it if there is one. If that fails, the sandbox is
// broken, and the first request after the wait makes usable try again.
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
		s.logger.Error("the shard's sandbox cannot be set up", "error", err, "attempts", a.Failed,
			"next_attempt_in", wait)
	}
}

// renewIfDue renews a broken guest, unless it is too early for another attempt.
func (s *shard) renewIfDue() {
	if s.broken && s.starts.Err() == nil && !time.Now().Before(s.health.Load().NextAttempt) {
		s.renew()
	}
}

// usable returns nil if the guest can be called, after an attempt to repair it if that is due.
// Otherwise it returns the reason.
func (s *shard) usable() error {
	if !s.broken {
		return nil
	}
	if s.starts.Err() != nil {
		return s.unavailable(nil, "the service was stopped while the command waited for its sandbox; nothing was "+
			"written")
	}
	if s.renewIfDue(); !s.broken {
		return nil
	}
	if why := s.engine.own(s.why); why.Kind == service.KindQuota { // the operator has to act
		own := *why
		own.Message = "the service's sandbox cannot be set up: " + own.Message + "; nothing was written"
		return &own
	}
	err := s.unavailable(nil, "the service's sandbox cannot be set up at present; nothing was written")
	err.RetryAfter = max(minRetry, time.Until(s.health.Load().NextAttempt))
	return err
}

// startTimer bounds the wait of a task for its shard's sandbox. When the task's deadline passes,
// or the engine's patience ends, the timer refuses the task, and the shard skips it. If the
// sandbox runs, the task waits for other tasks only and needs no timer. startTimer fails if the
// deadline has passed and the shard would reach the task only long after.
func (t *task) startTimer() error {
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
			return nil // the shard reaches it soon, and checks the deadline
		}
		return s.engine.errorf(service.KindDeadline, "the deadline passed before the command ran; nothing was written")
	}
	if t.command.Claim == nil {
		t.command.Claim = new(service.Claim)
	}
	claim := t.command.Claim // copied: when the timer fires, the task has another owner
	t.timer = time.AfterFunc(wait, func() {
		if claim.Refuse() {
			t.fail(s.engine.starting())
		}
	})
	return nil
}

// wanted reports whether the task justifies a start of the sandbox: it was not refused, and its
// deadline is still ahead.
func (t *task) wanted() bool {
	d := t.command.Deadline
	return !t.command.Claim.Refused() && (d.IsZero() || time.Now().Before(d))
}

// begin takes the task's claim. It returns false if the task was refused, and so answered, before.
func (t *task) begin() bool {
	if t.timer != nil {
		t.timer.Stop()
	}
	return t.command.Claim.Begin()
}

// starting is the error of a request that waited too long for a sandbox.
func (e *Engine) starting() *service.Error {
	err := e.errorf(service.KindUnavailable, "the service's sandbox is still starting; nothing was written")
	err.RetryAfter = startRetry
	return err
}

// startRetry is the RetryAfter of a request that waited too long for a sandbox.
const startRetry = time.Second

// Starting returns nil if the sandbox of the shard that owns key runs. Otherwise it returns the
// error of a request that cannot wait for it.
func (e *Engine) Starting(key service.Key) error {
	if e.shards[shardOf(key, len(e.shards))].health.up() {
		return nil
	}
	return e.starting()
}

// CancelStarts ends the sandbox starts in progress and prevents further ones. Requests that wait
// for a sandbox are refused. It is for a Stop that must not wait for starts.
func (e *Engine) CancelStarts() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.startsCanceled = true
	if e.cancelStarts != nil {
		e.cancelStarts(errPatience)
	}
}
