package stream

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Filter says which events a subscriber wants. An empty list wants all.
type Filter struct {
	Types []service.Type
	Keys  []service.Key
}

// filter is a Filter to look things up in.
type filter struct {
	types, keys map[string]struct{} // nil is all
}

func newFilter(f Filter) filter {
	return filter{set(f.Types), set(f.Keys)}
}

func set[S ~string](list []S) map[string]struct{} {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]struct{}, len(list))
	for _, s := range list {
		m[string(s)] = struct{}{}
	}
	return m
}

// fingerprint stands for the entities, zero for all.
func (f *filter) fingerprint() (hash [sha256.Size]byte) {
	if f.keys == nil {
		return hash
	}
	var b []byte
	for _, key := range slices.Sorted(maps.Keys(f.keys)) {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(key))), key...)
	}
	return sha256.Sum256(b)
}

func (f *filter) wants(e *journal.Event) bool {
	if f.types != nil {
		if _, ok := f.types[e.Type]; !ok {
			return false
		}
	}
	if f.keys != nil {
		if _, ok := f.keys[e.Key]; !ok {
			return false
		}
	}
	return true
}

// Bounds of one step of a cursor.
const (
	stepEvents = 512     // events looked at
	stepBytes  = 1 << 20 // bytes of the events that a step reads from the journal, or returns, but for the last
	// pageSteps bounds the steps of a Poll that finds nothing, so that a page over a
	// long log with a narrow filter ends in reasonable time.
	pageSteps = 256
	// turnEvents bounds the positions that a cursor passes in one turn, so
	// that those that go the same way stay together and find what one of them has read.
	turnEvents = 4 * stepEvents
)

// Cursor reads a service's events one after the other. One goroutine at a time
// uses it.
type Cursor struct {
	hub    *Hub
	reader string
	at     journal.Position
	filter filter
	out    []*service.Event
	waiter *waiter // while it waits for something at the head

	// Of a cursor that was far behind.
	turn   *fair.Turn
	turned bool             // the turn may be held
	passed journal.Position // positions in this turn
	source source
	keys   *journal.KeyReader // nil if it is not one of some entities
}

// Position is how far the cursor has come: every event up to it has been
// returned, or is not wanted. It goes on although nothing is found, and is where a
// later subscriber may resume.
func (c *Cursor) Position() journal.Position { return c.at }

// Next returns the next events, at least one and at most most (0: as many as is
// sensible), and waits for them if there are none. Each event comes once, in
// the order of the log, without gaps. The slice is valid until the next call, or
// [Cursor.Release]; the events may be kept. There are no more than a MiB of them, or one.
//
// A cursor that is far behind waits for its turn to read, and keeps that while its
// events are on their way to whom they are for: until the next call, but no longer than a
// turn lasts.
//
// The error is the cause of ctx's end, a failure of the journal as a
// [*service.Error], or the reason of [Hub.Close]; the cursor stays usable.
func (c *Cursor) Next(ctx context.Context, most int) ([]*service.Event, error) {
	for {
		news, err := c.step(ctx, most, true)
		switch {
		case err != nil:
			c.endTurn()
			return c.out, err
		case len(c.out) > 0:
			if c.turned {
				c.turn.Rest()
			}
			return c.out, nil
		case ctx.Err() != nil:
			c.endTurn()
			return nil, context.Cause(ctx)
		case news == nil:
			continue
		}
		select {
		case <-news:
			c.woken()
		case <-ctx.Done():
			c.woken()
			return nil, context.Cause(ctx)
		}
	}
}

// woken goes past what was published while the cursor waited, and was not for it.
func (c *Cursor) woken() {
	if c.waiter == nil {
		return
	}
	h := c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting.remove(c.waiter)
	if c.waiter.woken {
		c.at = max(c.at, c.waiter.to)
	} else {
		c.at = max(c.at, h.ring.head)
	}
	c.waiter = nil
}

// Poll returns what there is, without waiting for more: at most most events, maybe none.
// atHead reports whether that was all; if not, ask again, even after none: the
// cursor may have passed by what is not wanted, which is also what comes of it when ctx
// ends on the way.
func (c *Cursor) Poll(ctx context.Context, most int) (events []*service.Event, atHead bool, err error) {
	defer c.endTurn()
	begin := c.at
	for range pageSteps {
		if _, err := c.step(ctx, most, false); err != nil && (ctx.Err() == nil || c.at == begin) {
			return nil, false, err
		}
		if len(c.out) > 0 || c.at >= c.hub.Head() || ctx.Err() != nil && c.at > begin {
			break
		}
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
	}
	return c.out, c.at >= c.hub.Head(), nil
}

