package fair

import (
	"testing"
	"testing/synctest"
	"time"
)

// Work in the background takes a turn for all that it does, however little, and gets one only when no service
// waits for one.
func TestTheBackgroundGoesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewProcessors(1)
		behind, busy := NewBackground(g), NewAccount(g)
		if now := Now(); !behind.Heavy(now) || !behind.Background() || busy.Background() {
			t.Error("the background works without a turn")
		}
		busy.Burn(100*debt, Now(), true) // no service has more use
		holder := NewPlace(busy)
		mustWait(t, holder)
		order := make(chan string, 3)
		wait := func(name string, a *Account) {
			turn := NewPlace(a)
			mustWait(t, turn)
			order <- name
			turn.Release()
		}
		go wait("background", behind)
		synctest.Wait()
		go wait("service", NewAccount(g))
		synctest.Wait()
		go wait("busy service", busy)
		synctest.Wait()
		holder.Release()
		for k := range 3 {
			if got := <-order; (got == "background") != (k == 2) {
				t.Errorf("turn %d went to the %s", k, got)
			}
		}
	})
}

// It gives its turn up when a service waits, whatever is left of the turn, and its idle turn is taken at once.
// Where nobody waits it goes on.
func TestTheBackgroundGivesItsTurnUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewProcessors(1)
		behind := NewPlace(NewBackground(g))
		mustWait(t, behind)
		behind.Spend(10 * turnTime)
		if !behind.Renew(Now()) {
			t.Error("it does not go on although nobody waits")
		}
		service, done := NewPlace(NewAccount(g)), make(chan struct{})
		go func() {
			mustWait(t, service)
			close(done)
		}()
		synctest.Wait()
		if behind.Renew(Now()) {
			t.Error("it goes on although a service waits")
		}
		<-done
		service.Release()

		mustWait(t, behind)
		behind.Pause(Now())
		before := time.Now()
		mustWait(t, service)
		if took := time.Since(before); took > 0 || behind.Resume() {
			t.Errorf("a service waited %v for an idle turn", took)
		}
		// A service's own idle turn is still held for a while.
		service.Pause(Now())
		mustWait(t, behind)
		if took := time.Since(before); took < idleTurn {
			t.Errorf("the background took an idle turn after %v", took)
		}
	})
}
