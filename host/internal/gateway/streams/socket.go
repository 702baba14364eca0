package streams

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/ws"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// socket is a WebSocket: one goroutine calls receive, one calls send and flush.
type socket struct {
	conn    *ws.Conn
	options *Options
	flight  *flight.Account
	limit   int64                 // of one message, in bytes
	reading func() flight.Reading // begins the reading of a message
	pacer   flight.Pacer          // of the sending goroutine

	mu       sync.Mutex // guards draining and setting the read deadline
	draining bool       // nothing more is received

	// Of the receiving goroutine: whether it is within a message, and the number of control frames since the
	// last message.
	within        bool
	controls      int
	controlsSince time.Time
	buf           []byte // for messages; reused, and taken from flight
}

// maxControls is the maximum number of pings and pongs of a client within a ping period without a message.
const maxControls = 100

// upgrade turns a request into a WebSocket with one protocol. A client that offers none is assumed to mean
// that one.
func (s *Streams) upgrade(a Answer, r *http.Request, protocol string, limit int64) (*socket, error) {
	var speaks []string
	for _, p := range ws.Offered(r) {
		if !strings.HasPrefix(p, api.ProtocolTokenPrefix) {
			speaks = append(speaks, p)
		}
	}
	if len(speaks) > 0 && !slices.Contains(speaks, protocol) {
		return nil, api.WithStatus(http.StatusBadRequest, service.Errorf(service.KindUnsupported, "the subprotocol "+
			"here is %s", protocol))
	}
	if err := a.Take(flight.StreamBytes); err != nil {
		return nil, err
	}
	f := a.Flight()
	o := ws.AcceptOptions{Limit: limit, WriteTime: s.options.WriteTime, Writes: f.Writes, Wrote: f.HasWritten}
	if len(speaks) > 0 {
		o.Subprotocols = []string{protocol}
	}
	conn, err := ws.Accept(a, r, o)
	var refused *ws.HandshakeError
	switch {
	case errors.As(err, &refused) && !refused.Hijacked:
		return nil, api.WithStatus(refused.Status, service.Errorf(service.KindInvalid, "%w", refused.Err))
	case err != nil:
		return nil, nil // the connection broke, and is closed
	}
	k := &socket{conn: conn, options: &s.options, flight: f, limit: limit}
	k.reading = func() flight.Reading { return s.traffic.Read(r.Context(), f, false) }
	conn.OnControl(s.options.WriteTime, k.control)
	conn.Hold()
	return k, nil
}

// wait sets the deadline for the client's next message or control frame. It reports whether there is anything
// to wait for.
func (k *socket) wait(d time.Duration) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.draining {
		return false
	}
	_ = k.conn.SetReadDeadline(time.Now().Add(d)) // a closed connection fails at the next read
	return true
}

// drain makes receive fail from now on.
func (k *socket) drain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.draining = true
	_ = k.conn.SetReadDeadline(time.Unix(1, 0)) // in the past: ends a read in progress
}

// silence is how long a client may be silent: two lost pings.
func (k *socket) silence() time.Duration { return k.options.PingTime*5/2 + time.Second }

// control counts a ping or pong, which shows that the client is alive.
func (k *socket) control() error {
	now := time.Now()
	if now.Sub(k.controlsSince) > k.options.PingTime {
		k.controls, k.controlsSince = 0, now
	}
	if k.controls++; k.controls > maxControls {
		return &ws.Closing{Code: ws.ClosePolicy, Reason: "too many pings"}
	}
	if !k.within { // otherwise a message could last forever
		k.wait(k.silence())
	}
	return nil
}

// noRoom is the error of a message for which there was no room. The connection goes on.
type noRoom struct {
	start []byte // beginning of the message
	err   error
}

func (e *noRoom) Error() string { return e.err.Error() }
func (e *noRoom) Unwrap() error { return e.err }

// startBytes is how many bytes of such a message are kept, to find its id.
const startBytes = 4 << 10

