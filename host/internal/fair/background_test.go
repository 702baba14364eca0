package fair

import (
	"testing"
	"testing/synctest"
	"time"
)

// processors are one processor, by a clock that begins now: in a bubble of synctest, Now is negative.
func processors() *Processors {
	g, began := NewProcessors(1), time.Now()
	g.now = func() int64 { return int64(time.Since(began)) + int64(time.Second) }
	return g
}

// Work in the background takes a turn for all that it does, however little, and gets one only when no service
// waits for one.
func TestTheBackgroundGoesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := processors()
		behind, busy := NewBackground(g), NewAccount(g)
		if now := g.now(); !behind.Heavy(now) || !behind.Background() || busy.Background() {
			t.Error("the background works without a turn")
		}
		busy.Burn(100*debt, g.now(), true) // no service has more use
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
		g := processors()
		behind := NewPlace(NewBackground(g))
		mustWait(t, behind)
		behind.Spend(10 * turnTime)
		if !behind.Renew(g.now()) {
			t.Error("it does not go on although nobody waits")
		}
		service, done := NewPlace(NewAccount(g)), make(chan struct{})
		go func() {
			mustWait(t, service)
			close(done)
		}()
		synctest.Wait()
		if behind.Renew(g.now()) {
			t.Error("it goes on although a service waits")
		}
		<-done
		service.Release()

		mustWait(t, behind)
		behind.Pause(g.now())
		before := time.Now()
		mustWait(t, service)
		if took := time.Since(before); took > 0 || behind.Resume() {
			t.Errorf("a service waited %v for an idle turn", took)
		}
		// A service's own idle turn is still held for a while.
		service.Pause(g.now())
		mustWait(t, behind)
		if took := time.Since(before); took < idleTurn {
			t.Errorf("the background took an idle turn after %v", took)
		}
	})
}

// Where services always want all turns, it gets one from time to time, and keeps that one as a service would.
func TestTheBackgroundIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := processors()
		over := make(chan struct{})
		ended := make(chan struct{})
		for range 3 {
			busy := NewAccount(g)
			busy.Burn(100*debt, g.now(), true)
			go func() {
				defer func() { ended <- struct{}{} }()
				for turn := NewPlace(busy); ; {
					select {
					case <-over:
						return
					default:
					}
					mustWait(t, turn)
					time.Sleep(turnTime)
					busy.Burn(turnTime, g.now(), true)
					turn.Release()
				}
			}()
		}
		synctest.Wait()
		behind := NewPlace(NewBackground(g))
		for range 10 {
			before := time.Now()
			mustWait(t, behind)
			if took := time.Since(before); took < backgroundWait || took > backgroundWait+debt+4*turnTime {
				t.Errorf("it waited %v", took)
			}
			behind.Spend(turnTime - 1)
			if !behind.Renew(g.now()) {
				t.Error("it gives up what it has waited for")
			}
			behind.Spend(1)
			if behind.Renew(g.now()) {
				t.Error("it goes on after its turn")
			}
		}
		close(over)
		for range 3 {
			<-ended
		}
	})
}
