// Package ws provides WebSockets for gateway and client: text messages, whose writes are gathered until they
// are flushed, so that many small messages leave in one packet. Only this package imports the WebSocket
// library.
//
// One goroutine receives, and one sends. The library answers pings and protocol errors on the receiving
// goroutine; that is safe, as cork serialises writes.
package ws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Status codes of a close frame.
const (
	CloseNormal      = websocket.CloseNormalClosure
	CloseGoingAway   = websocket.CloseGoingAway
	CloseUnsupported = websocket.CloseUnsupportedData
	CloseNotUTF8     = websocket.CloseInvalidFramePayloadData
	ClosePolicy      = websocket.ClosePolicyViolation
	CloseTooLarge    = websocket.CloseMessageTooBig
	CloseInternal    = websocket.CloseInternalServerErr
)

// Errors of a [Conn].
var (
	// ErrTooLarge is the error of reading a message above the limit.
	ErrTooLarge = websocket.ErrReadLimit
	// ErrCloseSent is the error of sending after a close frame.
	ErrCloseSent = websocket.ErrCloseSent
)

// Closing is an error that says how to close a connection.
type Closing struct {
	Code   int
	Reason string
}

// Error implements error.
func (e *Closing) Error() string { return fmt.Sprintf("close %d: %s", e.Code, e.Reason) }

// Conn is one WebSocket. One goroutine at a time receives, and one sends. The other methods are safe for
// concurrent use.
type Conn struct {
	ws   *websocket.Conn
	cork *cork
}

// AcceptOptions configure [Accept].
type AcceptOptions struct {
	// Subprotocols are the supported ones; empty: none.
	Subprotocols []string
	// Limit is the maximum size of one message of the client, in bytes.
	Limit int64
	// WriteTime bounds the handshake, and each write that is too large to be gathered.
	WriteTime time.Duration
	// Writes and Wrote, if not nil, are called before and after each write to the network.
	Writes, Wrote func()
}

// HandshakeError says why a request does not become a WebSocket.
type HandshakeError struct {
	Status   int
	Err      error
	Hijacked bool // the connection was taken over and closed: no answer is possible
}

// Error implements error.
func (e *HandshakeError) Error() string { return "handshake: " + e.Err.Error() }

// Unwrap gives errors.Is and errors.As the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

var writeBuffers sync.Pool

// Accept turns a request into a WebSocket. It does not check the origin; the caller must. It fails with
// [*HandshakeError] if the request is wrong. After any other error the connection is closed.
func Accept(w http.ResponseWriter, r *http.Request, o AcceptOptions) (*Conn, error) {
	var refused *HandshakeError
	u := websocket.Upgrader{
		ReadBufferSize: 4096, WriteBufferSize: 4096, WriteBufferPool: &writeBuffers,
		HandshakeTimeout: o.WriteTime, Subprotocols: o.Subprotocols,
		CheckOrigin: func(*http.Request) bool { return true },
		Error: func(_ http.ResponseWriter, _ *http.Request, status int, reason error) {
			refused = &HandshakeError{Status: status, Err: reason}
		},
	}
	corking := &corkingWriter{ResponseWriter: w, options: &o}
	conn, err := u.Upgrade(corking, r, nil)
	switch {
	case refused != nil:
		if refused.Hijacked = corking.cork != nil; refused.Hijacked {
			_ = corking.cork.Close() // the client broke the handshake
		}
		return nil, refused
	case err != nil:
		return nil, err
	}
	conn.SetReadLimit(o.Limit)
	return &Conn{conn, corking.cork}, nil
}

// DialOptions configure [Dial].
type DialOptions struct {
	Subprotocol string
	// HandshakeTime bounds the handshake.
	HandshakeTime time.Duration
	// Limit is the maximum size of one message of the server, in bytes.
	Limit int64
	// WriteTime bounds each write that is too large to be gathered.
	WriteTime time.Duration
}

// Dial opens a WebSocket. If the server refuses it, refusal is the beginning of the server's answer.
func Dial(
	ctx context.Context, url string, header http.Header, o DialOptions,
) (c *Conn, refusal *http.Response, err error) {
	var corked *cork
	d := websocket.Dialer{
		Proxy: http.ProxyFromEnvironment, HandshakeTimeout: o.HandshakeTime, Subprotocols: []string{o.Subprotocol},
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			corked = &cork{Conn: conn, wait: o.WriteTime}
			return corked, nil
		},
	}
	conn, resp, err := d.DialContext(ctx, url, header)
	if err != nil {
		if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
			return nil, resp, err
		}
		return nil, nil, err
	}
	conn.SetReadLimit(o.Limit)
	return &Conn{conn, corked}, nil, nil
}

