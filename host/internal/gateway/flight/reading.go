package flight

import (
	"context"
	"time"
)

// Reading is a body or message on its way in: at a bounded rate above [Paced] bytes, and in turns when it is large.
// One goroutine uses it.
type Reading struct {
	traffic *Traffic
	ctx     context.Context
	flight  *Account
	allowed Allowance
	turns   Pacer
	bytes   int // that have come
	pieces  int // that had come when the client was last seen to go on
}

// Read begins to read a body or message of a connection; end it with [Reading.End]. seen says that the client
// counts as waited for from then on, and not only from the second piece on, as what is small is not worth another
// look at the clock.
func (t *Traffic) Read(ctx context.Context, f *Account, seen bool) Reading {
	r := Reading{traffic: t, ctx: ctx, flight: f, allowed: NewAllowance(t.BodyTime)}
	if seen {
		r.pieces = -1
	}
	return r
}

// Waits says that the client is waited for from now on. The host does so until deadline.
func (r *Reading) Waits() (deadline time.Time) {
	if r.bytes/PieceBytes != r.pieces {
		r.pieces = r.bytes / PieceBytes
		r.flight.reads()
	}
	r.turns.Rest()
	return r.allowed.until
}

// Came says that n more bytes have come. It returns when it is their turn.
func (r *Reading) Came(n int) {
	r.bytes += n
	if more := min(n, r.bytes-Paced); more > 0 {
		since := r.flight.reading.Swap(0) // meanwhile it is the host that lets the client wait
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

// End says that nothing more is read.
func (r *Reading) End() {
	r.turns.End()
	r.flight.hasRead()
}

// letIn waits until n more bytes of bodies and messages may come in, and returns for how long. The
// limiter serves in order, so each connection has its piece when all others that wait have theirs.
func (t *Traffic) letIn(ctx context.Context, n int) time.Duration {
	begin := time.Now()
	if t.Rate.WaitN(ctx, n) != nil { // the client has gone, or the host stops; the next read finds out
		return 0
	}
	return time.Since(begin)
}
