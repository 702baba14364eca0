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

// Backlog reads pieces of logs for cursors that have fallen behind the rings. All hubs of a host
// share one. Such cursors take turns, so that most processors stay free for writers, however many
// cursors there are. A piece is kept for a while after it was read: after a restart, many cursors
// come to the same places at about the same time.
type Backlog struct {
	turns    *fair.Turns
	maxBytes int64

	mu      sync.Mutex // guards all below; nothing is read under it
	pieces  map[source][]*piece
	recent  list.List // of *piece, the most recently used first
	bytes   int64
	reading map[place]*reading
}

// DefaultBacklogBytes is the default size of the kept pieces, in bytes.
const DefaultBacklogBytes = 32 << 20

// NewBacklog makes a backlog that keeps pieces of at most the given bytes (0: the default;
// negative: none). Cursors use it in turns (nil: one turn fewer than there are processors).
func NewBacklog(turns *fair.Turns, bytes int64) *Backlog {
	if turns == nil {
		turns = fair.New(fair.Options{Slots: runtime.GOMAXPROCS(0) - 1})
	}
	if bytes == 0 {
		bytes = DefaultBacklogBytes
	}
	return &Backlog{turns: turns, maxBytes: bytes, pieces: map[source][]*piece{}, reading: map[place]*reading{}}
}

// source is where events are read from: the log of a hub, or the index of some of its entities.
type source struct {
	hub  *Hub
	keys [32]byte // a hash of them; zero is the log
}

type place struct {
	source source
	after  journal.Position
}

// piece is a part of a source: all its events with positions above after and up to through. It is
// immutable.
type piece struct {
	source         source
	after, through journal.Position
	events         []*service.Event
	bytes          int64 // size in memory, with the encoded forms of its events
	place          *list.Element
}

// pieceBytes is the size of a piece without its events.
const pieceBytes = 256

// eventsAfter returns the events of a piece with positions above position.
func (p *piece) eventsAfter(position journal.Position) []*service.Event {
	at, _ := slices.BinarySearchFunc(p.events, position+1, func(e *service.Event, p journal.Position) int {
		return cmp.Compare(e.Position, p)
	})
	return p.events[at:]
}

// reading is a read in progress. When done is closed, piece is set, or nil if the read failed.
type reading struct {
	done  chan struct{}
	piece *piece
}

// get returns a piece of a source that begins at or before a position and includes the next events
// after it. If there is none, one caller reads it for all that want it. So every caller must hold a
// turn before, and read must not wait for another one.
func (b *Backlog) get(ctx context.Context, s source, after journal.Position, read func() (*piece, error)) (*piece,
	error) {
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

// find looks for a piece. The caller holds mu, as for all functions below.
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

// keep stores a piece for other cursors, and evicts the least recently used pieces until the bound
// holds.
func (b *Backlog) keep(s source, p *piece) {
	p.source, p.bytes = s, pieceBytes
	for _, e := range p.events {
		p.bytes += e.Size()
	}
	if p.through == p.after || p.bytes > b.maxBytes {
		return
	}
	all := b.pieces[s]
	at, found := slices.BinarySearchFunc(all, p.after, byAfter)
	if found { // that piece is shorter
		b.drop(all[at])
		all = b.pieces[s]
	}
	b.pieces[s] = slices.Insert(all, at, p)
	p.place = b.recent.PushFront(p)
	for b.bytes += p.bytes; b.bytes > b.maxBytes; {
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

// Bytes is the size of the kept pieces, in bytes.
func (b *Backlog) Bytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}
