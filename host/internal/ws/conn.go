// Package ws is a WebSocket as gateway and client use it: messages of text, whose writes are gathered
// until they are flushed, so that many small messages leave in one packet. It is the only package that
// knows the library behind it.
//
// One goroutine receives, and one sends. The library answers pings and protocol errors on the receiving
// goroutine; that is safe, as writes are serialised below it.
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

// Codes of the reason why a connection is closed.
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
	// ErrTooLarge is the error of reading a message that is above the limit.
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

// Conn is one WebSocket. One goroutine at a time receives, and one sends; any may call the other
// methods.
type Conn struct {
	ws   *websocket.Conn
	cork *cork
}

// AcceptOptions configure [Accept].
type AcceptOptions struct {
	// Subprotocols are those that are spoken; empty: none is agreed on.
	Subprotocols []string
	// Limit bounds one message of the client, in bytes.
	Limit int64
	// WriteTime bounds the handshake, and each write of what is too large to be gathered.
	WriteTime time.Duration
	// Writes and Wrote, if not nil, are called before and after each write to the network.
	Writes, Wrote func()
}

// HandshakeError is why a request does not become a WebSocket.
type HandshakeError struct {
	Status   int
	Err      error
	Hijacked bool // the connection has been taken over, and closed: there is nobody to tell
}

// Error implements error.
func (e *HandshakeError) Error() string { return "handshake: " + e.Err.Error() }

// Unwrap gives errors.Is and errors.As the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

var writeBuffers sync.Pool

// Accept makes a WebSocket of a request, whatever its origin: the caller has checked that. It fails with
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
	// Limit bounds one message of the server, in bytes.
	Limit int64
	// WriteTime bounds each write of what is too large to be gathered.
	WriteTime time.Duration
}

// Dial opens a WebSocket. If the server refuses it, refusal is the server's answer, as far as it is short.
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

// OnControl has alive called on the receiving goroutine with each ping and pong; its error ends the
// receiving. Pings are answered at once, within wait: a peer that does not read the pongs is not read
// either.
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

// Hold has writes gather from now on, until they are flushed.
func (c *Conn) Hold() { c.cork.hold() }

// SetReadDeadline ends the receiving at an instant. One in the past ends a read that is under way.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.ws.SetReadDeadline(t) }

// NextReader waits for a message and returns it. It is [Closing] if that is not text.
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

// SendPieces sends a message in frames, as write gives them. until is asked, on this goroutine, by when each of them
// must have been written.
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

// Flush writes what was queued.
func (c *Conn) Flush(wait time.Duration) error { return c.cork.flush(wait) }

// Close closes the connection at once.
func (c *Conn) Close() error { return c.cork.Close() }

// SayClose queues a close frame, and writes all that was queued. What the library has said already is not
// said again.
func (c *Conn) SayClose(code int, reason string, wait time.Duration) error {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(wait))
	return c.Flush(wait)
}

// lingerBytes bounds how much of a peer is still read after the last word, so that the last word is not
// lost with what is unread: a peer that sent a message that is too large is mostly still sending it.
const lingerBytes = 64 << 20

// Settle waits until sent is closed, by a sending goroutine, when the receiving one has ended with err. If that
// is a reason to say, what the peer is still sending is dropped for up to wait: it may not read before it has
// written all.
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
		_ = c.cork.SetReadDeadline(time.Unix(1, 0)) // in the past: a read under way ends
		<-dropped
	}
	<-sent
}

// Farewell says why, if err is a [Closing], writes what is queued, and closes, within linger or when cut
// ends. Both goroutines must be past using the connection.
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
