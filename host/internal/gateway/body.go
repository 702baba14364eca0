package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// bodyRate is what a slow client must reach with a large body, either way, in
// bytes a second.
const bodyRate = 64 << 10

// firstRead bounds what is set aside for a body before any of it has come.
const firstRead = 64 << 10

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
	if most := now.Add(l.floor); l.until.After(most) {
		l.until = most
	}
}

// extend makes up for time in which the host let the client wait.
func (l *allowance) extend(d time.Duration) { l.until = l.until.Add(d) }

// reading is a body or message on its way in: at a bounded rate from paced on, and in turns from
// large on. One goroutine uses it.
type reading struct {
	server  *Server
	ctx     context.Context
	flight  *flight
	allowed allowance
	turns   pacer
	bytes   int // that have come
	pieces  int // that had come when the client was last seen to go on
}

// reading begins. seen says that the client counts as waited for from then on, and not only from
// the second piece on, as what is small is not worth another look at the clock.
func (s *Server) reading(ctx context.Context, f *flight, seen bool) reading {
	r := reading{server: s, ctx: ctx, flight: f, allowed: newAllowance(s.options.BodyTime, time.Now())}
	if seen {
		r.pieces = -1
	}
	return r
}

// waits says that the client is waited for from now on. The host does so until deadline.
func (r *reading) waits() (deadline time.Time) {
	if r.bytes/pieceBytes != r.pieces {
		r.pieces = r.bytes / pieceBytes
		r.flight.reads()
	}
	r.turns.rest()
	return r.allowed.until
}

// came says that n more bytes have come. It returns when it is their turn.
func (r *reading) came(n int) {
	r.bytes += n
	if more := min(n, r.bytes-paced); more > 0 {
		since := r.flight.reading.Swap(0) // meanwhile it is the host that lets the client wait
		waited := r.server.intake(r.ctx, more)
		r.allowed.extend(waited)
		if since > 0 {
			r.flight.reading.Store(since + int64(waited))
		}
	}
	if r.turns.begin(); r.turns.turn == nil {
		r.turns = r.server.pace(r.ctx, "", r.bytes)
	}
	r.allowed.earn(n, time.Now())
}

func (r *reading) end() {
	r.turns.end()
	r.flight.read()
}

// intake waits until n more bytes of bodies and messages may come in, and says for how long. The
// limiter serves in order, so each connection has its piece when all others that wait have theirs.
func (s *Server) intake(ctx context.Context, n int) time.Duration {
	begin := time.Now()
	if s.bodies.WaitN(ctx, n) != nil { // the client has gone, or the host stops; whoever reads finds out
		return 0
	}
	return time.Since(begin)
}

// readBody reads a request's body of at most limit bytes, in its time. It is the
// answer's until that has ended.
func (s *Server) readBody(a *answer, r *http.Request, limit int64) ([]byte, error) {
	return s.readInto(a, r, limit, a.hold)
}

// readInto is readBody, which asks hold before it makes a buffer, with its capacity,
// and calls what that returns when the buffer has taken the place of the one before.
// An error of hold ends the reading.
func (s *Server) readInto(
	a *answer, r *http.Request, limit int64, hold func(capacity int64) (copied func(), err error),
) ([]byte, error) {
	tooLarge := func() error {
		return service.Errorf(service.KindTooLarge, "the body is larger than the %d bytes allowed", limit)
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	if r.ContentLength > limit {
		a.Header().Set("Connection", "close") // what is on its way is not read
		return nil, tooLarge()
	}
	body := http.MaxBytesReader(a.ResponseWriter, r.Body, limit)
	first := max(512, min(r.ContentLength+1, firstRead))
	refused := func(err error) ([]byte, error) {
		a.Header().Set("Connection", "close")
		return nil, err
	}
	if _, err := hold(first); err != nil {
		return refused(err)
	}
	b := make([]byte, 0, first)
	reading := s.reading(r.Context(), a.flight, true)
	defer reading.end()
	for {
		if err := a.control.SetReadDeadline(reading.waits()); err != nil {
			return nil, service.Errorf(service.KindInternal, "read deadline: %w", err)
		}
		n, err := body.Read(b[len(b):min(cap(b), len(b)+pieceBytes)])
		b = b[:len(b)+n]
		reading.came(n)
		var tooMany *http.MaxBytesError
		switch {
		case err == io.EOF:
			// The server reads on in the background to learn when the client goes away;
			// that must not end by the body's deadline.
			_ = a.control.SetReadDeadline(time.Time{}) // a connection that does not know deadlines has failed above
			return b, nil
		case errors.As(err, &tooMany):
			return nil, tooLarge()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return refused(withStatus(http.StatusRequestTimeout,
				service.Errorf(service.KindDeadline, "the body came too slowly")))
		case err != nil:
			return nil, service.Errorf(service.KindInvalid, "the body is not whole: %w", err)
		}
		if len(b) < cap(b) {
			continue
		}
		next := nextCapacity(int64(cap(b)), r.ContentLength, limit)
		copied, err := hold(next)
		if err != nil {
			return refused(err)
		}
		b = yield.Append(yield.Uncleared(int(next)), b)
		copied()
	}
}

// nextCapacity is the size of the buffer that takes the place of a full one. Sizes are
// parts of the last one, so that both together are never much more than that: eighths of
// a length that is known, so that little is copied and little set aside for promises,
// and halves of the limit if it is not. There is a byte more than the body may have, so
// that its end is found without another buffer.
func nextCapacity(full, length, limit int64) int64 {
	next, by := limit+1, int64(2)
	if length > 0 {
		next, by = length+1, 8
	}
	for next/by > full {
		next /= by
	}
	return max(full+1, next)
}
