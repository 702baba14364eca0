package gateway

import (
	"errors"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// What of the bytes in flight is in memory at a time is counted in an account for each
// connection: headers, bodies, messages, answers and events, from before they are there
// until they are written or dropped. Nobody waits for room but subscriptions, whose
// events are in the log anyway; all else is refused.

// Shares of the bytes in flight. See [budget.Share].
const (
	// smallFlight is what a connection may hold while others take all they can get: its
	// buffers and a few small commands.
	smallFlight = 128 << 10
	// flightReserve is the part of all that is left for connections that hold no more.
	flightReserve = 8
)

const flightBytes = budget.FlightBytes

// pieceBytes is what is written at a time. A client that takes less in the time that
// stalls are borne holds others up.
const pieceBytes = 64 << 10

// flights are the accounts of all connections.
type flights struct {
	group *budget.Account
	limit int64         // of one connection
	grace time.Duration // for which a stalled client is borne, when others need room
	cut   func()        // is told of a connection that was closed to make room
	log   *slog.Logger

	looked atomic.Int64 // when it was last looked for stalled ones, in Unix nanoseconds

	mu   sync.Mutex // guards open
	open map[*flight]struct{}
}

func newFlights(root *budget.Account, connection int64, o *Options) *flights {
	f := &flights{
		group: root.Group("connections", nil), limit: connection, grace: o.StallTime,
		cut: func() { o.Metrics.Refused("stalled") }, log: o.Logger, open: map[*flight]struct{}{},
	}
	f.group.SetShare(flightBytes, budget.Share{
		Parts: service.ConnectionParts, Small: smallFlight, Reserve: root.Limit(flightBytes) / flightReserve,
	})
	return f
}

// flight is the account of one connection. Calls that are on their way keep it open
// when the connection is gone. It is safe for concurrent use.
type flight struct {
	all     *flights
	account *budget.Account
	conn    io.Closer

	users atomic.Int64 // the connection, its handler, and calls on their way
	// Since when the client is waited for with something in hand, in Unix nanoseconds; 0:
	// it is not. Each is set by the goroutine that reads, or writes.
	reading, writing atomic.Int64
	lasting          atomic.Int64  // what subscriptions hold of it until they end, in bytes
	freed            chan struct{} // has one when something was given back since it was last looked at

	// What was read since the last handler ended, and so may be headers of the next
	// request, in bytes; notCounted while a handler is at work.
	unread atomic.Int64
}

const notCounted = -1

// join opens an account for a connection, whose place in it ends with leave.
func (a *flights) join(name string, conn io.Closer) *flight {
	f := &flight{all: a, conn: conn, freed: make(chan struct{}, 1)}
	f.account = a.group.Child("connection "+name, budget.Limits{flightBytes: a.limit})
	f.users.Store(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[f] = struct{}{}
	return f
}

// use keeps the account open until leave. It fails if it is closed already.
func (f *flight) use() bool {
	for {
		n := f.users.Load()
		if n == 0 {
			return false
		}
		if f.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// leave closes the account if nobody else uses it.
func (f *flight) leave() {
	if f.users.Add(-1) > 0 {
		return
	}
	f.all.mu.Lock()
	delete(f.all.open, f)
	f.all.mu.Unlock()
	f.give(int(max(0, f.unread.Load())))
	if held := f.account.Close(); held != nil { // given back now, but wrong until then
		f.all.log.Error("bytes in flight were forgotten", "held", held[flightBytes])
	}
}

// arrived takes what was read while no handler is at work.
func (f *flight) arrived(n int) error {
	if f.unread.Load() == notCounted || !f.use() {
		return nil
	}
	defer f.leave()
	if err := f.take(n); err != nil {
		return err
	}
	for {
		had := f.unread.Load()
		if had == notCounted { // a handler has begun
			f.give(n)
			return nil
		}
		if f.unread.CompareAndSwap(had, had+int64(n)) {
			return nil
		}
	}
}

// take takes bytes before they are there, or fails with what to tell the client.
func (f *flight) take(n int) error {
	err := f.account.Take(flightBytes, int64(n))
	if err != nil {
		f.pressed(n)
	}
	return err
}

// pressed has clients that are stalled make room for the next who asks, if the connection
// could have n more bytes but for others.
func (f *flight) pressed(n int) {
	if f.account.Limit(flightBytes)-f.account.Used(flightBytes) >= int64(n) {
		f.all.makeRoom(int64(n))
	}
}

// give gives bytes back that are written or dropped.
func (f *flight) give(n int) {
	if n == 0 {
		return
	}
	f.account.Give(flightBytes, int64(n))
	select {
	case f.freed <- struct{}{}:
	default:
	}
}

// reads and writes say that the client is waited for; they return what ends that.
func (f *flight) reads()  { f.reading.Store(time.Now().UnixNano()) }
func (f *flight) read()   { f.reading.Store(0) }
func (f *flight) writes() { f.writing.Store(time.Now().UnixNano()) }
func (f *flight) wrote()  { f.writing.Store(0) }

// stalled is since when the client has neither taken nor sent a piece; the largest
// number if it is not waited for.
func (f *flight) stalled() int64 {
	since := int64(math.MaxInt64)
	for _, at := range [...]int64{f.reading.Load(), f.writing.Load()} {
		if at > 0 {
			since = min(since, at)
		}
	}
	return since
}

// lookTime bounds how often it is looked for stalled clients, so that refusals cost little.
const lookTime = 10 * time.Millisecond

// makeRoom closes connections whose clients have stalled for longest with much in hand,
// until there will be room for n bytes and some more.
func (a *flights) makeRoom(n int64) {
	now := time.Now().UnixNano()
	last := a.looked.Load()
	if now-last < int64(lookTime) || !a.looked.CompareAndSwap(last, now) {
		return
	}
	type candidate struct {
		f     *flight
		since int64
	}
	var found []candidate
	a.mu.Lock()
	for f := range a.open {
		if since := f.stalled(); since < now-int64(a.grace) && f.account.Used(flightBytes) > smallFlight {
			found = append(found, candidate{f, since})
		}
	}
	a.mu.Unlock()
	slices.SortFunc(found, func(x, y candidate) int { return int(min(1, max(-1, x.since-y.since))) })
	for want := max(n*service.ConnectionParts, 4*a.limit); len(found) > 0 && want > 0; found = found[1:] {
		want -= found[0].f.account.Used(flightBytes)
		_ = found[0].f.conn.Close() // its reads and writes fail, and with them its handler ends
		a.cut()
	}
}

// What a call takes beside its data, in bytes, its place in the queue of answers
// included; and a query on a stream, which has a goroutine that waits.
const (
	callBytes  = 1 << 10
	queryBytes = 5 << 10
)

// What a reader of events takes until it ends, in bytes: its goroutine and the events
// that it looks at; and, beside its text, each type and each key of its filter, which are
// in several lists and sets.
const (
	readerBytes = 12 << 10
	filterBytes = 384
)

// readerRoom is what a reader of a selection takes until it ends, in bytes.
func readerRoom(sel *view) int {
	n := readerBytes + filterBytes*(len(sel.Types)+len(sel.Keys))
	for _, t := range sel.Types {
		n += 2 * len(t)
	}
	for _, k := range sel.Keys {
		n += 2 * len(k)
	}
	return n
}

// subscribe takes what a subscription holds until it ends, with what is returned.
func (f *flight) subscribe(n int) (ended func(), err error) {
	if err := f.take(n); err != nil {
		return nil, err
	}
	f.lasting.Add(int64(n))
	return func() {
		f.lasting.Add(-int64(n))
		f.give(n)
	}, nil
}

// carriage is what one command or query holds: its data until the host has no more use
// for it, and its answer until that is written or dropped. It implements service.Carrier.
type carriage struct {
	f *flight

	mu     sync.Mutex // guards all below
	data   int        // taken for the data
	reply  int        // taken for the answer
	landed bool       // the host has no more use for the data
	over   bool       // nobody wants the answer any more
}

var _ service.Carrier = (*carriage)(nil)

// carry takes over what was taken for data, and takes what the call takes beside it.
func (f *flight) carry(data, beside int) (*carriage, error) {
	if !f.use() {
		return nil, errOver
	}
	if err := f.take(beside); err != nil {
		f.leave()
		return nil, err
	}
	return &carriage{f: f, data: data, reply: beside}, nil
}

var errOver = &service.Error{Kind: service.KindCanceled, Message: "the client has gone away"}

// Unload implements service.Carrier.
func (c *carriage) Unload() {
	c.mu.Lock()
	c.f.give(c.data)
	last := !c.landed && c.over
	c.data, c.landed = 0, true
	c.mu.Unlock()
	if last {
		c.f.leave()
	}
}

// Load implements service.Carrier.
func (c *carriage) Load(reply int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return errOver
	}
	if err := c.f.take(reply); err != nil {
		return err
	}
	c.reply += reply
	return nil
}

// free gives the answer back, which was written or is dropped.
func (c *carriage) free() {
	c.mu.Lock()
	c.f.give(c.reply)
	last := !c.over && c.landed
	c.reply, c.over = 0, true
	c.mu.Unlock()
	if last {
		c.f.leave()
	}
}

// maxErrorText is how much of an error's texts is within callBytes.
const maxErrorText = 256

// fit makes room for the texts of an error, which may be a guest's, or shortens them.
func (c *carriage) fit(err error) error {
	var e *service.Error
	if !errors.As(err, &e) {
		return err
	}
	size := len(e.Message) + len(e.Code) + len(e.Detail)
	for _, r := range e.Reasons {
		size += len(r)
	}
	if size <= maxErrorText || c.Load(size) == nil {
		return err
	}
	return &service.Error{
		Op: e.Op, Service: e.Service, Kind: e.Kind, Code: shortened(e.Code), Message: shortened(e.Message),
		RetryAfter: e.RetryAfter, Fuel: e.Fuel, Resource: e.Resource, Used: e.Used, Limit: e.Limit,
		Version: e.Version,
	}
}

// shortened is a copy of the start of a text.
func shortened(s string) string {
	if len(s) <= maxErrorText {
		return s
	}
	return strings.ToValidUTF8(s[:maxErrorText], "") + "…"
}
