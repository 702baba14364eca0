// Package stream gives a service's events to its subscribers. A subscriber is a [Cursor]: a
// position in the log and nothing else. It reads recent events from a ring in memory. If it has
// fallen behind the ring, it reads the journal, in turns with others. At the head it waits. So a
// slow subscriber delays only itself. No buffer grows without bound, and no event is left out.
package stream

import (
	"context"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// Reader is the part of the journal that a hub uses; see [commitlog.Journal].
type Reader interface {
	// Read yields the durable events with a position above after, in order. An event is valid
	// during its yield only.
	Read(ctx context.Context, log journal.LogName, after journal.Position, limit int,
		yield func(*journal.Event) error) error
	// Head is the position of the last durable event. First is the position of the first event that
	// was not deleted, or of the next one if there is none: 1 before any retention.
	Head(log journal.LogName) journal.Position
	First(log journal.LogName) journal.Position
	// Indexed is the position up to which ReadKeys finds all events of entities.
	Indexed(log journal.LogName) journal.Position
	// Origin is the identity of a log.
	Origin(log journal.LogName) journal.Stamp
	ReadKeys(log journal.LogName, keys []string) *commitlog.KeyReader
}

var _ Reader = (*commitlog.Journal)(nil)

// Options are what a hub is made of.
type Options struct {
	// Service is the service whose events are published.
	Service service.Name
	// Reader reads the events that are no longer in memory.
	Reader Reader
	// RingBytes bounds the recent events in memory, in bytes, with their encoded forms. Default: 16
	// MiB.
	RingBytes int64
	// Rings bounds the rings of all hubs of a host together. Default: one for this hub.
	Rings *Rings
	// Backlog reads for cursors that have fallen behind the ring; all hubs of a host share one.
	// Default: one for this hub.
	Backlog *Backlog
	// Account counts the bytes of the events that subscribers hold while they write them. Each
	// event counts once, however many subscribers hold it; see [service.Share]. Default: an account
	// without a limit.
	Account *budget.Account
}

func (o Options) withDefaults() Options {
	if o.RingBytes <= 0 {
		o.RingBytes = 16 << 20
	}
	if o.Rings == nil {
		o.Rings = NewRings(o.RingBytes)
	}
	if o.Backlog == nil {
		o.Backlog = NewBacklog(nil, 0)
	}
	if o.Account == nil {
		o.Account = budget.New(nil)
	}
	return o
}

// Hub takes a service's commits and gives their events to its subscribers. All methods are safe for
// concurrent use, except that only one goroutine at a time may call Publish.
type Hub struct {
	options Options
	log     journal.LogName
	memory  memory

	mu      sync.Mutex // guards all below; held only while pointers are copied
	ring    ring
	gaps    uint64        // how often the ring was emptied because a commit did not follow the last
	news    chan struct{} // closed at the next publication; nil if no cursor waits for it
	waiting waiting       // the filtered cursors at the head
	ended   error         // cause of Close; nil before it
}

// memory counts the bytes of events that subscribers hold.
type memory struct{ account *budget.Account }

// TryTake implements service.Memory.
func (m memory) TryTake(bytes int64) bool { return m.account.TryTake(budget.FlightBytes, bytes) }

// Give implements service.Memory.
func (m memory) Give(bytes int64) { m.account.Give(budget.FlightBytes, bytes) }

// New makes a hub. Its ring is empty: events that are already in the log are read from there.
func New(o Options) *Hub {
	h := &Hub{options: o.withDefaults(), log: journal.LogName(o.Service)}
	h.memory = memory{h.options.Account}
	h.ring = newRing(min(h.options.RingBytes, h.options.Rings.maxBytes), o.Reader.Head(h.log))
	h.options.Rings.add(h)
	return h
}

// Publish tells subscribers about a commit that is on disk. It keeps the slices of c's events, and
// does not block.
//
// Commits have to come in the order of the log. If one does not follow the last, the hub forgets
// the events in memory, and subscribers read the journal: they may get events later, but miss none.
func (h *Hub) Publish(r journal.Receipt, c *journal.Commit) {
	if !r.Valid() || r.Events() == 0 {
		return
	}
	events, room := make([]*service.Event, len(c.Events)), blocks{}
	for i := range events {
		e := &c.Events[i]
		events[i] = room.next(len(e.Data)+len(e.Metadata), len(events)-i)
		events[i].Init(h.options.Service, r.Origin(), journal.Event{
			Log: h.log, Position: r.First() + journal.Position(i),
			Key: c.Command.Key, Version: c.Expected + journal.Version(i) + 1,
			Type: e.Type, ContentType: e.ContentType, Data: e.Data, Metadata: e.Metadata,
			CommandID: c.Command.ID, CommandType: c.Command.Type, CommandTime: c.Command.Time,
			CommandFuel: c.Command.Fuel,
			Time:        r.Time(), Stamp: r.Stamp(),
		}, h.memory)
	}
	h.mu.Lock()
	h.changed(func() { h.push(r, events) })
	news := h.news
	h.news = nil
	h.mu.Unlock()
	if news != nil {
		close(news)
	}
	h.options.Rings.settle()
}

// push puts the events of a receipt into the ring. The caller holds mu.
func (h *Hub) push(r journal.Receipt, events []*service.Event) {
	if h.ended != nil { // cursors that are still reading use the log
		h.ring.reset(max(h.ring.head, r.Last()))
		return
	}
	switch {
	case r.First() == h.ring.head+1:
	case r.Last() <= h.ring.head: // repeated, or late; the journal has it in its place
		h.gaps++
		h.ring.reset(h.ring.head)
		events = nil
	default:
		h.gaps++
		h.waiting.wakeAll(h.ring.head)
		h.ring.reset(r.First() - 1)
	}
	for _, e := range events {
		h.ring.push(e)
		h.waiting.publish(e)
	}
}

// Head is the position of the last event that a subscriber can have.
func (h *Hub) Head() journal.Position {
	h.mu.Lock()
	head := h.ring.head
	h.mu.Unlock()
	return max(head, h.options.Reader.Head(h.log))
}

// Close ends all cursors: when a cursor has returned the last event, its Next returns cause. The
// hub releases its memory. Later calls change nothing.
func (h *Hub) Close(cause error) {
	h.options.Rings.remove(h)
	h.mu.Lock()
	if h.ended == nil {
		h.ended = cause
	}
	h.waiting.wakeAll(h.ring.head)
	h.changed(func() { h.ring.reset(h.ring.head) })
	news := h.news
	h.news = nil
	h.mu.Unlock()
	if news != nil {
		close(news)
	}
	h.options.Backlog.forget(h)
	h.options.Account.Close() // subscribers give back later what they still hold
}

// Rest releases the hub's memory, for a service that is not expected to publish for a while.
// Subscribers read the log, and wait at its end.
func (h *Hub) Rest() { h.shrink(0) }

// Stats are the figures of a hub.
type Stats struct {
	Head   journal.Position `json:"position"`
	Events int              `json:"events"` // in memory
	Bytes  int64            `json:"bytes"`  // size of those events
	Gaps   uint64           `json:"gaps"`   // publications that did not follow the last one
}

// Stats returns the present figures.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Stats{Head: h.ring.head, Events: h.ring.count, Bytes: h.ring.bytes, Gaps: h.gaps}
}

