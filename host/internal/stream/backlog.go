package stream

import (
	"cmp"
	"container/list"
	"context"
	"runtime"
	"slices"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Backlog is what cursors read that are behind the rings: pieces of logs. It is one for
// all hubs of a host. Cursors that are far behind take turns, there and in a ring, so that
// however many there are, most processors are left to those who write. What one has read is kept for a while, as
// those that come after a restart come to the same places at about the same time.
type Backlog struct {
	turns *fair.Turns
	most  int64

	mu      sync.Mutex // guards all below; nothing is read under it
	pieces  map[source][]*piece
	recent  list.List // of *piece, the one used last at the front
	bytes   int64
	reading map[place]*reading
}

// DefaultBacklogBytes is how much a backlog keeps by default, in bytes.
const DefaultBacklogBytes = 32 << 20

// NewBacklog makes a backlog that keeps pieces up to a size in bytes (0: the default;
// negative: none), of which cursors make use in turns (nil: one fewer than there are
// processors).
func NewBacklog(turns *fair.Turns, bytes int64) *Backlog {
	if turns == nil {
		turns = fair.New(fair.Options{Slots: runtime.GOMAXPROCS(0) - 1})
	}
	if bytes == 0 {
		bytes = DefaultBacklogBytes
	}
	return &Backlog{turns: turns, most: bytes, pieces: map[source][]*piece{}, reading: map[place]*reading{}}
}

// source is where events come from: the log of a hub, or what some of its entities have
// in the index.
type source struct {
	hub  *Hub
	keys [32]byte // a hash of them; zero is the log
}

type place struct {
	source source
	after  journal.Position
}

// piece is a part of what a source has: all its events with positions above after and
// not above through. It is not changed any more.
type piece struct {
	source         source
	after, through journal.Position
	events         []*service.Event
	bytes          int64 // that it takes in memory, with the encoded forms of its events
	place          *list.Element
}

// pieceBytes is what a piece takes beside its events.
const pieceBytes = 256

// behind returns the events of a piece behind a position.
func (p *piece) behind(after journal.Position) []*service.Event {
	at, _ := slices.BinarySearchFunc(p.events, after+1, func(e *service.Event, p journal.Position) int { return cmp.Compare(e.Position, p) })
	return p.events[at:]
}

// reading is a read that goes on. piece is there when done is closed; nil if it failed.
type reading struct {
	done  chan struct{}
	piece *piece
}

// get returns a piece of a source that begins at or before a position and has what
// follows on it. If there is none it is read, by one for all who want it; so whoever calls
// get holds a turn, and read does not wait for another.
func (b *Backlog) get(ctx context.Context, s source, after journal.Position, read func() (*piece, error)) (*piece, error) {
	for {
		b.mu.Lock()
		if p := b.find(s, after); p != nil {
			b.recent.MoveToFront(p.place)
			b.mu.Unlock()
			return p, nil
		}
		here := place{s, after}
		r := b.reading[here]
		if r == nil {
			r = &reading{done: make(chan struct{})}
			b.reading[here] = r
			b.mu.Unlock()
			return b.read(here, r, read)
		}
		b.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if r.piece != nil {
			return r.piece, nil
		}
	}
}

func (b *Backlog) read(here place, r *reading, read func() (*piece, error)) (*piece, error) {
	p, err := read()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.reading, here)
	if err == nil {
		r.piece = p
		b.keep(here.source, p)
	}
	close(r.done)
	return p, err
}

// find looks for a piece. The caller holds mu, as for all below.
func (b *Backlog) find(s source, after journal.Position) *piece {
	all := b.pieces[s]
	at, found := slices.BinarySearchFunc(all, after, byAfter)
	if !found {
		at--
	}
	if at < 0 || all[at].through <= after {
		return nil
	}
	return all[at]
}

func byAfter(p *piece, after journal.Position) int { return cmp.Compare(p.after, after) }

// keep puts a piece where others find it, and takes out those that were not used for
// longest as the bound demands.
func (b *Backlog) keep(s source, p *piece) {
	p.source, p.bytes = s, pieceBytes
	for _, e := range p.events {
		p.bytes += e.Size()
	}
	if p.through == p.after || p.bytes > b.most {
		return
	}
	all := b.pieces[s]
	at, found := slices.BinarySearchFunc(all, p.after, byAfter)
	if found { // with less in it
		b.drop(all[at])
		all = b.pieces[s]
	}
	b.pieces[s] = slices.Insert(all, at, p)
	p.place = b.recent.PushFront(p)
	for b.bytes += p.bytes; b.bytes > b.most; {
		b.drop(b.recent.Back().Value.(*piece))
	}
}

func (b *Backlog) drop(p *piece) {
	all := b.pieces[p.source]
	at, _ := slices.BinarySearchFunc(all, p.after, byAfter)
	if all = slices.Delete(all, at, at+1); len(all) > 0 {
		b.pieces[p.source] = all
	} else {
		delete(b.pieces, p.source)
	}
	b.recent.Remove(p.place)
	b.bytes -= p.bytes
}

// forget drops all pieces of a hub.
func (b *Backlog) forget(h *Hub) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s, all := range b.pieces {
		if s.hub == h {
			for _, p := range slices.Clone(all) {
				b.drop(p)
			}
		}
	}
}

// Bytes is the size of what the backlog keeps, in bytes.
func (b *Backlog) Bytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}
