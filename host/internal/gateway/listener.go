package gateway

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// crowd is a listener that bounds the number of its open connections. When there are too many, it closes the
// connection that has been idle for the longest time. A connection is idle while no handler works for it, so
// neither silent connections nor slow headers can keep others out. A new connection is refused only if no
// connection is idle. Each connection takes a descriptor from the budget, so that the journal's are left to
// it; only a connection that is being refused has none. When the journal needs more, connections are closed
// until it has them.
type crowd struct {
	net.Listener
	limit   int
	socket  int // bytes that the system may hold of a connection, in each direction
	refused func(which string)
	// unreadable makes a problem from what net/http has refused.
	unreadable func(why *service.Error, status int, client string) api.Problem
	flights    *flight.Accounts
	stall      time.Duration   // how long a client may stall when others need its descriptor
	files      *budget.Account // accounts for the connections' descriptors

	mu   sync.Mutex // guards all below
	open int
	idle list.List // of *guestConn, in the order of becoming idle
	work list.List // of those for which a handler works, in the order of its start
}

// guestConn is a connection of a crowd.
type guestConn struct {
	net.Conn
	crowd  *crowd
	flight *flight.Account

	place *list.Element // in crowd.idle or crowd.work; nil: closed. Guarded by crowd.mu
	gone  bool          // guarded by crowd.mu

	left atomic.Bool // its flight account has been left

	headers int // size of the headers of the present request, in bytes; owned by the handler
}

func newCrowd(l net.Listener, s *Server) *crowd {
	o := &s.options
	return &crowd{
		Listener: l, limit: o.Connections, socket: int(o.SocketBytes), refused: o.Metrics.Refused,
		unreadable: s.unreadable,
		flights:    s.flights, stall: o.StallTime, files: s.files,
	}
}

// Accept implements net.Listener.
func (c *crowd) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c.narrow(conn)
		g := &guestConn{Conn: conn, crowd: c, flight: c.flights.Join(conn.RemoteAddr().String(), conn)}
		full := c.admit(g)
		if full == nil {
			runtime.Gosched() // otherwise a thousand new connections make others wait
			return g, nil
		}
		g.flight.Leave()
		c.refused("newcomer")
		refuse(conn, full)
	}
}

// narrow bounds what the system holds of a connection. By default Linux holds up to some megabytes, which no
// budget counts, and which arrive as fast as the client can send.
func (c *crowd) narrow(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(c.socket) // reading detects a broken connection
		_ = tcp.SetWriteBuffer(c.socket)
	}
}

// admit adds g. If there is no room it closes the connection that has been idle longest, or returns the
// exhausted resource.
func (c *crowd) admit(g *guestConn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		full := c.room()
		if full == nil {
			break
		}
		first := c.idle.Front()
		if first == nil {
			return full
		}
		victim := first.Value.(*guestConn)
		c.refused("idle")
		_ = victim.Conn.Close() // immediately; the server notices at its next read
		c.leave(victim)
	}
	c.open++
	g.place = c.idle.PushBack(g)
	return nil
}

// room takes a descriptor for one more connection, or returns the exhausted resource. The caller holds mu.
func (c *crowd) room() error {
	if c.open >= c.limit {
		return &service.Error{Kind: service.KindOverloaded, Message: "there are too many connections; try again later",
			Resource: "connections", Used: int64(c.open), Limit: int64(c.limit), RetryAfter: flight.RetrySoon}
	}
	if c.idle.Len() > 0 { // an idle one can be closed
		if c.files.TryTake(budget.Descriptors, 1) {
			return nil
		}
		return errNoDescriptor
	}
	return c.files.Take(budget.Descriptors, 1)
}

// errNoDescriptor holds until an idle connection has been closed.
var errNoDescriptor = service.Errorf(service.KindOverloaded, "there are no descriptors for more connections")

// leave removes g. The caller holds mu.
func (c *crowd) leave(g *guestConn) {
	if g.gone {
		return
	}
	g.gone = true
	c.open--
	c.files.Give(budget.Descriptors, 1)
	c.idle.Remove(g.place) // it is in one of the two
	c.work.Remove(g.place)
	g.place = nil
}

