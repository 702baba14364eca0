package sandbox

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Why a guest was stopped.
const (
	stopNone int32 = iota
	stopDeadline
	stopCanceled
)

// guestContext is the context that wazero and the host functions see. wazero
// ends the guest when it is done: at the next loop head, which prepare.go makes
// sure that every way through the guest comes by.
//
// There is one for each incarnation of an instance, not one a call, so that a
// call allocates none. That is sound because a guest that was stopped is never
// entered again.
type guestContext struct {
	instance *Instance
	done     chan struct{}
	reason   atomic.Int32
}

func newGuestContext(i *Instance) *guestContext {
	return &guestContext{instance: i, done: make(chan struct{})}
}

// stop ends the guest. The first reason counts.
func (c *guestContext) stop(reason int32) {
	if c.reason.CompareAndSwap(stopNone, reason) {
		close(c.done)
	}
}

// Deadline implements context.Context. The watchdog's deadline moves with each
// call, so there is none to tell.
func (c *guestContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (c *guestContext) Done() <-chan struct{} { return c.done }

// Err implements context.Context.
func (c *guestContext) Err() error {
	switch c.reason.Load() {
	case stopDeadline:
		return context.DeadlineExceeded
	case stopCanceled:
		return context.Canceled
	}
	return nil
}

// Value implements context.Context. It hands the instance to host functions.
func (c *guestContext) Value(key any) any {
	if _, ok := key.(instanceKey); ok {
		return c.instance
	}
	return nil
}

type instanceKey struct{}

// watchdog bounds the wall time of calls and ends them when their caller goes
// away. It has one timer, which a call does not touch as long as it is armed
// for no later than the call's deadline: when it fires early it arms itself
// again. So a busy instance pays for it once a second, not once a call.
type watchdog struct {
	mu       sync.Mutex // guards all below; held for a few instructions only
	guest    *guestContext
	running  bool
	deadline time.Time // of the running call
	timer    *time.Timer
	armed    time.Time // when the timer fires; zero if it does not
	watched  <-chan struct{}
	unwatch  func() bool
	closed   bool
}

// begin starts the clock of one call. It fails if ctx is done already; then the
// guest must not be entered.
func (w *watchdog) begin(ctx context.Context, limit time.Duration) error {
	now := time.Now()
	deadline := now.Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return context.Canceled
	}
	// Looked at under the lock: a watch from an earlier call that fires before this
	// point finds no call running and does nothing; after it, it finds this one.
	if err := ctx.Err(); err != nil {
		return err
	}
	w.running, w.deadline = true, deadline
	if w.armed.IsZero() || deadline.Before(w.armed) {
		w.armed = deadline
		if w.timer == nil {
			w.timer = time.AfterFunc(deadline.Sub(now), w.fire)
		} else {
			w.timer.Reset(deadline.Sub(now))
		}
	}
	// Callers tend to come with the same context again and again, so its watch is
	// kept from call to call. Done channels tell contexts apart; contexts
	// themselves need not be comparable.
	if done := ctx.Done(); done != w.watched {
		if w.unwatch != nil {
			w.unwatch()
		}
		w.watched, w.unwatch = done, nil
		if done != nil {
			w.unwatch = context.AfterFunc(ctx, func() { w.canceled(ctx, done) })
		}
	}
	return nil
}

// end stops the clock and says whether the call was stopped.
func (w *watchdog) end() int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = false
	return w.guest.reason.Load()
}

// fire runs when the timer does.
func (w *watchdog) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = time.Time{}
	if !w.running || w.closed {
		return
	}
	if rest := time.Until(w.deadline); rest > 0 {
		w.armed = w.deadline
		w.timer.Reset(rest)
		return
	}
	w.guest.stop(stopDeadline)
}

// canceled runs when a watched context is done.
func (w *watchdog) canceled(ctx context.Context, done <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.running || w.watched != done {
		return // of an earlier call
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		w.guest.stop(stopDeadline)
	} else {
		w.guest.stop(stopCanceled)
	}
}

// renew makes the watchdog watch a new incarnation.
func (w *watchdog) renew(g *guestContext) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.guest = g
}

// close ends the watchdog for good.
func (w *watchdog) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.unwatch != nil {
		w.unwatch()
		w.unwatch, w.watched = nil, nil
	}
}
