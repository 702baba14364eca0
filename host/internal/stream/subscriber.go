package stream

import (
	"bytes"
	"context"
	"errors"

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
	stepBytes  = 1 << 20 // bytes of events copied out of the journal
	// pageSteps bounds the steps of a Poll that finds nothing, so that a page over a
	// long log with a narrow filter ends in reasonable time.
	pageSteps = 256
)

// Cursor reads a service's events one after the other. One goroutine at a time
// uses it.
type Cursor struct {
	hub    *Hub
	at     journal.Position
	filter filter
	out    []*Event
}

// Position is how far the cursor has come: every event up to it has been
// returned, or is not wanted. It goes on although nothing is found, and is where a
// later subscriber may resume.
func (c *Cursor) Position() journal.Position { return c.at }

// Next returns the next events, at least one and at most most (0: as many as is
// sensible), and waits for them if there are none. Each event comes once, in
// the order of the log, without gaps. The slice is valid until the next call;
// the events may be kept.
//
// The error is the cause of ctx's end, a failure of the journal as a
// [*service.Error], or the reason of [Hub.Close]; the cursor stays usable.
func (c *Cursor) Next(ctx context.Context, most int) ([]*Event, error) {
	for {
		news, err := c.step(ctx, most, true)
		if len(c.out) > 0 || err != nil {
			return c.out, err
		}
		if news == nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			continue
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Poll returns what there is, without waiting: at most most events, maybe none.
// atHead reports whether that was all; if not, ask again, even after none: the
// cursor may have passed by what is not wanted.
func (c *Cursor) Poll(ctx context.Context, most int) (events []*Event, atHead bool, err error) {
	for range pageSteps {
		before := c.at
		_, err := c.step(ctx, most, false)
		if err != nil {
			return nil, false, err
		}
		if len(c.out) > 0 || c.at == before {
			break
		}
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
	}
	return c.out, c.at >= c.hub.Head(), nil
}

// step looks at the next few events and leaves those that are wanted in out. At
// the head it returns the channel that closes with news, if wait is set.
func (c *Cursor) step(ctx context.Context, most int, wait bool) (news <-chan struct{}, err error) {
	if most <= 0 || most > stepEvents {
		most = stepEvents
	}
	clear(c.out) // what was returned before belongs to nobody now
	c.out = c.out[:0]
	h := c.hub
	h.mu.Lock()
	if !h.ring.has(c.at) {
		h.mu.Unlock()
		return nil, c.fromJournal(ctx, most)
	}
	// With a filter look at more than is asked for: few may be wanted.
	look := most
	if c.filter.types != nil || c.filter.keys != nil {
		look = stepEvents
	}
	c.out = h.ring.read(c.out, c.at, look)
	if len(c.out) == 0 {
		defer h.mu.Unlock()
		if h.ended != nil {
			return nil, h.ended
		}
		if wait && h.news == nil {
			h.news = make(chan struct{})
		}
		return h.news, nil
	}
	h.mu.Unlock()
	c.sift(most)
	return nil, nil
}

// sift keeps those of out that are wanted, at most most, and moves the cursor
// behind all that were looked at.
func (c *Cursor) sift(most int) {
	kept := 0
	for _, e := range c.out {
		if c.filter.wants(&e.Event) {
			if kept == most {
				break
			}
			c.out[kept] = e
			kept++
		}
		c.at = e.Position
	}
	clear(c.out[kept:])
	c.out = c.out[:kept]
}

// errFull ends a read of the journal that has brought enough.
var errFull = errors.New("enough for one step")

func (c *Cursor) fromJournal(ctx context.Context, most int) error {
	before, size := c.at, 0
	err := c.hub.options.Reader.Read(ctx, c.hub.log, c.at, stepEvents, func(e *journal.Event) error {
		if e.Position != c.at+1 {
			return service.Errorf(service.KindInternal, "position %d follows position %d in the journal", e.Position, c.at)
		}
		if c.filter.wants(e) {
			if len(c.out) == most || size >= stepBytes {
				return errFull
			}
			own := &Event{Event: *e, service: c.hub.options.Service}
			own.Data, own.Metadata = bytes.Clone(e.Data), bytes.Clone(e.Metadata)
			size += len(e.Data) + len(e.Metadata)
			c.out = append(c.out, own)
		}
		c.at = e.Position
		return nil
	})
	if err == nil && c.at == before {
		// What is behind the ring must be there, or nobody would have published it.
		err = service.Errorf(service.KindInternal, "the event after position %d is not in the journal", before)
	}
	if err == nil || errors.Is(err, errFull) {
		return nil
	}
	if journal.KindOf(err) == journal.KindCorrupt && c.at > before {
		return nil // what is whole goes out; the next step meets the damage
	}
	c.at = before // what was read is not returned, so it is read again
	clear(c.out)
	c.out = c.out[:0]
	return c.failure(ctx, err)
}

func (c *Cursor) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var own *service.Error
	switch {
	case errors.As(err, &own):
	case journal.KindOf(err) == journal.KindCorrupt:
		own = service.Errorf(service.KindDamaged, "events behind position %d are damaged (%s)", c.at, journal.DetailOf(err))
		own.Err = err
	case journal.KindOf(err) == journal.KindTrimmed:
		own = Gone(c.at, c.hub.options.Reader.First(c.hub.log))
		own.Err = err
	default:
		own = service.Errorf(service.KindUnavailable, "the journal cannot be read at present")
		own.Err = err
	}
	own.Op, own.Service = "read events", c.hub.options.Service
	return own
}
