package ws

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"time"
)

// cork is a connection whose writes, once held, wait until they are flushed. So many small messages leave in
// one packet.
type cork struct {
	net.Conn
	wait          time.Duration // for a write that is too large to be gathered
	writes, wrote func()        // around each write to the network; may be nil

	mu    sync.Mutex // guards all below, and writing
	held  bool
	buf   []byte
	until time.Time // deadline for a write of the large message; zero: no large one is being written
}

// MaxGathered is the maximum number of bytes that wait for a flush; larger writes happen immediately.
const MaxGathered = 32 << 10

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
	if len(c.buf)+len(b) > MaxGathered {
		if err := c.write(c.wait); err != nil {
			return 0, err
		}
	}
	if len(b) >= MaxGathered {
		return len(b), c.writeOut(b, c.wait)
	}
	if c.buf == nil {
		c.buf = make([]byte, 0, MaxGathered)
	}
	c.buf = append(c.buf, b...)
	return len(b), nil
}

// allow sets the deadline for the following pieces of a large message; zero: it has been written.
func (c *cork) allow(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = until
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
	if c.writes != nil {
		c.writes()
		defer c.wrote()
	}
	_, err := c.Conn.Write(b)
	return err
}

func (c *cork) closeWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// corkingWriter gives the library a connection that can gather writes.
type corkingWriter struct {
	http.ResponseWriter
	options *AcceptOptions
	cork    *cork
}

// Hijack implements http.Hijacker.
func (w *corkingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.cork = &cork{Conn: conn, wait: w.options.WriteTime, writes: w.options.Writes, wrote: w.options.Wrote}
	return w.cork, rw, nil
}