// yieldEvery is the interval at which the journal's need of descriptors is checked.
const yieldEvery = 500 * time.Millisecond

// watch closes connections while more descriptors are in use than there are, until ctx ends.
func (c *crowd) watch(ctx context.Context) {
	tick := time.NewTicker(yieldEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.yield()
		}
	}
}

// yield closes as many connections as there are descriptors missing for others: idle ones first, then those
// of stalled clients, then those that have been at work longest, which are mainly streams; clients can resume
// these.
func (c *crowd) yield() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.open > 0 && c.files.Over(budget.Descriptors) > 0 {
		which, victim := "idle", c.idle.Front()
		if victim == nil {
			which, victim = "working", c.longestAtWork()
		}
		g := victim.Value.(*guestConn)
		c.refused(which)
		_ = g.Conn.Close() // immediately; its handler notices at its next read or write
		c.leave(g)
	}
}

// longestAtWork is the connection at work that has stalled longest or, if none has, that has been at work
// longest. The caller holds mu, and there is at least one.
func (c *crowd) longestAtWork() *list.Element {
	found, since := c.work.Front(), time.Now().Add(-c.stall).UnixNano()
	for e := found; e != nil; e = e.Next() {
		if at := e.Value.(*guestConn).flight.Stalled(); at < since {
			found, since = e, at
		}
	}
	return found
}

// atWork records that a handler works for g.
func (g *guestConn) atWork() {
	g.headers = g.flight.Begin()
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	if !g.gone {
		g.crowd.idle.Remove(g.place)
		g.place = g.crowd.work.PushBack(g)
	}
}

// Read implements net.Conn.
func (g *guestConn) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if n > 0 {
		if full := g.flight.Arrived(n); full != nil {
			return 0, full // the server closes the connection
		}
	}
	return n, err
}

// atRest records that no handler works for g.
func (g *guestConn) atRest() {
	g.flight.End(g.headers)
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	if !g.gone {
		g.crowd.work.Remove(g.place)
		g.place = g.crowd.idle.PushBack(g)
	}
}

// Close implements net.Conn.
func (g *guestConn) Close() error {
	err := g.Conn.Close() // first, so that its descriptor is free before others get it
	g.crowd.mu.Lock()
	g.crowd.leave(g)
	g.crowd.mu.Unlock()
	if !g.left.Swap(true) {
		g.flight.Leave()
	}
	return err
}

// CloseWrite lets a handler close its side and still read.
func (g *guestConn) CloseWrite() error {
	if tcp, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// fullAnswer is the answer to a refused connection.
func fullAnswer(full error) []byte {
	return problemAnswer(api.ProblemOf(full, ""), "Retry-After: 1")
}

// refuse closes a connection immediately; its answer fits into the socket's buffer.
func refuse(conn net.Conn, full error) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // it is closed in any case
	_, _ = conn.Write(fullAnswer(full))
	_ = conn.Close()
}

type connKey struct{}

// withConn lets handlers find their connection. Its name is that of a reader of logs.
func withConn(ctx context.Context, c net.Conn) context.Context {
	ctx = service.WithReader(ctx, c.RemoteAddr().String())
	return context.WithValue(ctx, connKey{}, c)
}

// arrive finds the account of a request: that of its connection or, if the connection belongs to another
// server, a new one. Call ended when the request has been answered. There is no account if the connection has
// been closed.
func (s *Server) arrive(
	w http.ResponseWriter, r *http.Request,
) (_ *http.Request, _ *http.ResponseController, _ *flight.Account, ended func()) {
	g := connOf(r.Context())
	if g == nil {
		return s.arriveElsewhere(w, r)
	}
	if !g.flight.Use() {
		return r, nil, nil, nil
	}
	g.atWork()
	return r, http.NewResponseController(w), g.flight, func() { g.atRest(); g.flight.Leave() }
}

func connOf(ctx context.Context) *guestConn {
	g, _ := ctx.Value(connKey{}).(*guestConn)
	return g
}
