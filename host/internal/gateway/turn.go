package gateway

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// paced is the size of a body or message, in bytes, from which on it comes in at the rate that
// all have together.
const paced = 16 << 10

// bodyBurst is how many bytes may come in at once. Others feel a burst of megabytes.
const bodyBurst = 256 << 10

const _ = uint(bodyBurst - pieceBytes) // a piece that were larger would not be waited for

// large is the size of a body, message or reply, in bytes, from which on it is read, looked at
// and written in turns with others: that takes milliseconds, for which small commands would
// wait.
const large = 64 << 10

// pacer has large bodies read, and large answers made, in turns. The zero value has none.
type pacer struct {
	turn service.Turn
	ctx  context.Context
}

// pace begins a turn for so many bytes of a service, if these are many; nobody's service has
// no name. End it with end. Without a turn, as too many wait, the work is done all the same:
// an answer may be the only word that a client gets of what was done.
func (s *Server) pace(ctx context.Context, name service.Name, size int) (p pacer) {
	if size < large {
		return p
	}
	p = pacer{s.owner.Turn(ctx, name), ctx}
	p.begin()
	return p
}

// begin goes on, when others have had their turn.
func (p *pacer) begin() {
	if p.turn != nil && p.turn.Begin(p.ctx) != nil {
		p.turn = nil
	}
}

func (p *pacer) rest() {
	if p.turn != nil {
		p.turn.Rest()
	}
}

func (p *pacer) end() {
	if p.turn != nil {
		p.turn.End()
	}
	*p = pacer{}
}
