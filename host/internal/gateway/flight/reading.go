package flight

import (
	"context"
	"time"
)

// bodyRate is the rate that a slow client must reach with a large body, either way, in bytes a second.
const bodyRate = 64 << 10

// WriteTime is how long a client may take for size bytes that are written to it, if it has floor for a few.
func WriteTime(floor time.Duration, size int) time.Duration {
	return floor + time.Duration(size/bodyRate)*time.Second
}

// allowance is the time that a client still has to go on with a body or message. It
// begins with a floor. Time uses it up, each byte that comes earns more of it at
// bodyRate, and there is never more left than the floor. So a body that keeps the rate
// may take as long as it needs, one that trickles has the floor, and one that came
// quickly for the most part and then stops has the floor, too.
type allowance struct {
	floor time.Duration
	until time.Time
}

func newAllowance(floor time.Duration, now time.Time) allowance {
	return allowance{floor: floor, until: now.Add(floor)}
}

// earn notes that n bytes have come.
func (l *allowance) earn(n int, now time.Time) {
	l.until = l.until.Add(time.Duration(n) * time.Second / bodyRate)
	if max := now.Add(l.floor); l.until.After(max) {
		l.until = max
	}
}

// extend makes up for time in which the host let the client wait.
func (l *allowance) extend(d time.Duration) { l.until = l.until.Add(d) }

// Reading is a body or message on its way in: at a bounded rate above [Paced] bytes, and in turns when it is large.
// One goroutine uses it.
type Reading struct {
	traffic *Traffic
	ctx     context.Context
	flight  *Account
	allowed allowance
	turns   Pacer
	bytes   int // that have come
	pieces  int // that had come when the client was last seen to go on
}

// Read begins to read a body or message of a connection; end it with [Reading.End]. seen says that the client
// counts as waited for from then on, and not only from the second piece on, as what is small is not worth another
// look at the clock.
func (t *Traffic) Read(ctx context.Context, f *Account, seen bool) Reading {
	r := Reading{traffic: t, ctx: ctx, flight: f, allowed: newAllowance(t.BodyTime, time.Now())}
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
	r.allowed.earn(n, time.Now())
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
