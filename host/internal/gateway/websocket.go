package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/gorilla/websocket"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// socket is a WebSocket: one goroutine calls receive, one calls send and flush.
// The library answers pings and protocol errors on the receiving goroutine, which
// is safe as writes are serialised below it.
type socket struct {
	ws      *websocket.Conn
	cork    *cork
	options *Options
	flight  *flight
	limit   int64          // of one message, in bytes
	reading func() reading // of a message
	pacer   pacer          // of the sending goroutine

	mu       sync.Mutex // guards draining and setting the read deadline
	draining bool       // nothing more is received

	// Of the receiving goroutine: whether a message has begun and not ended, and
	// the control frames since the last message.
	within        bool
	controls      int
	controlsSince time.Time
	buf           []byte // of messages, kept from one to the next; taken from flight
}

// streamBytes is what a WebSocket holds beside what passes through it: buffers of the
// connection, of the library, and for what is small.
const streamBytes = 48 << 10

// maxControls bounds the pings and pongs that a client sends within a ping
// period without saying anything.
const maxControls = 100

// closing is an error that says how to close a connection.
type closing struct {
	code   int
	reason string
}

func (e *closing) Error() string { return fmt.Sprintf("close %d: %s", e.code, e.reason) }

var writeBuffers sync.Pool

// upgrade makes a WebSocket of a request, speaking one protocol. A client that
// offers none is taken to mean that one.
func (s *Server) upgrade(a *answer, r *http.Request, protocol string, limit int64) (*socket, error) {
	var speaks []string
	for _, p := range offered(r) {
		if !strings.HasPrefix(p, api.ProtocolTokenPrefix) {
			speaks = append(speaks, p)
		}
	}
	if len(speaks) > 0 && !slices.Contains(speaks, protocol) {
		return nil, withStatus(http.StatusBadRequest, service.Errorf(service.KindUnsupported, "the subprotocol here is %s", protocol))
	}
	var refused error
	u := websocket.Upgrader{
		ReadBufferSize: 4096, WriteBufferSize: 4096, WriteBufferPool: &writeBuffers,
		HandshakeTimeout: s.options.WriteTime,
		CheckOrigin:      func(*http.Request) bool { return true }, // the access check has been made
		Error: func(_ http.ResponseWriter, _ *http.Request, status int, reason error) {
			refused = withStatus(status, service.Errorf(service.KindInvalid, "%w", reason))
		},
	}
	if len(speaks) > 0 {
		u.Subprotocols = []string{protocol}
	}
	if err := a.take(streamBytes); err != nil {
		return nil, err
	}
	corking := &corkingAnswer{answer: a, wait: s.options.WriteTime}
	ws, err := u.Upgrade(corking, r, nil)
	switch {
	case refused != nil:
		if a.stream { // hijacked already: the client broke the handshake
			corking.cork.Close()
			return nil, nil
		}
		return nil, refused
	case err != nil:
		return nil, nil // the connection broke; the library has closed it
	}
	k := &socket{ws: ws, cork: corking.cork, options: &s.options, flight: a.flight, limit: limit}
	k.reading = func() reading { return s.reading(r.Context(), a.flight, false) }
	ws.SetReadLimit(limit)
	ws.SetPingHandler(k.ping)
	ws.SetPongHandler(func(string) error { return k.control() })
	k.cork.hold()
	return k, nil
}

// wait gives the client until its next message or sign of life. It reports
// whether there is anything to wait for.
func (k *socket) wait(d time.Duration) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.draining {
		return false
	}
	_ = k.ws.SetReadDeadline(time.Now().Add(d)) // a closed connection fails when it is read
	return true
}

// drain makes receive fail from now on.
func (k *socket) drain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.draining = true
	_ = k.ws.SetReadDeadline(time.Unix(1, 0)) // in the past: a read under way ends
}

// silence is how long a client may be without a sign of life: two pings lost.
func (k *socket) silence() time.Duration { return k.options.PingTime*5/2 + time.Second }

// control counts a ping or pong and takes it for a sign of life.
func (k *socket) control() error {
	now := time.Now()
	if now.Sub(k.controlsSince) > k.options.PingTime {
		k.controls, k.controlsSince = 0, now
	}
	if k.controls++; k.controls > maxControls {
		return &closing{websocket.ClosePolicyViolation, "too many pings"}
	}
	if !k.within { // else a message could be stretched for ever
		k.wait(k.silence())
	}
	return nil
}