// receive reads one text message, which belongs to the socket until the next one, unless keep is called. From
// its beginning a message has the time of a body, however it is divided into frames.
func (k *socket) receive() ([]byte, error) {
	if !k.wait(k.silence()) {
		return nil, &ws.Closing{Code: ws.CloseGoingAway, Reason: "the host is stopping"}
	}
	r, err := k.conn.NextReader()
	if err != nil {
		return nil, k.why(err)
	}
	k.controls, k.within = 0, true
	defer func() { k.within = false }()
	reading := k.reading()
	defer reading.End()
	buf := k.buf[:0]
	var full *noRoom // if set, the rest is read into scratch and dropped
	var scratch []byte
	for {
		if len(buf) == cap(buf) {
			if full == nil {
				if err := k.grow(buf); err != nil {
					full = &noRoom{bytes.Clone(buf[:min(len(buf), startBytes)]), err}
					// within what is taken for the stream, outside of the socket's buffer
					scratch = make([]byte, 0, startBytes)
				}
			}
			if full != nil {
				buf = scratch
			} else {
				buf = k.buf[:len(buf)]
			}
		}
		k.wait(time.Until(reading.Waits()))
		n, err := r.Read(buf[len(buf):min(cap(buf), len(buf)+flight.PieceBytes)])
		if full != nil {
			full.start = append(full.start, buf[len(buf):len(buf)+min(n, max(0, startBytes-len(full.start)))]...)
		}
		buf = buf[:len(buf)+n]
		reading.Came(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, k.why(err)
		}
	}
	if full != nil {
		return nil, full
	}
	if !utf8.Valid(buf) {
		return nil, &ws.Closing{Code: ws.CloseNotUTF8, Reason: "a text message must be UTF-8"}
	}
	k.buf = buf
	return buf, nil
}

// grow enlarges the buffer, which the message fills. It grows by halves of the largest message, so that two
// buffers are never much larger than one. One byte more detects the end.
func (k *socket) grow(text []byte) error {
	next := int(k.limit) + 1
	for next/2 > max(cap(k.buf), 1<<10) {
		next /= 2
	}
	if err := k.flight.Take(next); err != nil {
		return err
	}
	old := cap(k.buf)
	k.buf = yield.Append(yield.Uncleared(next), text)
	k.flight.Give(old)
	return nil
}

// keep transfers the message to another owner, with what was taken for it.
func (k *socket) keep() (taken int) {
	taken = cap(k.buf)
	k.buf = nil
	return taken
}

// shrink drops the buffer that a large message has left. It is called between messages.
func (k *socket) shrink() {
	if cap(k.buf) > ws.MaxGathered {
		k.flight.Give(k.keep())
	}
}

// why classifies a read error: what it means for the connection.
func (k *socket) why(err error) error {
	k.mu.Lock()
	draining := k.draining
	k.mu.Unlock()
	var timeout net.Error
	switch {
	case draining:
		return &ws.Closing{Code: ws.CloseGoingAway, Reason: "the host is stopping"}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &ws.Closing{Code: ws.ClosePolicy, Reason: "no sign of life, or a message that did not end"}
	case errors.Is(err, ws.ErrTooLarge): // the library usually sends the close frame, but not always
		return &ws.Closing{Code: ws.CloseTooLarge, Reason: "the message is too large"}
	}
	return err
}

// send queues one text message for the next flush.
func (k *socket) send(text []byte) error { return k.conn.Send(text) }

// sendPieces sends a message that may be large. A large one goes in several frames, without being copied, and
// the client has the time of a large answer.
func (k *socket) sendPieces(text *api.Pieces) error {
	if whole, ok := text.Short(); ok {
		return k.send(whole)
	}
	left := flight.NewAllowance(k.options.WriteTime)
	return k.conn.SendPieces(left.Until, func(w io.Writer) error {
		return text.Each(func(piece []byte) error {
			for len(piece) > 0 {
				part := piece[:min(len(piece), flight.PieceBytes)]
				piece = piece[len(part):]
				k.pacer.Pass(&left)
				if _, err := w.Write(part); err != nil {
					return err
				}
				left.Earn(len(part))
			}
			return nil
		})
	})
}

// flush writes what is queued.
func (k *socket) flush() error { return k.conn.Flush(k.options.WriteTime) }

// ping queues a ping.
func (k *socket) ping() error { return k.conn.Ping(k.options.WriteTime) }

// settle waits for the sending goroutine, when the receiving one has ended with err.
func (k *socket) settle(sent <-chan struct{}, err error) {
	k.conn.Settle(sent, k.options.WriteTime, err)
}

// farewell sends the reason, writes what is queued, and closes the socket. Both goroutines must have ended
// their use of it.
func (k *socket) farewell(cut context.Context, err error) {
	k.conn.Farewell(cut, k.options.Linger, err)
}
