package sandbox

import "context"

// HostTurn is a place at the gate for work that the host does for a service outside of
// its sandboxes, such as writing a large answer. Work of a service that has to take turns
// takes one for that, too: else one service could have all processors, one in its
// sandboxes and one outside. One goroutine at a time uses it. It holds nothing before
// Begin and after End.
type HostTurn struct {
	turn *turn
	work lap
	busy bool // between Begin and Rest
}

// HostTurn makes a place at the gate.
func (p *Program) HostTurn() *HostTurn { return &HostTurn{turn: newTurn(p.account)} }

// Begin waits for a turn, if the service has to take turns, or goes on with one. It is
// called again now and then, so that others have theirs. It fails when ctx ends.
func (h *HostTurn) Begin(ctx context.Context) error {
	h.account()
	now := clock()
	if h.turn.resume() || h.turn.held() {
		if h.turn.renew(now) {
			h.begin(now)
			return nil
		}
	} else if !h.turn.account.heavy(now) {
		h.begin(now)
		return nil
	}
	if err := h.turn.wait(&meter{ctx: ctx, budget: budget{patient: true}}); err != nil {
		return err
	}
	h.begin(clock())
	return nil
}

func (h *HostTurn) begin(now int64) { h.work, h.busy = startLap(now, false), true }

// account charges what was done since Begin.
func (h *HostTurn) account() {
	if !h.busy {
		return
	}
	h.busy = false
	now := clock()
	work := h.work.took(now, false)
	h.turn.credit -= work
	h.turn.account.burn(work, now, h.turn.held())
}

// Rest keeps the turn, but lets others take it away: its owner waits for somebody.
func (h *HostTurn) Rest() {
	h.account()
	h.turn.pause(clock())
}

// End gives the turn up.
func (h *HostTurn) End() {
	h.account()
	h.turn.release()
}