func (k *socket) ping(text string) error {
	if err := k.control(); err != nil {
		return err
	}
	// On this goroutine and not queued: who does not read the pongs is not read either.
	if err := k.ws.WriteControl(websocket.PongMessage, []byte(text), time.Now().Add(k.options.WriteTime)); err != nil {
		return err
	}
	return k.cork.flush(k.options.WriteTime)
}

// noRoom is the error of a message that there was no room for. The connection goes on.
type noRoom struct {
	start []byte // of the message
	err   error
}

func (e *noRoom) Error() string { return e.err.Error() }
func (e *noRoom) Unwrap() error { return e.err }

// startBytes is how much of a message that there is no room for is kept, to find its id.
const startBytes = 4 << 10

// receive reads one text message, which is the socket's until the next one, unless it
// is kept. Once a message has begun it has the time of a body, however it is cut into
// frames.
func (k *socket) receive() ([]byte, error) {
	if !k.wait(k.silence()) {
		return nil, &closing{websocket.CloseGoingAway, "the host is stopping"}
	}
	kind, r, err := k.ws.NextReader()
	if err != nil {
		return nil, k.why(err)
	}
	if kind != websocket.TextMessage {
		return nil, &closing{websocket.CloseUnsupportedData, "text messages only"}
	}
	k.controls, k.within = 0, true
	defer func() { k.within = false }()
	reading := k.reading()
	defer reading.end()
	buf := k.buf[:0]
	var full *noRoom // then what comes is read into scratch and dropped
	var scratch []byte
	for {
		if len(buf) == cap(buf) {
			if full == nil {
				if err := k.grow(buf); err != nil {
					full = &noRoom{bytes.Clone(buf[:min(len(buf), startBytes)]), err}
					scratch = make([]byte, 0, startBytes) // within what is taken for the stream, and not of the socket's buffer
				}
			}
			if full != nil {
				buf = scratch
			} else {
				buf = k.buf[:len(buf)]
			}
		}
		k.wait(time.Until(reading.waits()))
		n, err := r.Read(buf[len(buf):min(cap(buf), len(buf)+pieceBytes)])
		if full != nil {
			full.start = append(full.start, buf[len(buf):len(buf)+min(n, max(0, startBytes-len(full.start)))]...)
		}
		buf = buf[:len(buf)+n]
		reading.came(n)
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
		return nil, &closing{websocket.CloseInvalidFramePayloadData, "a text message must be UTF-8"}
	}
	k.buf = buf
	return buf, nil
}

// grow makes room behind a message, which fills the buffer. Sizes are halves of the
// largest message, so that two of them are never much more than that; there is a byte
// more, by which the end is found.
func (k *socket) grow(text []byte) error {
	next := int(k.limit) + 1
	for next/2 > max(cap(k.buf), 1<<10) {
		next /= 2
	}
	if err := k.flight.take(next); err != nil {
		return err
	}
	old := cap(k.buf)
	k.buf = yield.Append(yield.Uncleared(next), text)
	k.flight.give(old)
	return nil
}

// keep has the message belong to somebody else, with what was taken for it.
func (k *socket) keep() (taken int) {
	taken = cap(k.buf)
	k.buf = nil
	return taken
}

// shrink lets go of a buffer that a large message has left. It is called between messages.
func (k *socket) shrink() {
	if cap(k.buf) > maxCork {
		k.flight.give(k.keep())
	}
}

// why finds out what an error of reading means for the connection.
func (k *socket) why(err error) error {
	k.mu.Lock()
	draining := k.draining
	k.mu.Unlock()
	var timeout net.Error
	switch {
	case draining:
		return &closing{websocket.CloseGoingAway, "the host is stopping"}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &closing{websocket.ClosePolicyViolation, "no sign of life, or a message that did not end"}
	case errors.Is(err, websocket.ErrReadLimit): // which the library says in most cases, but not in all
		return &closing{websocket.CloseMessageTooBig, "the message is too large"}
	}
	return err
}

// send queues one text message for the next flush.
func (k *socket) send(text []byte) error { return k.ws.WriteMessage(websocket.TextMessage, text) }

