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

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// crowd is a listener that bounds how many of its connections are open. When
// there are too many, the connection that has been idle for longest is closed to
// make room: idle is whatever no handler works for, so neither silent connections
// nor headers that trickle in can keep others out. Only if all are at work is a
// newcomer refused. Each connection takes a descriptor from the budget, so that those of
// the journal are left to it; only the one that is about to be refused has none. When the
// journal comes to need more, connections are closed until it has them.
type crowd struct {
	net.Listener
	most    int
	socket  int // bytes that the system may hold of a connection, each way
	refused func(which string)
	// unreadable makes a problem of what net/http has refused.
	unreadable func(why *service.Error, status int, client string) api.Problem
	flights    *flight.Accounts
	stall      time.Duration   // for which a client may stall, when others need its descriptor
	files      *budget.Account // of the connections' descriptors

	mu   sync.Mutex // guards what follows
	open int
	idle list.List // of *guestConn, the one idle for longest first
	work list.List // of those that a handler works for, the one at work for longest first
}

// guestConn is a connection of a crowd.
type guestConn struct {
	net.Conn
	crowd  *crowd
	flight *flight.Account

	place *list.Element // in crowd.idle or crowd.work; nil: closed. Guarded by crowd.mu
	gone  bool          // guarded by crowd.mu

	left atomic.Bool // it has left flight

	headers int // of the request that a handler is at work on, in bytes; the handler's
}

func newCrowd(l net.Listener, s *Server) *crowd {
	o := &s.options
	return &crowd{
		Listener: l, most: o.Connections, socket: int(o.SocketBytes), refused: o.Metrics.Refused,
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
			runtime.Gosched() // a thousand newcomers at once have others wait, else
			return g, nil
		}
		g.flight.Leave()
		c.refused("newcomer")
		refuse(conn, full)
	}
}

// narrow bounds what the system holds of a connection. Left to itself, Linux lets it be some
// megabytes, which no budget counts and which come in as fast as the client can send.
func (c *crowd) narrow(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(c.socket) // one that is broken already is found by who reads it
		_ = tcp.SetWriteBuffer(c.socket)
	}
}

// admit counts g in, at the cost of the longest idle one if there is no room, or says
// what there is no room of.
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
		_ = victim.Conn.Close() // at once; the server finds out when it next reads
		c.leave(victim)
	}
	c.open++
	g.place = c.idle.PushBack(g)
	return nil
}

// room takes the descriptor of one more connection, or says what there is no room of. The
// caller holds mu.
func (c *crowd) room() error {
	if c.open >= c.most {
		return &service.Error{Kind: service.KindOverloaded, Message: "there are too many connections; try again later",
			Resource: "connections", Used: int64(c.open), Limit: int64(c.most), RetryAfter: flight.RetrySoon}
	}
	if c.idle.Len() > 0 { // it makes room
		if c.files.TryTake(budget.Descriptors, 1) {
			return nil
		}
		return errNoDescriptor
	}
	return c.files.Take(budget.Descriptors, 1)
}

// errNoDescriptor is for a moment, until an idle connection has made room.
var errNoDescriptor = service.Errorf(service.KindOverloaded, "there are no descriptors for more connections")

// leave counts g out; the caller holds mu.
func (c *crowd) leave(g *guestConn) {
	if g.gone {
		return
	}
	g.gone = true
	c.open--
	c.files.Give(budget.Descriptors, 1)
	c.idle.Remove(g.place) // in one of both
	c.work.Remove(g.place)
	g.place = nil
}

// yieldEvery is how often it is looked whether the journal needs descriptors.
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

// yield closes as many connections as there are descriptors in use that somebody else has
// come to need: idle ones, then those of clients that have stalled, then those that have been
// at work for longest, which are streams before all else; these can be resumed.
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
		_ = g.Conn.Close() // at once; its handler finds out when it next reads or writes
		c.leave(g)
	}
}

// longestAtWork is the connection at work that has stalled for longest, or, if none has, that
// has been at work for longest; the caller holds mu, and there is one.
func (c *crowd) longestAtWork() *list.Element {
	found, since := c.work.Front(), time.Now().Add(-c.stall).UnixNano()
	for e := found; e != nil; e = e.Next() {
		if at := e.Value.(*guestConn).flight.Stalled(); at < since {
			found, since = e, at
		}
	}
	return found
}

// atWork says that a handler works for g.
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

// atRest says that no handler does any more.
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
	err := g.Conn.Close() // first, so that nobody gets its descriptor before it is free
	g.crowd.mu.Lock()
	g.crowd.leave(g)
	g.crowd.mu.Unlock()
	if !g.left.Swap(true) {
		g.flight.Leave()
	}
	return err
}

// CloseWrite lets a handler end its side and still read what comes.
func (g *guestConn) CloseWrite() error {
	if tcp, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// fullAnswer is what a refused connection reads.
func fullAnswer(full error) []byte {
	return problemAnswer(api.ProblemOf(full, ""), "Retry-After: 1")
}

// refuse ends a connection at once; what it writes fits into the socket's buffer.
func refuse(conn net.Conn, full error) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // it is closed whatever fails
	_, _ = conn.Write(fullAnswer(full))
	_ = conn.Close()
}

type connKey struct{}

// withConn lets handlers find their connection, by whose name they read logs.
func withConn(ctx context.Context, c net.Conn) context.Context {
	ctx = service.WithReader(ctx, c.RemoteAddr().String())
	return context.WithValue(ctx, connKey{}, c)
}

// arrive finds the account of a request: that of its connection, or, if that came in by somebody else's
// server, one of its own. Call ended when the request has been answered. There is no account if the
// connection has been closed.
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
