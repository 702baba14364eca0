// Package stream hands a service's events to its subscribers. A subscriber is a
// [Cursor]: a position in the log and nothing else. It reads from a ring of recent
// events in memory while it can and from the journal when it has fallen behind, in
// turns with others while it has a long way to go, and waits at the head. So a slow one costs itself time and others nothing;
// there is no buffer that grows and no event that is left out.
package stream

import (
	"context"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Reader is the journal as far as a hub knows it; see [journal.Journal].
type Reader interface {
	// Read yields the durable events with a position above after, in order. What
	// it yields is valid during the yield only.
	Read(ctx context.Context, log journal.LogName, after journal.Position, limit int, yield func(*journal.Event) error) error
	// Head is the position of the last durable event, First that of the first one that
	// is there, or will be: 1 if no retention has deleted any.
	Head(log journal.LogName) journal.Position
	First(log journal.LogName) journal.Position
	// Indexed is the position up to which ReadKeys finds all events of entities.
	Indexed(log journal.LogName) journal.Position
	// Origin is the identity of a log.
	Origin(log journal.LogName) journal.Stamp
	ReadKeys(log journal.LogName, keys []string) *journal.KeyReader
}

var _ Reader = (*journal.Journal)(nil)

// Options are what a hub is made of.
type Options struct {
	// Service is whose events these are.
	Service service.Name
	// Reader reads what is not in memory any more.
	Reader Reader
	// RingBytes bounds the recent events in memory, in bytes, their encoded forms included. Default 16 MiB.
	RingBytes int64
	// Rings bounds the rings of all hubs of a host together. Default: one of the hub's own.
	Rings *Rings
	// Backlog is how cursors read that are behind the ring; one for all hubs of a host. Default:
	// one of the hub's own.
	Backlog *Backlog
	// Account counts the bytes of events that subscribers hold while they write them, each event
	// once, however many hold it; see [service.Share]. Default: an account without a limit.
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

// Hub is the meeting place of a service's commits and its subscribers. All
// methods are safe for concurrent use; Publish by one goroutine at a time.
type Hub struct {
	options Options
	log     journal.LogName
	memory  memory

	mu      sync.Mutex // guards all below; held for a copy of pointers at the most
	ring    ring
	gaps    uint64        // times that the ring had to be given up
	news    chan struct{} // closed at the next publication; nil if nobody waits for anything
	waiting waiting       // for something
	ended   error         // why there will be no more; nil while there may be
}

// memory counts what subscribers hold of events in an account.
type memory struct{ account *budget.Account }

// TryTake implements service.Memory.
func (m memory) TryTake(bytes int64) bool { return m.account.TryTake(budget.FlightBytes, bytes) }

// Give implements service.Memory.
func (m memory) Give(bytes int64) { m.account.Give(budget.FlightBytes, bytes) }

// New makes a hub. What is in the log by now it leaves there.
func New(o Options) *Hub {
	h := &Hub{options: o.withDefaults(), log: journal.LogName(o.Service)}
	h.memory = memory{h.options.Account}
	h.ring = newRing(min(h.options.RingBytes, h.options.Rings.most), o.Reader.Head(h.log))
	h.options.Rings.add(h)
	return h
}

// Publish tells subscribers about a commit that is on disk. It keeps the slices
// of c's events, and does not block.
//
// Commits have to come in the order of the log. If one does not follow the last,
// the hub forgets what it has in memory, and subscribers read the journal: they
// may come late by that, but miss nothing.
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
			CommandID: c.Command.ID, CommandType: c.Command.Type, CommandTime: c.Command.Time, CommandFuel: c.Command.Fuel,
			Time: r.Time(), Stamp: r.Stamp(),
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
	if h.ended != nil { // those that are still reading have the log
		h.ring.reset(max(h.ring.head, r.Last()))
		return
	}
	switch {
	case r.First() == h.ring.head+1:
	case r.Last() <= h.ring.head: // again, or late; the journal has it where it belongs
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

// Close ends all cursors: their Next returns cause when they have come to the last event.
// What the hub has in memory it lets go of. Later calls change nothing.
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
	h.options.Account.Close() // who still holds something gives it back later
}

// Rest gives back what is in memory, for a service from which nothing comes for a while.
// Subscribers read the log, and wait at its end.
func (h *Hub) Rest() { h.shrink(0) }

// Stats are what a hub holds.
type Stats struct {
	Head   journal.Position `json:"position"`
	Events int              `json:"events"` // in memory
	Bytes  int64            `json:"bytes"`  // of them
	Gaps   uint64           `json:"gaps"`   // publications that did not follow the one before
}

// Stats returns what the hub holds now.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Stats{Head: h.ring.head, Events: h.ring.count, Bytes: h.ring.bytes, Gaps: h.gaps}
}

// Subscribe makes a cursor that begins after a position: 0 is the start of what
// there is, [Hub.Head] the end. A position that the log has not reached is
// KindBadCursor, and so is one with events behind it that a retention has deleted.
// There is nothing to close. reader says on whose behalf it reads, a connection for
// instance: those of one reader share the turns of one.
func (h *Hub) Subscribe(after journal.Position, f Filter, reader string) (*Cursor, error) {
	if after == 0 {
		after = h.options.Reader.First(h.log) - 1
	}
	return h.Resume(after, f, reader)
}

// Resume is [Hub.Subscribe] for who has been at a position: 0 is the place before the first event of
// all, behind which a retention may have deleted events as well.
func (h *Hub) Resume(after journal.Position, f Filter, reader string) (*Cursor, error) {
	if head := h.Head(); after > head {
		return nil, service.Errorf(service.KindBadCursor, "the cursor is of the future: it stands at %d, the last event of the service at %d", after, head)
	}
	if first := h.options.Reader.First(h.log); after < first-1 {
		return nil, Gone(after, first)
	}
	return &Cursor{hub: h, reader: reader, at: after, filter: newFilter(f)}, nil
}

// Gone is the error of a cursor behind which events are missing.
func Gone(after, first journal.Position) *service.Error {
	return service.Errorf(service.KindBadCursor, "the events after position %d were deleted by a retention; the first available has position %d, from where reading from the start begins", after, first)
}

// ring holds the events with the positions head-count+1 to head. It has as many slots as
// it needs, within a factor.
type ring struct {
	slots []*service.Event
	most  int64
	head  journal.Position
	count int
	bytes int64
}

// minSlots is how many slots a ring has that holds anything.
const minSlots = 64

func newRing(bytes int64, head journal.Position) ring { return ring{most: bytes, head: head} }

func (r *ring) slot(p journal.Position) *(*service.Event) {
	return &r.slots[uint64(p)%uint64(len(r.slots))]
}

// push adds the event after head and takes out the oldest as the bound demands,
// e itself if it is too big.
func (r *ring) push(e *service.Event) {
	if r.count == len(r.slots) {
		r.resize(max(2*r.count, minSlots))
	}
	r.head++
	*r.slot(r.head) = e
	r.count++
	r.bytes += e.Size()
	for r.bytes > r.most {
		r.pop()
	}
}

func (r *ring) pop() {
	oldest := r.slot(r.head - journal.Position(r.count) + 1)
	r.bytes -= (*oldest).Size()
	*oldest = nil
	r.count--
}

// shrink takes out the oldest until the ring is not larger than a size.
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

// resize gives the ring another number of slots, not below count.
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
