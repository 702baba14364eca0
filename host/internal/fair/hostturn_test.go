package fair

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// A service that must take turns has one for its sandboxes and for the host's work together; one that uses
// little does not wait.
func TestHostWorkTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewProcessors(1)
		heavy, light := NewAccount(g), NewAccount(g)
		now := Now() // the bubble's clock, which is before the start of the process
		g.crowd.empty.Store(now)
		light.used.empty.Store(now)
		heavy.used.empty.Store(now + 2*burst)
		guest := NewPlace(heavy)
		mustWait(t, guest)

		small := NewHostTurn(NewPlace(light))
		if err := small.Begin(t.Context()); err != nil || small.turn.Held() {
			t.Errorf("a service that uses little: %v, held %v", err, small.turn.Held())
		}
		small.End()

		large := NewHostTurn(NewPlace(heavy))
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
		guest.Release()
		<-done
		if err := large.Begin(t.Context()); err != nil || !large.turn.Held() {
			t.Errorf("going on after a rest: %v", err)
		}
		large.End()
		large.End() // is idempotent
		if len(g.holders) != 0 || len(g.queue) != 0 || g.waiting.Load() != 0 {
			t.Errorf("left: %d holders, %d in the queue", len(g.holders), len(g.queue))
		}
	})
}