func (c *Cursor) endTurn() {
	if c.turned {
		c.turn.End()
		c.turned, c.passed = false, 0
	}
}

// step looks at the next few events and leaves those that are wanted in out. At
// the head it returns the channel that closes with news, if wait is set.
func (c *Cursor) step(ctx context.Context, most int, wait bool) (news <-chan struct{}, err error) {
	if most <= 0 || most > stepEvents {
		most = stepEvents
	}
	c.Release() // what was returned before belongs to nobody now
	h := c.hub
	h.mu.Lock()
	if h.ring.head > c.at+stepEvents || !h.ring.has(c.at) {
		// It has a long way to go, in the ring or not.
		h.mu.Unlock()
		runtime.Gosched() // small commands shall not wait for a whole turn
		if err := c.begin(ctx); err != nil {
			return nil, c.failure(ctx, err)
		}
		h.mu.Lock()
	} else {
		c.endTurn()
	}
	if !h.ring.has(c.at) {
		h.mu.Unlock()
		return nil, c.fromBacklog(ctx, most)
	}
	// With a filter look at more than is asked for: few may be wanted.
	look := most
	if c.filter.types != nil || c.filter.keys != nil {
		look = stepEvents
	}
	c.out = h.ring.read(c.out, c.at, look)
	if len(c.out) == 0 {
		defer h.mu.Unlock()
		c.endTurn()
		if h.ended != nil {
			return nil, h.ended
		}
		switch {
		case !wait:
			return nil, nil
		case c.filter.types != nil || c.filter.keys != nil:
			c.waiter = h.waiting.add(&c.filter)
			return c.waiter.ready, nil
		case h.news == nil:
			h.news = make(chan struct{})
		}
		return h.news, nil
	}
	h.mu.Unlock()
	c.sift(most)
	return nil, nil
}

// sift keeps those of out that are wanted, at most most and not many bytes, and moves the
// cursor behind all that were looked at.
func (c *Cursor) sift(most int) {
	kept, size, before := 0, 0, c.at
	for _, e := range c.out {
		if c.filter.wants(&e.Event) {
			if kept == most || size >= stepBytes {
				break
			}
			size += len(e.Data) + len(e.Metadata)
			c.out[kept] = e
			kept++
		}
		c.at = e.Position
	}
	c.passed += c.at - before
	clear(c.out[kept:])
	c.out = c.out[:kept]
}

// Release lets go of the events that were returned last, for those who take long before
// they ask for the next.
func (c *Cursor) Release() {
	clear(c.out)
	c.out = c.out[:0]
}

// fromBacklog is a step behind the ring, of a cursor with a turn.
func (c *Cursor) fromBacklog(ctx context.Context, most int) error {
	err := c.gone()
	var p *piece
	if err == nil {
		p, err = c.piece(ctx)
	}
	// A retention may have begun meanwhile. Whoever reads from 0 gets what it leaves, which is
	// not what follows on the cursor.
	if gone := c.gone(); gone != nil {
		err = gone
	}
	if err != nil {
		return c.failure(ctx, err)
	}
	before := c.at
	defer func() { c.passed += c.at - before }()
	for _, e := range p.behind(c.at) {
		if c.filter.wants(&e.Event) {
			if len(c.out) == most {
				return nil
			}
			c.out = append(c.out, e)
		}
		c.at = e.Position
	}
	c.at = max(c.at, p.through)
	return nil
}

// gone is the error of a cursor behind which a retention has deleted events.
func (c *Cursor) gone() error {
	if first := c.hub.options.Reader.First(c.hub.log); c.at+1 < first {
		return Gone(c.at, first)
	}
	return nil
}

// begin waits for a turn, or goes on with the one that the cursor has.
func (c *Cursor) begin(ctx context.Context) error {
	if c.turn == nil {
		c.turn = c.hub.options.Backlog.turns.Turn(string(c.hub.options.Service), c.reader)
		c.source = source{hub: c.hub, keys: c.filter.fingerprint()}
	}
	if c.passed >= turnEvents {
		c.endTurn()
	}
	if err := c.turn.Begin(ctx); err != nil {
		c.turned = false
		return err
	}
	c.turned = true
	return nil
}