// OnControl calls alive on the receiving goroutine for each ping and pong; if it returns an error, receiving
// ends. Pings are answered immediately, within wait: while a peer does not read the pongs, nothing is read
// from it.
func (c *Conn) OnControl(wait time.Duration, alive func() error) {
	c.ws.SetPongHandler(func(string) error { return alive() })
	c.ws.SetPingHandler(func(text string) error {
		if err := alive(); err != nil {
			return err
		}
		if err := c.ws.WriteControl(websocket.PongMessage, []byte(text), time.Now().Add(wait)); err != nil {
			return err
		}
		return c.Flush(wait)
	})
}

// Hold makes writes gather until they are flushed.
func (c *Conn) Hold() { c.cork.hold() }

// SetReadDeadline ends receiving at an instant. One in the past ends a read in progress.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.ws.SetReadDeadline(t) }

// NextReader waits for a message and returns it. If that is not text, the error is [Closing].
func (c *Conn) NextReader() (io.Reader, error) {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return nil, err
	}
	if kind != websocket.TextMessage {
		return nil, &Closing{CloseUnsupported, "text messages only"}
	}
	return r, nil
}

// Send queues a message for the next flush.
func (c *Conn) Send(text []byte) error { return c.ws.WriteMessage(websocket.TextMessage, text) }

// SendPieces sends a message in frames, as written by write. It calls until on this goroutine for the deadline of
// each frame.
func (c *Conn) SendPieces(until func() time.Time, write func(io.Writer) error) error {
	defer c.cork.allow(time.Time{})
	w, err := c.ws.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	if err := write(pieceWriter{w, c.cork, until}); err != nil {
		return err
	}
	return w.Close()
}

// pieceWriter writes pieces of a large message, each with a deadline.
type pieceWriter struct {
	to    io.Writer
	cork  *cork
	until func() time.Time
}

// Write implements io.Writer.
func (w pieceWriter) Write(b []byte) (int, error) {
	w.cork.allow(w.until())
	return w.to.Write(b)
}

// Ping queues a ping.
func (c *Conn) Ping(wait time.Duration) error {
	return c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(wait))
}

// Flush writes what is queued.
func (c *Conn) Flush(wait time.Duration) error { return c.cork.flush(wait) }

// Close closes the connection immediately.
func (c *Conn) Close() error { return c.cork.Close() }

// SayClose queues a close frame, and writes everything that is queued. If the library has already sent a
// close frame, it sends no other.
func (c *Conn) SayClose(code int, reason string, wait time.Duration) error {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(wait))
	return c.Flush(wait)
}

// lingerBytes is how many bytes of a peer are still read after the close frame. Without this the close frame
// would be lost together with unread data: a peer that sent a message that is too large is usually still
// sending it.
const lingerBytes = 64 << 20

// Settle is called when the receiving goroutine has ended with err. It waits until the sending goroutine
// closes sent. If err is a [Closing], what the peer still sends is dropped for up to wait, as the peer may
// not read before it has written everything.
func (c *Conn) Settle(sent <-chan struct{}, wait time.Duration, err error) {
	var why *Closing
	if errors.As(err, &why) {
		_ = c.cork.SetReadDeadline(time.Now().Add(wait))
		dropped := make(chan struct{})
		go func() {
			defer close(dropped)
			_, _ = io.CopyN(io.Discard, c.cork, lingerBytes)
		}()
		<-sent
		_ = c.cork.SetReadDeadline(time.Unix(1, 0)) // in the past: ends a read in progress
		<-dropped
	}
	<-sent
}

// Farewell sends the reason if err is a [Closing], writes what is queued, and closes the connection, within
// linger or when cut ends. Both goroutines must have ended their use of the connection.
func (c *Conn) Farewell(cut context.Context, linger time.Duration, err error) {
	defer c.Close()
	defer context.AfterFunc(cut, func() { _ = c.Close() })()
	var why *Closing
	if errors.As(err, &why) {
		err = c.SayClose(why.Code, why.Reason, linger)
	} else {
		err = c.Flush(linger)
	}
	if err != nil || c.cork.closeWrite() != nil {
		return
	}
	_ = c.cork.SetReadDeadline(time.Now().Add(linger))
	_, _ = io.CopyN(io.Discard, c.cork, lingerBytes)
}
