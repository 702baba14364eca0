// Package limitlistener is a listener that bounds the number of its open connections. When there are too many, it
// closes the connection that has been idle for the longest time. A connection is idle while no handler works for it,
// so neither silent connections nor slow headers can keep others out. A new connection is refused only if no
// connection is idle.
//
// Each connection takes a descriptor from the budget, so that the journal's are left to it; only a connection that is
// being refused has none. When the journal needs more, connections are closed until it has them.
package limitlistener

import (
	"container/list"
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Options configure [New]. All fields are required.
type Options struct {
	// Limit is the maximum number of open connections.
	Limit int
	// SocketBytes bounds what the system holds of a connection, in each direction.
	SocketBytes int
	// StallTime is how long a client may stall when others need its descriptor.
	StallTime time.Duration
	// Flights has an account for each connection, and Files counts their descriptors.
	Flights *flight.Accounts
	Files   *budget.Account
	// Closed is called for each connection that is closed to make room: a "newcomer", an "idle" or a
	// "working" one. It must not block.
	Closed func(which string)
	// Refuse returns the answer to a refused client; err names the exhausted resource.
	Refuse func(err error) []byte
	// Rewrite may replace the HTTP server's own answer: what is written after a part of a request has arrived
	// and while no handler is at work. nil leaves the answer unchanged.
	Rewrite func(b []byte, client string) []byte
}

// Listener bounds the number of its open connections. It is safe for concurrent use.
type Listener struct {
	net.Listener
	o Options

	mu   sync.Mutex // guards all below
	open int
	idle list.List // of *Conn, in the order of becoming idle
	work list.List // of those for which a handler works, in the order of its start
}

// Conn is a connection of a [Listener].
type Conn struct {
	net.Conn
	listener *Listener
	flight   *flight.Account

	place *list.Element // in listener.idle or listener.work; nil: closed. Guarded by listener.mu
	gone  bool          // guarded by listener.mu

	left atomic.Bool // its flight account has been left

	headers int // size of the headers of the present request, in bytes; owned by the handler
}

// New makes a listener of another.
func New(l net.Listener, o Options) *Listener { return &Listener{Listener: l, o: o} }

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.narrow(conn)
		c := &Conn{Conn: conn, listener: l, flight: l.o.Flights.Join(conn.RemoteAddr().String(), conn)}
		full := l.admit(c)
		if full == nil {
			runtime.Gosched() // otherwise a thousand new connections make others wait
			return c, nil
		}
		c.flight.Leave()
		l.o.Closed("newcomer")
		l.refuse(conn, full)
	}
}

// narrow bounds what the system holds of a connection. By default Linux holds up to some megabytes, which no
// budget counts, and which arrive as fast as the client can send.
func (l *Listener) narrow(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(l.o.SocketBytes) // reading detects a broken connection
		_ = tcp.SetWriteBuffer(l.o.SocketBytes)
	}
}

// admit adds c. If there is no room it closes the connection that has been idle longest, or returns the
// exhausted resource.
func (l *Listener) admit(c *Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		full := l.room()
		if full == nil {
			break
		}
		first := l.idle.Front()
		if first == nil {
			return full
		}
		victim := first.Value.(*Conn)
		l.o.Closed("idle")
		_ = victim.Conn.Close() // immediately; the server notices at its next read
		l.leave(victim)
	}
	l.open++
	c.place = l.idle.PushBack(c)
	return nil
}

// room takes a descriptor for one more connection, or returns the exhausted resource. The caller holds mu.
func (l *Listener) room() error {
	if l.open >= l.o.Limit {
		return &service.Error{Kind: service.KindOverloaded, Message: "there are too many connections; try again later",
			Resource: "connections", Used: int64(l.open), Limit: int64(l.o.Limit), RetryAfter: flight.RetrySoon}
	}
	if l.idle.Len() > 0 { // an idle one can be closed
		if l.o.Files.TryTake(budget.Descriptors, 1) {
			return nil
		}
		return errNoDescriptor
	}
	return l.o.Files.Take(budget.Descriptors, 1)
}

// errNoDescriptor holds until an idle connection has been closed.
var errNoDescriptor = service.Errorf(service.KindOverloaded, "there are no descriptors for more connections")

