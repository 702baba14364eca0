package flight

import (
	"context"
	"time"
)

// Reading is a body or message on its way in. Above [Paced] bytes its rate is limited, and if it is large it
// takes turns. Only one goroutine uses it.
type Reading struct {
	traffic *Traffic
	ctx     context.Context
	flight  *Account
	allowed Allowance
	turns   Pacer
	bytes   int // that have arrived
	pieces  int // that had arrived when progress was last recorded
}

// Read begins to read a body or message of a connection; end it with [Reading.End]. seen says that the host
// waits for the client from now on. Otherwise it does so from the second piece on, to save a reading of the
// clock for small bodies.
func (t *Traffic) Read(ctx context.Context, f *Account, seen bool) Reading {
	r := Reading{traffic: t, ctx: ctx, flight: f, allowed: NewAllowance(t.BodyTime)}
	if seen {
		r.pieces = -1
	}
	return r
}

// Waits records that the host waits for the client from now on, until deadline.
func (r *Reading) Waits() (deadline time.Time) {
	if r.bytes/PieceBytes != r.pieces {
		r.pieces = r.bytes / PieceBytes
		r.flight.reads()
	}
	r.turns.Rest()
	return r.allowed.until
}

// Came records that n more bytes have arrived. It returns when it is their turn.
func (r *Reading) Came(n int) {
	r.bytes += n
	if more := min(n, r.bytes-Paced); more > 0 {
		since := r.flight.reading.Swap(0) // meanwhile the client waits for the host
		waited := r.traffic.letIn(r.ctx, more)
		r.allowed.extend(waited)
		if since > 0 {
			r.flight.reading.Store(since + int64(waited))
		}
	}
	if r.turns.Begin(); r.turns.turn == nil {
		r.turns = r.traffic.Pace(r.ctx, "", r.bytes)
	}
	r.allowed.Earn(n)
}

// End ends the reading.
func (r *Reading) End() {
	r.turns.End()
	r.flight.hasRead()
}

// letIn waits until n more bytes may come in under the rate limit, and returns how long that took. The
// limiter serves in order, so each connection gets its piece after those that wait already.
func (t *Traffic) letIn(ctx context.Context, n int) time.Duration {
	begin := time.Now()
	if t.Rate.WaitN(ctx, n) != nil { // the client has gone, or the host stops; the next read fails
		return 0
	}
	return time.Since(begin)
}
