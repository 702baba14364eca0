package streams

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Bounds of what is collected before it is written, so that large events do not make an unbounded batch.
const (
	batchBytes  = 256 << 10
	batchEvents = 256
)

// pace determines how many events to take at a time, from the sizes of the last ones.
type pace struct{ average int }

func (p *pace) limit() int {
	if p.average == 0 {
		return 16
	}
	return min(max(batchBytes/p.average, 1), batchEvents)
}

func (p *pace) saw(events []Event) { p.average = max(1, sizeOf(events)/max(1, len(events))) }

func sizeOf(events []Event) (size int) {
	for i := range events {
		size += events[i].Size
	}
	return size
}

// holding is what events on their way to a client take: bytes of the connection's flight, and parts of shared
// memory. Only one goroutine at a time uses it. The zero value holds nothing.
type holding struct {
	own    int
	shared []*service.Share
}

// hold takes the memory of events, or nothing. Memory that others hold, too, is counted once for all of them,
// if there is room to count it; otherwise it is taken from the connection.
func hold(f *flight.Account, events []Event) (h holding, ok bool) {
	for i := range events {
		e := &events[i]
		h.own += e.Size
		if e.shared != nil && e.shared.Take() {
			h.own -= e.shared.Bytes()
			h.shared = append(h.shared, e.shared)
		}
	}
	if !f.Try(h.own) {
		h.own = 0
		h.drop(f)
		return holding{}, false
	}
	return h, true
}

// drop gives back what is held of a connection's flight.
func (h *holding) drop(f *flight.Account) {
	for _, s := range h.shared {
		s.Give()
	}
	f.Give(h.own)
	*h = holding{}
}

// feed reads the events of a service for one connection, and takes their memory from the connection's flight.
// If there is no room, it drops them and reads them from the log again later, which only costs time. Only one
// goroutine uses it.
type feed struct {
	s      *Streams
	f      *flight.Account
	sel    View
	after  service.Position // the next events come after it
	sub    service.Subscriber
	pace   pace
	told   service.Position // position of the last cursor that the client has
	untold bool             // the client has none
}

// newFeed opens a feed. It holds nothing between reads, so it need not be closed.
func (s *Streams) newFeed(ctx context.Context, f *flight.Account, sel View, after service.Position) (*feed, error) {
	r := &feed{s: s, f: f, sel: sel, after: after, told: after}
	if err := r.subscribe(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *feed) subscribe(ctx context.Context) (err error) {
	r.sel.From = service.AfterPosition(r.after)
	r.sub, err = r.s.host.Subscribe(ctx, r.sel.Selection)
	return err
}

// read waits for events, and returns at least one and at most limit of them, in the form in which they are
// sent.
func (r *feed) read(ctx context.Context, limit int) ([]Event, error) {
	events, err := r.sub.Next(ctx, limit)
	out := subscribed(events, r.sel.Form)
	r.sub.Release() // a slow client then holds only what is counted
	return out, err
}

// next waits for events, and returns at least one and at most limit of them. It also returns what they take;
// drop it when they are written or dropped. If ctx ends first, it fails with ctx's error and loses no event.
func (r *feed) next(ctx context.Context, limit int) (events []Event, held holding, err error) {
	for {
		if r.sub == nil {
			if err := r.subscribe(ctx); err != nil {
				return nil, holding{}, err
			}
		}
		events, err := r.read(ctx, min(limit, r.pace.limit()))
		if err != nil {
			return nil, holding{}, err
		}
		if held, ok := hold(r.f, events); ok {
			r.pace.saw(events)
			r.after = events[len(events)-1].Cursor.Position
			r.told, r.untold = r.after, false
			return events, held, nil
		}
		need := events[0].Size
		r.sub, r.pace.average = nil, batchBytes // one by one until there is more room
		clear(events)
		if err := r.f.Wait(ctx, need); err != nil {
			return nil, holding{}, err
		}
	}
}

// checkpoint is the place that the feed has reached past events that its filter has left out, unless the
// client knows it already. A client that resumes there does not read those events again, and is not refused
// when a retention has deleted them. If the place cannot be found now, a later call finds it.
func (r *feed) checkpoint(ctx context.Context) (c service.Cursor, ok bool) {
	at := r.position()
	if at <= r.told && !r.untold {
		return service.Cursor{}, false
	}
	// Usually that is the head, whose cursor is in memory. Otherwise a batch is read, in turns with others.
	ctx, cancel := context.WithTimeout(ctx, r.s.options.PingTime/4)
	defer cancel()
	c, err := r.s.host.Cursor(ctx, r.sel.Service, at)
	if err != nil {
		return service.Cursor{}, false
	}
	r.told, r.untold = at, false
	return c, true
}

// position is how far the feed has read, including events that its filter has left out.
func (r *feed) position() service.Position {
	if r.sub == nil {
		return r.after
	}
	return max(r.after, r.sub.Position())
}

// nextOrPing waits for events, but no longer than a stream may be silent. If it returns neither events nor an
// error, a ping is due, and a checkpoint if there is one.
func (r *feed) nextOrPing(ctx context.Context, limit int) ([]Event, holding, error) {
	waiting, cancel := context.WithTimeout(ctx, r.s.options.PingTime)
	defer cancel()
	events, held, err := r.next(waiting, limit)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, holding{}, nil
	}
	return events, held, err
}