// leave removes c. The caller holds mu.
func (l *Listener) leave(c *Conn) {
	if c.gone {
		return
	}
	c.gone = true
	l.open--
	l.o.Files.Give(budget.Descriptors, 1)
	l.idle.Remove(c.place) // it is in one of the two
	l.work.Remove(c.place)
	c.place = nil
}

// yieldEvery is the interval at which the journal's need of descriptors is checked.
const yieldEvery = 500 * time.Millisecond

// Watch closes connections while more descriptors are in use than there are, until ctx ends.
func (l *Listener) Watch(ctx context.Context) {
	tick := time.NewTicker(yieldEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.yield()
		}
	}
}

// yield closes as many connections as there are descriptors missing for others: idle ones first, then those
// of stalled clients, then those that have been at work longest, which are mainly streams; clients can resume
// these.
func (l *Listener) yield() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.open > 0 && l.o.Files.Over(budget.Descriptors) > 0 {
		which, victim := "idle", l.idle.Front()
		if victim == nil {
			which, victim = "working", l.longestAtWork()
		}
		c := victim.Value.(*Conn)
		l.o.Closed(which)
		_ = c.Conn.Close() // immediately; its handler notices at its next read or write
		l.leave(c)
	}
}

// longestAtWork is the connection at work that has stalled longest or, if none has, that has been at work
// longest. The caller holds mu, and there is at least one.
func (l *Listener) longestAtWork() *list.Element {
	found, since := l.work.Front(), time.Now().Add(-l.o.StallTime).UnixNano()
	for e := found; e != nil; e = e.Next() {
		if at := e.Value.(*Conn).flight.Stalled(); at < since {
			found, since = e, at
		}
	}
	return found
}

// Begin records that a handler works for a connection, until ended is called, and returns its account. There is none if
// the connection has been closed.
func (c *Conn) Begin() (f *flight.Account, ended func()) {
	if !c.flight.Use() {
		return nil, nil
	}
	c.atWork()
	return c.flight, func() { c.atRest(); c.flight.Leave() }
}

func (c *Conn) atWork() {
	c.headers = c.flight.Begin()
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	if !c.gone {
		c.listener.idle.Remove(c.place)
		c.place = c.listener.work.PushBack(c)
	}
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		if full := c.flight.Arrived(n); full != nil {
			return 0, full // the server closes the connection
		}
	}
	return n, err
}

func (c *Conn) atRest() {
	c.flight.End(c.headers)
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	if !c.gone {
		c.listener.work.Remove(c.place)
		c.place = c.listener.idle.PushBack(c)
	}
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	err := c.Conn.Close() // first, so that its descriptor is free before others get it
	c.listener.mu.Lock()
	c.listener.leave(c)
	c.listener.mu.Unlock()
	if !c.left.Swap(true) {
		c.flight.Leave()
	}
	return err
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	if c.flight.BetweenRequests() {
		if other := c.listener.o.Rewrite(b, c.RemoteAddr().String()); other != nil {
			if _, err := c.Conn.Write(other); err != nil {
				return 0, err
			}
			return len(b), nil
		}
	}
	return c.Conn.Write(b)
}

// CloseWrite lets a handler close its side and still read.
func (c *Conn) CloseWrite() error {
	if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// refuse closes a connection immediately; its answer fits into the socket's buffer.
func (l *Listener) refuse(conn net.Conn, full error) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // it is closed in any case
	_, _ = conn.Write(l.o.Refuse(full))
	_ = conn.Close()
}

type connKey struct{}

// WithConn lets handlers find their connection with [Of]. Its name is that of a reader of logs.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	ctx = service.WithReader(ctx, c.RemoteAddr().String())
	return context.WithValue(ctx, connKey{}, c)
}

// Of returns the connection of a request, or nil if it is not of a [Listener].
func Of(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// Stalled returns how many clients have stalled, of those for which a handler works.
func (l *Listener) Stalled() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := time.Now().Add(-l.o.StallTime).UnixNano()
	for e := l.work.Front(); e != nil; e = e.Next() {
		if e.Value.(*Conn).flight.Stalled() < before {
			n++
		}
	}
	return n
}