// sendPieces sends a message that may be large. Then it goes in several frames, without
// being copied, and has the time of an answer of its size.
func (k *socket) sendPieces(text *api.Pieces) error {
	if whole, ok := text.Short(); ok {
		return k.send(whole)
	}
	k.cork.allow(k.options.WriteTime + time.Duration(text.Len()/bodyRate)*time.Second)
	w, err := k.ws.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	if err := text.Each(func(piece []byte) error {
		for len(piece) > 0 {
			part := piece[:min(len(piece), pieceBytes)]
			piece = piece[len(part):]
			k.pacer.begin()
			k.pacer.rest() // the client may take its time
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	err = w.Close()
	k.cork.allow(0)
	return err
}

// flush writes what was queued.
func (k *socket) flush() error { return k.cork.flush(k.options.WriteTime) }

// beat queues a ping.
func (k *socket) beat() error {
	return k.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(k.options.WriteTime))
}

// lingering bounds how long, and how much, of a client is still read after the
// last word, so that the last word is not lost with what is unread: who sent a
// message that is too large is mostly still sending it.
const (
	lingerTime  = time.Second
	lingerBytes = 64 << 20
)

// settle waits until the sending goroutine is done, when the receiving one has ended with err. If that is a reason
// to say, what the client is still sending is dropped meanwhile: it may not read what is sent before it has written all.
func (k *socket) settle(sent <-chan struct{}, err error) {
	var c *closing
	if errors.As(err, &c) {
		_ = k.cork.SetReadDeadline(time.Now().Add(k.options.WriteTime))
		dropped := make(chan struct{})
		go func() {
			defer close(dropped)
			_, _ = io.CopyN(io.Discard, k.cork, lingerBytes)
		}()
		<-sent
		_ = k.cork.SetReadDeadline(time.Unix(1, 0)) // in the past: a read under way ends
		<-dropped
	}
	<-sent
}

// farewell says why, writes what is queued, and closes. Both goroutines must be
// past using the socket.
func (k *socket) farewell(cut context.Context, err error) {
	defer k.cork.Close()
	defer context.AfterFunc(cut, func() { _ = k.cork.Close() })()
	linger := k.options.linger
	var c *closing
	if errors.As(err, &c) {
		text := websocket.FormatCloseMessage(c.code, c.reason)
		_ = k.ws.WriteControl(websocket.CloseMessage, text, time.Now().Add(linger)) // unless the library has closed already
	}
	if k.cork.flush(linger) != nil || k.cork.closeWrite() != nil {
		return
	}
	_ = k.cork.SetReadDeadline(time.Now().Add(linger))
	_, _ = io.CopyN(io.Discard, k.cork, lingerBytes)
}

// corkingAnswer hands the library a connection that can gather writes.
type corkingAnswer struct {
	*answer
	cork *cork
	wait time.Duration
}

// Hijack implements http.Hijacker.
func (a *corkingAnswer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := a.answer.Hijack()
	if err != nil {
		return nil, nil, err
	}
	a.cork = &cork{Conn: conn, wait: a.wait, flight: a.answer.flight}
	return a.cork, rw, nil
}

// cork is a connection whose writes, once held, wait until they are flushed, so
// that many small messages leave in one packet.
type cork struct {
	net.Conn
	wait   time.Duration // for a write that is too large to hold
	flight *flight

	mu    sync.Mutex // guards what follows, and writing
	held  bool
	buf   []byte
	until time.Time // when the large message that is being written must be; zero: there is none
}

// maxCork bounds what waits, in bytes; what is larger is written at once.
const maxCork = 32 << 10

func (c *cork) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

// Write implements net.Conn.
func (c *cork) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held {
		return c.Conn.Write(b)
	}
	if len(c.buf)+len(b) > maxCork {
		if err := c.write(c.wait); err != nil {
			return 0, err
		}
	}
	if len(b) >= maxCork {
		return len(b), c.writeOut(b, c.wait)
	}
	if c.buf == nil {
		c.buf = make([]byte, 0, maxCork)
	}
	c.buf = append(c.buf, b...)
	return len(b), nil
}

// allow gives the large message that follows a time of its own; 0: it has been written.
func (c *cork) allow(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Time{}
	if d > 0 {
		c.until = time.Now().Add(d)
	}
}

func (c *cork) flush(wait time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(wait)
}

func (c *cork) write(wait time.Duration) error {
	if len(c.buf) == 0 {
		return nil
	}
	err := c.writeOut(c.buf, wait)
	c.buf = c.buf[:0]
	return err
}

func (c *cork) writeOut(b []byte, wait time.Duration) error {
	deadline := c.until
	if deadline.IsZero() {
		deadline = time.Now().Add(wait)
	}
	if err := c.Conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	c.flight.writes()
	defer c.flight.wrote()
	_, err := c.Conn.Write(b)
	return err
}

func (c *cork) closeWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
