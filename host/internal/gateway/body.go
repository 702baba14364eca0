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

// firstRead is the maximum size of the first buffer for a body, in bytes.
const firstRead = 64 << 10

// readBody reads a request's body of at most limit bytes, in its time. The answer holds the bytes until it
// ends.
func (s *Server) readBody(a *answer, r *http.Request, limit int64) ([]byte, error) {
	return s.readInto(a, r, limit, a.hold)
}

// readInto is readBody with another account. Before it makes a buffer, it calls hold with the capacity; it
// calls the returned function when the new buffer has replaced the old one. An error of hold ends the
// reading.
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
		a.Header().Set("Connection", "close") // the rest of the body is not read
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
			// The server keeps reading in the background to learn when the client goes away. The deadline of
			// the body must not end that.
			_ = a.control.SetReadDeadline(time.Time{}) // without support for deadlines it would have failed above
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

// nextCapacity is the size of the buffer that replaces a full one. Growth is limited, so that the old and the
// new buffer together are never much larger than the new one: by eighths of a known length, so that little is
// copied and little allocated for a mere announcement, and by halves of the limit if the length is unknown.
// One byte more than the body may have detects its end without another buffer.
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
