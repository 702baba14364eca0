// Package flight bounds what is on its way through the gateway. Each connection has an account of its bytes
// in flight: headers, bodies, messages, answers and events, counted from before they are in memory until they
// are written or dropped. Only subscriptions wait for room, as their events can be read from the log again;
// everything else is refused. Large bodies, messages and answers also take turns, and share a rate limit.
package flight

import (
	"context"
	"io"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Shares of the bytes in flight. See [budget.Share].
const (
	// SmallFlight is what a connection may hold while others take all they can get: its buffers and a few
	// small commands.
	SmallFlight = 128 << 10
	// reserve is the part of all that is left to connections that hold no more than SmallFlight.
	reserve = 8
)

const flightBytes = budget.FlightBytes

// PieceBytes is how many bytes are read or written at a time. A client that takes less than that in
// [Options.StallTime] has stalled.
const PieceBytes = 64 << 10

// Options configure [NewAccounts].
type Options struct {
	// Host has the bytes in flight that all connections share.
	Host *budget.Account
	// ConnectionBytes is the maximum that one connection holds.
	ConnectionBytes int64
	// StallTime is how long a client may neither take nor send PieceBytes while others need room. Then its
	// connection is closed.
	StallTime time.Duration
	// Cut is called for each connection that is closed to make room. It must not block.
	Cut func()
	// Logger reports bytes that were never given back.
	Logger *slog.Logger
}

// Accounts are the accounts of all connections. They are safe for concurrent use.
type Accounts struct {
	group *budget.Account
	limit int64         // of one connection
	grace time.Duration // how long a client may stall when others need room
	cut   func()        // called for each connection that is closed to make room
	log   *slog.Logger

	looked atomic.Int64 // time of the last check for stalled clients, in Unix nanoseconds

	mu   sync.Mutex // guards open
	open map[*Account]struct{}
}

// NewAccounts makes accounts within those of a host. All fields of o are required.
func NewAccounts(o Options) *Accounts {
	a := &Accounts{
		group: o.Host.Group("connections", nil), limit: o.ConnectionBytes, grace: o.StallTime, cut: o.Cut,
		log: o.Logger, open: map[*Account]struct{}{},
	}
	a.group.SetShare(flightBytes, budget.Share{
		Parts: service.ConnectionParts, Small: SmallFlight, Reserve: o.Host.Limit(flightBytes) / reserve,
	})
	return a
}

// Account is the account of one connection. Calls that are on their way keep it open after the connection is
// gone. It is safe for concurrent use.
type Account struct {
	all     *Accounts
	account *budget.Account
	conn    io.Closer

	users atomic.Int64 // the connection, its handler, and calls on their way
	// Since when the host waits for the client to read or write, in Unix nanoseconds; 0: it does not wait.
	// The reading or writing goroutine sets its own.
	reading, writing atomic.Int64
	lasting          atomic.Int64  // bytes that subscriptions hold until they end
	freed            chan struct{} // has one when bytes were given back since the last check

	// Bytes that were read since the last handler ended; they may be headers of the next request. notCounted
	// while a handler is at work.
	unread atomic.Int64
}

const notCounted = -1

// Join opens an account for a connection, which uses it until [Account.Leave]. conn is closed if the client
// stalls while others need room.
func (a *Accounts) Join(name string, conn io.Closer) *Account {
	f := &Account{all: a, conn: conn, freed: make(chan struct{}, 1)}
	f.account = a.group.Child("connection "+name, budget.Limits{flightBytes: a.limit})
	f.users.Store(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[f] = struct{}{}
	return f
}

// Use keeps the account open until [Account.Leave]. It fails if the account is closed.
func (f *Account) Use() bool {
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

// Leave closes the account if it has no other users.
func (f *Account) Leave() {
	if f.users.Add(-1) > 0 {
		return
	}
	f.all.mu.Lock()
	delete(f.all.open, f)
	f.all.mu.Unlock()
	f.Give(int(max(0, f.unread.Load())))
	if held := f.account.Close(); held != nil { // a leak: it is given back now
		f.all.log.Error("bytes in flight were never given back", "held", held[flightBytes])
	}
}

// Arrived takes n bytes that were read while no handler is at work.
func (f *Account) Arrived(n int) error {
	if f.unread.Load() == notCounted || !f.Use() {
		return nil
	}
	defer f.Leave()
	if err := f.Take(n); err != nil {
		return err
	}
	for {
		had := f.unread.Load()
		if had == notCounted { // a handler has begun
			f.Give(n)
			return nil
		}
		if f.unread.CompareAndSwap(had, had+int64(n)) {
			return nil
		}
	}
}

// Begin records that a handler is at work. It returns the size of the headers that had arrived, which the
// handler gives back with [Account.End].
func (f *Account) Begin() (headers int) { return int(max(0, f.unread.Swap(notCounted))) }

// End records that no handler is at work.
func (f *Account) End(headers int) {
	f.Give(headers)
	f.unread.Store(0)
}

// BetweenRequests reports whether a part of a request has arrived on which no handler is at work.
func (f *Account) BetweenRequests() bool { return f.unread.Load() > 0 }

// Limit is the maximum that one connection may hold, in bytes.
func (f *Account) Limit() int64 { return f.all.limit }

// Take takes n bytes before they are in memory. Its error is for the client.
func (f *Account) Take(n int) error {
	err := f.account.Take(flightBytes, int64(n))
	if err != nil {
		f.pressed(n)
	}
	return err
}

// pressed closes stalled clients, to make room for later requests, if only other connections prevent this one
// from having n more bytes.
func (f *Account) pressed(n int) {
	if f.account.Limit(flightBytes)-f.account.Used(flightBytes) >= int64(n) {
		f.all.makeRoom(int64(n))
	}
}

// Give gives back n bytes that were written or dropped.
func (f *Account) Give(n int) {
	if n == 0 {
		return
	}
	f.account.Give(flightBytes, int64(n))
	select {
	case f.freed <- struct{}{}:
	default:
	}
}

// Writes records that the host waits for the client to take what is written, until [Account.HasWritten].
func (f *Account) Writes() { f.writing.Store(time.Now().UnixNano()) }

// HasWritten ends the wait that Writes began.
func (f *Account) HasWritten() { f.writing.Store(0) }

func (f *Account) reads()   { f.reading.Store(time.Now().UnixNano()) }
func (f *Account) hasRead() { f.reading.Store(0) }

// Stalled is since when the client has neither taken nor sent a piece, in Unix nanoseconds; the maximum int64
// if the host does not wait for it.
func (f *Account) Stalled() int64 {
	since := int64(math.MaxInt64)
	for _, at := range [...]int64{f.reading.Load(), f.writing.Load()} {
		if at > 0 {
			since = min(since, at)
		}
	}
	return since
}

// lookTime is the minimum time between two checks for stalled clients, so that refusals cost little.
const lookTime = 10 * time.Millisecond

// makeRoom closes the connections of clients that have stalled longest and hold much, until there will be
// room for n bytes and some more.
func (a *Accounts) makeRoom(n int64) {
	now := time.Now().UnixNano()
	last := a.looked.Load()
	if now-last < int64(lookTime) || !a.looked.CompareAndSwap(last, now) {
		return
	}
	type candidate struct {
		f     *Account
		since int64
	}
	var found []candidate
	a.mu.Lock()
	for f := range a.open {
		if since := f.Stalled(); since < now-int64(a.grace) && f.account.Used(flightBytes) > SmallFlight {
			found = append(found, candidate{f, since})
		}
	}
	a.mu.Unlock()
	slices.SortFunc(found, func(x, y candidate) int { return int(min(1, max(-1, x.since-y.since))) })
	for want := max(n*service.ConnectionParts, 4*a.limit); len(found) > 0 && want > 0; found = found[1:] {
		want -= found[0].f.account.Used(flightBytes)
		_ = found[0].f.conn.Close() // its reads and writes fail, and so its handler ends
		a.cut()
	}
}

// Bounds of the wait between two checks for room that others must give back.
const (
	minRoomWait = 20 * time.Millisecond
	maxRoomWait = time.Second
)

// Spare takes n bytes for something optional: if there is no room, no other connection is closed.
func (f *Account) Spare(n int) bool { return f.account.TryTake(flightBytes, int64(n)) }

// Try is Take, but a failure does not count as a refusal.
func (f *Account) Try(n int) bool {
	if f.account.TryTake(flightBytes, int64(n)) {
		return true
	}
	f.pressed(n)
	return false
}

// Wait returns when there is room for n bytes. It fails with ctx's error, or if there can never be room.
func (f *Account) Wait(ctx context.Context, n int) error {
	if max := f.all.limit - StreamBytes - f.lasting.Load(); int64(n) > max {
		return service.Errorf(service.KindTooLarge, "the next event takes %d bytes; with the host's limit for one "+
			"connection, and the subscriptions of this one, it may take %d", n, max)
	}
	for pause := minRoomWait; ; pause = min(2*pause, maxRoomWait) {
		timer := time.NewTimer(pause)
		select {
		case <-f.freed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
		if f.account.Room(flightBytes) >= int64(n) {
			return nil
		}
		f.pressed(n)
	}
}
