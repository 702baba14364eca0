package fair

import "context"

// HostTurn has turns for work that the host does for a service outside of its sandboxes, such as
// writing a large answer. Work of a service that has to take turns
// takes one for that, too: else one service could have all processors, one in its
// sandboxes and one outside. One goroutine at a time uses it. It holds nothing before
// Begin and after End.
type HostTurn struct {
	turn *Place
	work Lap
	busy bool // between Begin and Rest
}

// NewHostTurn makes the host's turns of a place, which has no other user meanwhile.
func NewHostTurn(p *Place) *HostTurn { return &HostTurn{turn: p} }

// Begin waits for a turn, if the service has to take turns, or goes on with one. It is
// called again now and then, so that others have theirs. It fails when ctx ends.
func (h *HostTurn) Begin(ctx context.Context) error {
	h.account()
	now := Now()
	if h.turn.Resume() || h.turn.Held() {
		if h.turn.Renew(now) {
			h.begin(now)
			return nil
		}
	} else if !h.turn.account.Heavy(now) {
		h.begin(now)
		return nil
	}
	if err := h.turn.Wait(&Waiter{Context: ctx, Patient: true}); err != nil {
		return err
	}
	h.begin(Now())
	return nil
}

func (h *HostTurn) begin(now int64) { h.work, h.busy = StartLap(now, false), true }

// account charges what was done since Begin.
func (h *HostTurn) account() {
	if !h.busy {
		return
	}
	h.busy = false
	now := Now()
	work := h.work.Took(now, false)
	h.turn.Spend(work)
	h.turn.account.Burn(work, now, h.turn.Held())
}

// Stop ends a stretch of work that Begin has begun, and leaves it to the caller to charge it. ok is
// false if there is none.
func (h *HostTurn) Stop() (work Lap, ok bool) {
	work, ok, h.busy = h.work, h.busy, false
	return work, ok
}

// Rest keeps the turn, but lets others take it away: its owner waits for somebody.
func (h *HostTurn) Rest() {
	h.account()
	h.turn.Pause(Now())
}

// End gives the turn up.
func (h *HostTurn) End() {
	h.account()
	h.turn.Release()
}