// piece returns what follows on the cursor: of some entities what the index has, else
// what is in the log.
func (c *Cursor) piece(ctx context.Context) (*piece, error) {
	o := &c.hub.options
	if c.filter.keys != nil && c.at < o.Reader.Indexed(c.hub.log) {
		p, err := o.Backlog.get(ctx, c.source, c.at, func() (*piece, error) { return c.readKeys(ctx) })
		if journal.KindOf(err) != journal.KindCorrupt {
			return p, err
		}
		// The index is derived: what is damaged in it may be whole in the log.
	}
	return o.Backlog.get(ctx, source{hub: c.hub}, c.at, func() (*piece, error) { return c.readLog(ctx) })
}

// errFull ends a read of the journal that has brought enough.
var errFull = errors.New("enough for one step")

// collector makes a piece of what is read.
type collector struct {
	*piece
	cursor *Cursor
	origin journal.Stamp
	bytes  int
	room   blocks
}

func (c *Cursor) collect() *collector {
	return &collector{piece: &piece{after: c.at, through: c.at}, cursor: c, origin: c.hub.options.Reader.Origin(c.hub.log)}
}

// take copies an event out of the journal, unless that was enough.
func (p *collector) take(e *journal.Event) error {
	if p.bytes >= stepBytes {
		return errFull
	}
	if n := len(p.events); n > 0 && n%together == 0 && p.cursor.turn.Spent() {
		return errFull
	}
	own := p.room.next(len(e.Data)+len(e.Metadata), together)
	of, data := *e, append(append(make([]byte, 0, len(e.Data)+len(e.Metadata)), e.Data...), e.Metadata...)
	of.Data, of.Metadata = data[:len(e.Data):len(e.Data)], data[len(e.Data):]
	own.Init(p.cursor.hub.options.Service, p.origin, of, p.cursor.hub.memory)
	p.bytes += len(data)
	p.events = append(p.events, own)
	p.through = e.Position
	return nil
}

// readLog reads a piece of the log.
func (c *Cursor) readLog(ctx context.Context) (*piece, error) {
	p := c.collect()
	err := c.hub.options.Reader.Read(ctx, c.hub.log, c.at, stepEvents, func(e *journal.Event) error {
		if e.Position != p.through+1 {
			return service.Errorf(service.KindInternal, "position %d follows position %d in the journal", e.Position, p.through)
		}
		return p.take(e)
	})
	switch {
	case err == nil && p.through == p.after:
		// What is behind the ring must be there, or nobody would have published it.
		return nil, service.Errorf(service.KindInternal, "the event after position %d is not in the journal", p.after)
	case err == nil, errors.Is(err, errFull),
		journal.KindOf(err) == journal.KindCorrupt && p.through > p.after: // what is whole goes out; the next step meets the damage
		return p.piece, nil
	}
	return nil, err
}

// readKeys reads what the index has of the cursor's entities. It may come to nothing but
// a better idea of where that is, when the turn is over.
func (c *Cursor) readKeys(ctx context.Context) (*piece, error) {
	if c.keys == nil {
		c.keys = c.hub.options.Reader.ReadKeys(c.hub.log, slices.Sorted(maps.Keys(c.filter.keys)))
	}
	p := c.collect()
	through, err := c.keys.Read(ctx, c.at, stepEvents, func() bool { return !c.turn.Spent() }, p.take)
	if err != nil && !errors.Is(err, errFull) {
		return nil, err
	}
	p.through = through
	return p.piece, nil
}

// Crowded is the error of who wants to read a log when as many wait for that as may.
func Crowded(e *fair.FullError) *service.Error {
	return &service.Error{Kind: service.KindOverloaded, RetryAfter: time.Second, Message: "too many readers are waiting for their turn",
		Resource: "waiting_readers", Used: int64(e.Waiting), Limit: int64(e.Most)}
}

func (c *Cursor) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.hub.mu.Lock()
	ended := c.hub.ended
	c.hub.mu.Unlock()
	if ended != nil { // and the log may have been closed with it
		return ended
	}
	var own *service.Error
	var full *fair.FullError
	switch {
	case errors.As(err, &own):
	case errors.As(err, &full):
		own = Crowded(full)
	default:
		return service.FromJournal{Use: service.JournalRead, Op: "read events", Service: c.hub.options.Service,
			Words: map[journal.ErrorKind]string{
				journal.KindCorrupt: fmt.Sprintf("events after position %d are damaged (%%s)", c.at),
				journal.KindTrimmed: Gone(c.at, c.hub.options.Reader.First(c.hub.log)).Message,
			},
			Otherwise: "the journal cannot be read at present"}.Make(err)
	}
	own.Op, own.Service = "read events", c.hub.options.Service
	return own
}
