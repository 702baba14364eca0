package fair

import "context"

// HostTurn takes turns for work that the host does for a service outside of its sandboxes, such as writing a
// large answer. If the service must take turns, this work takes one, too: otherwise one service could have
// all processors, one in its sandboxes and one outside. Only one goroutine at a time may use it. It holds
// nothing before Begin and after End.
type HostTurn struct {
	turn *Place
	work Lap
	busy bool // between Begin and Rest
}

// NewHostTurn makes a HostTurn for a place, which nothing else may use meanwhile.
func NewHostTurn(p *Place) *HostTurn { return &HostTurn{turn: p} }

// Begin waits for a turn if the service must take turns, or continues one. Call it again from time to time,
// so that others get their turns. It fails when ctx ends.
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

// account charges the work since Begin.
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

// Stop ends a stretch of work that Begin has begun. The caller charges it. ok is false if there is none.
func (h *HostTurn) Stop() (work Lap, ok bool) {
	work, ok, h.busy = h.work, h.busy, false
	return work, ok
}

// Rest keeps the turn while its owner waits for someone, but lets others take it.
func (h *HostTurn) Rest() {
	h.account()
	h.turn.Pause(Now())
}

// End gives the turn up.
func (h *HostTurn) End() {
	h.account()
	h.turn.Release()
}
