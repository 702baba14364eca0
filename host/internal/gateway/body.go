package gateway

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// firstRead bounds what is set aside for a body before any of it has come.
const firstRead = 64 << 10

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
	reading := s.traffic.Read(r.Context(), a.flight, true)
	defer reading.End()
	for {
		err := a.control.SetReadDeadline(reading.Waits())
		if errors.Is(err, net.ErrClosed) {
			return refused(service.Errorf(service.KindCanceled, "the connection was cut off"))
		}
		if err != nil {
			return nil, service.Errorf(service.KindInternal, "read deadline: %w", err)
		}
		n, err := body.Read(b[len(b):min(cap(b), len(b)+flight.PieceBytes)])
		b = b[:len(b)+n]
		reading.Came(n)
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
			return refused(api.WithStatus(http.StatusRequestTimeout,
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