// Subscribe makes a cursor that begins after a position: 0 is the first available event, [Hub.Head]
// the end. KindBadCursor refuses a position that the log has not reached, and a position after
// which a retention has deleted events. A cursor need not be closed. reader names the owner of the
// cursor, for instance a connection: all cursors of one reader share its turns.
func (h *Hub) Subscribe(after journal.Position, f Filter, reader string) (*Cursor, error) {
	if after == 0 {
		after = h.options.Reader.First(h.log) - 1
	}
	return h.Resume(after, f, reader)
}

// Resume is [Hub.Subscribe] for a subscriber that has read up to a position. Here 0 is the position
// before the very first event; it is refused if a retention has deleted that event.
func (h *Hub) Resume(after journal.Position, f Filter, reader string) (*Cursor, error) {
	if head := h.Head(); after > head {
		return nil, service.Errorf(service.KindBadCursor, "the cursor is of the future: it is at position %d, "+
			"and the last event of the service has position %d", after, head)
	}
	if first := h.options.Reader.First(h.log); after < first-1 {
		return nil, Gone(after, first)
	}
	return &Cursor{hub: h, reader: reader, at: after, filter: newFilter(f)}, nil
}

// Gone is the error of a cursor whose next events were deleted by a retention.
func Gone(after, first journal.Position) *service.Error {
	return service.Errorf(service.KindBadCursor, "the events after position %d were deleted by a retention; the "+
		"first available has position %d, from where reading from the start begins", after, first)
}

// ring holds the events with the positions head-count+1 to head. The number of slots follows the
// number of events, within a factor.
type ring struct {
	slots    []*service.Event
	maxBytes int64
	head     journal.Position
	count    int
	bytes    int64
}

// minSlots is the smallest number of slots of a ring that is not empty.
const minSlots = 64

func newRing(bytes int64, head journal.Position) ring { return ring{maxBytes: bytes, head: head} }

func (r *ring) slot(p journal.Position) *(*service.Event) {
	return &r.slots[uint64(p)%uint64(len(r.slots))]
}

// push adds the event after head. Then it removes the oldest events until the bound holds, even e
// itself if it is too large.
func (r *ring) push(e *service.Event) {
	if r.count == len(r.slots) {
		r.resize(max(2*r.count, minSlots))
	}
	r.head++
	*r.slot(r.head) = e
	r.count++
	r.bytes += e.Size()
	for r.bytes > r.maxBytes {
		r.pop()
	}
}

func (r *ring) pop() {
	oldest := r.slot(r.head - journal.Position(r.count) + 1)
	r.bytes -= (*oldest).Size()
	*oldest = nil
	r.count--
}

// shrink removes the oldest events until the ring is not larger than to, in bytes.
func (r *ring) shrink(to int64) {
	for r.bytes > to {
		r.pop()
	}
	switch {
	case r.count == 0:
		r.slots = nil
	case len(r.slots) > 4*max(r.count, minSlots):
		r.resize(max(2*r.count, minSlots))
	}
}

// resize changes the number of slots, which must be at least count.
func (r *ring) resize(slots int) {
	next := ring{slots: make([]*service.Event, slots)}
	for p := r.head - journal.Position(r.count) + 1; p <= r.head; p++ {
		*next.slot(p) = *r.slot(p)
	}
	r.slots = next.slots
}

// reset empties the ring; the next event is the one after head.
func (r *ring) reset(head journal.Position) {
	r.slots, r.head, r.count, r.bytes = nil, head, 0, 0
}

// has reports whether the event after a position, if there is one, is in the ring.
func (r *ring) has(after journal.Position) bool {
	return after >= r.head-journal.Position(r.count)
}

// read appends the events after a position, at most limit.
func (r *ring) read(to []*service.Event, after journal.Position, limit int) []*service.Event {
	for p := after + 1; p <= r.head && limit > 0; p++ {
		to = append(to, *r.slot(p))
		limit--
	}
	return to
}
