package sandbox

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// A service that has to take turns has one for its sandboxes and for the host's work
// together; one that uses little does not wait.
func TestHostWorkTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		heavy, light := &account{gate: g}, &account{gate: g}
		now := clock() // the bubble's, which is before the process began
		g.crowd.empty.Store(now)
		light.used.empty.Store(now)
		heavy.used.empty.Store(now + 2*burst)
		guest := newTurn(heavy)
		mustWait(t, guest)

		small := HostTurn{turn: newTurn(light)}
		if err := small.Begin(t.Context()); err != nil || small.turn.held() {
			t.Errorf("a service that uses little: %v, held %v", err, small.turn.held())
		}
		small.End()

		large := HostTurn{turn: newTurn(heavy)}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := large.Begin(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting for a turn under a context that has ended: %v", err)
		}
		var began atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := large.Begin(t.Context()); err != nil {
				t.Error(err)
			}
			began.Store(true)
			large.Rest()
		}()
		synctest.Wait()
		if began.Load() {
			t.Error("the host's work began while the service's guest had the only turn")
		}
		guest.release()
		<-done
		if err := large.Begin(t.Context()); err != nil || !large.turn.held() {
			t.Errorf("going on after a rest: %v", err)
		}
		large.End()
		large.End() // is idempotent
		if len(g.holders) != 0 || len(g.queue) != 0 || g.waiting.Load() != 0 {
			t.Errorf("left: %d holders, %d in the queue", len(g.holders), len(g.queue))
		}
	})
}
