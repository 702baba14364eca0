package gateway

import (
	"container/list"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// crowd is a listener that bounds how many of its connections are open. When
// there are too many, the connection that has been idle for longest is closed to
// make room: idle is whatever no handler works for, so neither silent connections
// nor headers that trickle in can keep others out. Only if all are at work is a
// newcomer refused.
type crowd struct {
	net.Listener
	most    int
	refused func(which string)
	flights *flights

	mu   sync.Mutex // guards what follows
	open int
	idle list.List // of *guestConn, the one idle for longest first
}

// guestConn is a connection of a crowd.
type guestConn struct {
	net.Conn
	crowd  *crowd
	flight *flight

	place *list.Element // in crowd.idle; nil: at work or closed. Guarded by crowd.mu
	gone  bool          // guarded by crowd.mu

	left atomic.Bool // it has left flight

	headers int // of the request that a handler is at work on, in bytes; the handler's
}

func newCrowd(l net.Listener, most int, refused func(string), flights *flights) *crowd {
	return &crowd{Listener: l, most: most, refused: refused, flights: flights}
}

// Accept implements net.Listener.
func (c *crowd) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g := &guestConn{Conn: conn, crowd: c, flight: c.flights.join(conn.RemoteAddr().String(), conn)}
		if c.admit(g) {
			return g, nil
		}
		g.flight.leave()
		c.refused("newcomer")
		refuse(conn)
	}
}

// admit counts g in, at the cost of the longest idle one if there is no room.
func (c *crowd) admit(g *guestConn) bool {
	c.mu.Lock()
	var victim *guestConn
	if c.open >= c.most {
		first := c.idle.Front()
		if first == nil {
			c.mu.Unlock()
			return false
		}
		victim = first.Value.(*guestConn)
		c.leave(victim)
	}
	c.open++
	g.place = c.idle.PushBack(g)
	c.mu.Unlock()
	if victim != nil {
		c.refused("idle")
		_ = victim.Conn.Close() // the server finds out when it next reads
	}
	return true
}

// leave counts g out; the caller holds mu.
func (c *crowd) leave(g *guestConn) {
	if g.gone {
		return
	}
	g.gone = true
	c.open--
	if g.place != nil {
		c.idle.Remove(g.place)
		g.place = nil
	}
}

// atWork says that a handler works for g.
func (g *guestConn) atWork() {
	g.headers = int(max(0, g.flight.unread.Swap(notCounted)))
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	if g.place != nil {
		g.crowd.idle.Remove(g.place)
		g.place = nil
	}
}

// Read implements net.Conn.
func (g *guestConn) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if n > 0 {
		if full := g.flight.arrived(n); full != nil {
			return 0, full // the server closes the connection
		}
	}
	return n, err
}

// atRest says that no handler does any more.
func (g *guestConn) atRest() {
	g.flight.give(g.headers)
	g.flight.unread.Store(0)
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	if !g.gone && g.place == nil {
		g.place = g.crowd.idle.PushBack(g)
	}
}

// Close implements net.Conn.
func (g *guestConn) Close() error {
	g.crowd.mu.Lock()
	g.crowd.leave(g)
	g.crowd.mu.Unlock()
	if !g.left.Swap(true) {
		g.flight.leave()
	}
	return g.Conn.Close()
}

// CloseWrite lets a handler end its side and still read what comes.
func (g *guestConn) CloseWrite() error {
	if tcp, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// full is what a refused connection reads.
var full = func() []byte {
	p := api.ProblemOf(service.Errorf(service.KindUnavailable, "there are too many connections"), "")
	text, _ := json.Marshal(p) // a problem always encodes
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		p.Status, http.StatusText(p.Status), api.ContentProblem, len(text), text)
}()

// refuse ends a connection at once; what it writes fits into the socket's buffer.
func refuse(conn net.Conn) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // it is closed whatever fails
	_, _ = conn.Write(full)
	_ = conn.Close()
}

type connKey struct{}

// withConn lets handlers find their connection, by whose name they read logs.
func withConn(ctx context.Context, c net.Conn) context.Context {
	ctx = host.WithReader(ctx, c.RemoteAddr().String())
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) *guestConn {
	g, _ := ctx.Value(connKey{}).(*guestConn)
	return g
}
