package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
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

// readBody reads a request's body of at most limit bytes, in its time.
func (s *Server) readBody(a *answer, r *http.Request, limit int64) ([]byte, error) {
	return s.readInto(a, r, limit, func(int64) error { return nil })
}

// readInto is readBody, which asks hold before it makes a buffer of more than
// firstRead bytes: with the capacity of the new buffer, which takes the place of the
// one before. An error of hold ends the reading.
func (s *Server) readInto(a *answer, r *http.Request, limit int64, hold func(capacity int64) error) ([]byte, error) {
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
	allowed := newAllowance(s.options.BodyTime, time.Now())
	body := http.MaxBytesReader(a.ResponseWriter, r.Body, limit)
	b := make([]byte, 0, max(512, min(r.ContentLength+1, firstRead)))
	for {
		if err := a.control.SetReadDeadline(allowed.until); err != nil {
			return nil, service.Errorf(service.KindInternal, "read deadline: %w", err)
		}
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		allowed.earn(n, time.Now())
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
			a.Header().Set("Connection", "close")
			return nil, withStatus(http.StatusRequestTimeout, service.Errorf(service.KindDeadline, "the body came too slowly"))
		case err != nil:
			return nil, service.Errorf(service.KindInvalid, "the body is not whole: %w", err)
		}
		if len(b) < cap(b) {
			continue
		}
		next := nextCapacity(int64(cap(b)), r.ContentLength, limit)
		if next > firstRead {
			if err := hold(next); err != nil {
				a.Header().Set("Connection", "close")
				return nil, err
			}
		}
		b = append(make([]byte, 0, next), b...)
	}
}

// nextCapacity is the size of the buffer that takes the place of a full one. Of a body
// whose length is known an eighth has to be there before there is room for all of it,
// so that little is copied and little set aside for promises. There is a byte more
// than the body may have, so that its end is found without another buffer.
func nextCapacity(full, length, limit int64) int64 {
	if length > 0 {
		return max(full+1, min(8*full, length+1))
	}
	return max(full+1, min(2*full, limit+1))
}
