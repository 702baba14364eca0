package client

import (
	"net"
	"sync"
	"time"
)

// cork is a connection whose writes wait until they are flushed, so that many
// small messages leave in one packet. Before hold it passes writes on.
type cork struct {
	net.Conn

	mu   sync.Mutex // guards what follows, and writing
	held bool
	buf  []byte
}

// maxCork bounds what waits, in bytes; beyond it a write flushes.
const maxCork = 64 << 10

func (c *cork) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

func (c *cork) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held {
		return c.Conn.Write(b)
	}
	c.buf = append(c.buf, b...)
	if len(c.buf) < maxCork {
		return len(b), nil
	}
	return len(b), c.send(writeWait)
}

// flush writes what waits.
func (c *cork) flush(wait time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.send(wait)
}

func (c *cork) send(wait time.Duration) error {
	if len(c.buf) == 0 {
		return nil
	}
	if err := c.Conn.SetWriteDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	if cap(c.buf) > 4*maxCork {
		c.buf = nil // one large message is no reason to keep its memory
	}
	return err
}
