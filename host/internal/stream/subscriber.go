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
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
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

// fingerprint is a hash of the entities' keys; zero for all entities.
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
	// pageSteps bounds the steps of a Poll that finds nothing, so that a page over a long log with
	// a narrow filter ends in reasonable time.
	pageSteps = 256
	// turnEvents bounds the positions that a cursor passes in one turn, so that cursors on the same
	// way stay together and use the pieces that one of them has read.
	turnEvents = 4 * stepEvents
)

// Cursor reads a service's events one after the other. It is not safe for concurrent use.
type Cursor struct {
	hub    *Hub
	reader string
	at     journal.Position
	filter filter
	out    []*service.Event
	waiter *waiter // set while it waits at the head with a filter

	// The fields below are set once the cursor has read from the backlog.
	turn   *fair.Turn
	turned bool             // the turn may be held
	passed journal.Position // number of positions passed in this turn
	source source
	keys   *commitlog.KeyReader // nil if the filter has no keys
}

// Position is the position up to which every event has been returned or is not wanted. It advances
// even when nothing is found. A later subscriber may resume there.
func (c *Cursor) Position() journal.Position { return c.at }

// Next returns the next events, at least one and at most limit (0: no limit but that of a step). It
// waits if there are none. Each event comes once, in the order of the log, without gaps. The data
// and metadata of all events but the last are less than 1 MiB together. The slice is valid until
// the next call, or [Cursor.Release]; the events may be kept.
//
// A cursor that is far behind waits for its turn to read. It keeps the turn while the caller
// delivers the events: until the next call, but no longer than a turn lasts.
//
// The error is the cause of ctx's end, a failure of the journal as a [*service.Error], or the cause
// of [Hub.Close]. The cursor stays usable.
func (c *Cursor) Next(ctx context.Context, limit int) ([]*service.Event, error) {
	for {
		news, err := c.step(ctx, limit, true)
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

// woken advances the cursor past the events that were published while it waited and that it does
// not want.
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

// Poll returns the next events without waiting: at most limit, maybe none. atHead reports whether
// there are no more. If it is false, ask again, even if no event was returned: the cursor may have
// passed events that are not wanted. If ctx ends after the cursor has advanced, Poll returns
// without an error.
func (c *Cursor) Poll(ctx context.Context, limit int) (events []*service.Event, atHead bool, err error) {
	defer c.endTurn()
	begin := c.at
	for range pageSteps {
		if _, err := c.step(ctx, limit, false); err != nil && (ctx.Err() == nil || c.at == begin) {
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

// step looks at the next events and puts the wanted ones into out. At the head, if wait is set, it
// returns the channel that is closed when there are more.
func (c *Cursor) step(ctx context.Context, limit int, wait bool) (news <-chan struct{}, err error) {
	if limit <= 0 || limit > stepEvents {
		limit = stepEvents
	}
	c.Release() // the last call's slice is no longer valid
	h := c.hub
	h.mu.Lock()
	if h.ring.head > c.at+stepEvents || !h.ring.has(c.at) {
		// It is far behind, even if the ring still has its events.
		h.mu.Unlock()
		runtime.Gosched() // so that small commands need not wait for a whole turn
		if err := c.begin(ctx); err != nil {
			return nil, c.failure(ctx, err)
		}
		h.mu.Lock()
	} else {
		c.endTurn()
	}
	if !h.ring.has(c.at) {
		h.mu.Unlock()
		return nil, c.fromBacklog(ctx, limit)
	}
	// With a filter, look at more events than are asked for: few may be wanted.
	look := limit
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
	c.sift(limit)
	return nil, nil
}

// sift keeps the wanted events of out, within limit and stepBytes, and moves the cursor past all
// events that were looked at.
func (c *Cursor) sift(limit int) {
	kept, size, before := 0, 0, c.at
	for _, e := range c.out {
		if c.filter.wants(&e.Event) {
			if kept == limit || size >= stepBytes {
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

// Release releases the events that were returned last. It is for callers that will not ask for more
// for some time.
func (c *Cursor) Release() {
	clear(c.out)
	c.out = c.out[:0]
}

// fromBacklog is a step that reads the backlog. The cursor has a turn.
func (c *Cursor) fromBacklog(ctx context.Context, limit int) error {
	err := c.gone()
	var p *piece
	if err == nil {
		p, err = c.piece(ctx)
	}
	// A retention may have begun meanwhile: then the piece may begin later than at the cursor.
	if gone := c.gone(); gone != nil {
		err = gone
	}
	if err != nil {
		return c.failure(ctx, err)
	}
	before := c.at
	defer func() { c.passed += c.at - before }()
	for _, e := range p.eventsAfter(c.at) {
		if c.filter.wants(&e.Event) {
			if len(c.out) == limit {
				return nil
			}
			c.out = append(c.out, e)
		}
		c.at = e.Position
	}
	c.at = max(c.at, p.through)
	return nil
}

// gone returns an error if a retention has deleted events after the cursor.
func (c *Cursor) gone() error {
	if first := c.hub.options.Reader.First(c.hub.log); c.at+1 < first {
		return Gone(c.at, first)
	}
	return nil
}

// begin waits for a turn, unless the cursor still has one.
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

// piece returns the next piece for the cursor: from the index if only some entities are wanted, and
// otherwise from the log.
func (c *Cursor) piece(ctx context.Context) (*piece, error) {
	o := &c.hub.options
	if c.filter.keys != nil && c.at < o.Reader.Indexed(c.hub.log) {
		p, err := o.Backlog.get(ctx, c.source, c.at, func() (*piece, error) { return c.readKeys(ctx) })
		if journal.KindOf(err) != journal.KindCorrupt {
			return p, err
		}
		// The index is derived: if it is damaged, the log may still be whole.
	}
	return o.Backlog.get(ctx, source{hub: c.hub}, c.at, func() (*piece, error) { return c.readLog(ctx) })
}

// errFull ends a read of the journal when a step has enough.
var errFull = errors.New("enough for one step")

// collector makes a piece of the events that are read.
type collector struct {
	*piece
	cursor *Cursor
	origin journal.Stamp
	bytes  int
	room   blocks
}

func (c *Cursor) collect() *collector {
	return &collector{piece: &piece{after: c.at, through: c.at}, cursor: c,
		origin: c.hub.options.Reader.Origin(c.hub.log)}
}

// take copies an event of the journal into the piece. It returns errFull if the piece is complete.
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
			return service.Errorf(service.KindInternal, "position %d follows position %d in the journal",
				e.Position, p.through)
		}
		return p.take(e)
	})
	switch {
	case err == nil && p.through == p.after:
		// Events that were published must be in the journal.
		return nil, service.Errorf(service.KindInternal, "the event after position %d is not in the journal", p.after)
	case err == nil, errors.Is(err, errFull),
		// return the undamaged events; the next step meets the damage
		journal.KindOf(err) == journal.KindCorrupt && p.through > p.after:
		return p.piece, nil
	}
	return nil, err
}

// readKeys reads events of the cursor's entities from the index. When the turn is over, the piece
// may be empty; even so the next read begins further on.
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

// Crowded is the error of a reader that has to wait for a turn when too many readers wait already.
func Crowded(e *fair.FullError) *service.Error {
	return &service.Error{Kind: service.KindOverloaded, RetryAfter: time.Second,
		Message:  "too many readers are waiting for their turn",
		Resource: "waiting_readers", Used: int64(e.Waiting), Limit: int64(e.Max)}
}

func (c *Cursor) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.hub.mu.Lock()
	ended := c.hub.ended
	c.hub.mu.Unlock()
	if ended != nil { // the log may have been closed, too
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
