package host

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/internal/stream"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// readers makes those who read logs take turns. It does not include the shards' reads of their entities, as
// commands wait for these.
type readers struct {
	turns   *fair.Turns
	backlog *stream.Backlog
	rings   *stream.Rings // recent events, which need not be read
	// shared accounts for events that subscribers hold while they write them; each event counts once.
	shared *budget.Account
}

// sharedPart: shared events may take one part in sharedPart of the bytes in flight. Beyond that each
// subscriber takes its bytes from its own connection.
const sharedPart = 8

// Reads of a service's log have turns apart from those of its guests. Otherwise readers could hold up the
// service.
func newReaders(o *Options, account *budget.Account) readers {
	turns := fair.New(fair.Options{Slots: int(o.Budget.Readers), Waiting: o.MaxWaitingReaders})
	return readers{turns: turns, backlog: stream.NewBacklog(turns, o.SharedReadBytes),
		rings: stream.NewRings(o.RecentEventBytes),
		shared: account.Group("events that subscribers share",
			budget.Limits{budget.FlightBytes: max(1, o.Budget.FlightBytes/sharedPart)})}
}

// Readers is what the readers of logs do at present.
func (h *Host) Readers() service.Readers {
	s := h.readers.turns.Stats()
	return service.Readers{
		AtOnce: s.Slots, Reading: s.Working, Waiting: s.Waiting, Turns: s.Begun, ReadTime: s.Worked, WaitTime: s.Waited,
		SharedBytes: h.readers.backlog.Bytes(),
	}
}

// turn makes a place for a reader of a service's log, or of all logs if the name is empty.
func (r *readers) turn(ctx context.Context, name service.Name) *fair.Turn {
	return r.turns.Turn(string(name), service.ReaderOf(ctx))
}

// Turn makes a place for work on a service's answers: among its sandboxes, if these take turns. An empty name
// is for work that belongs to no service, such as reading a body; its place is among the readers of logs.
func (h *Host) Turn(ctx context.Context, name service.Name) service.Turn {
	if svc, err := h.service(name); err == nil {
		if t := svc.HostTurn(); t != nil {
			return t
		}
	}
	return h.readers.turn(ctx, name)
}

// turnError gives errors of waiting for a turn a kind that the host's callers know.
func turnError(name service.Name, err error) error {
	var full *fair.FullError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &full):
		own := stream.Crowded(full)
		own.Op, own.Service = "read", name
		return own
	}
	return service.NotBegun(name, err)
}

// pacedLogs is a journal whose logs are read in turns with others, for backups. One goroutine uses it.
type pacedLogs struct {
	*commitlog.Journal
	turn *fair.Turn
	name service.Name
}

// Batches implements backup.Source. yield may take any time, such as when it waits for a client.
func (p *pacedLogs) Batches(
	ctx context.Context, log journal.LogName, r journal.BatchRange, yield func(journal.Block) error,
) error {
	if err := p.turn.Begin(ctx); err != nil {
		return turnError(p.name, err)
	}
	defer p.turn.End()
	return p.Journal.Batches(ctx, log, r, func(b journal.Block) error {
		p.turn.Rest()
		if err := yield(b); err != nil {
			return err
		}
		return turnError(p.name, p.turn.Begin(ctx))
	})
}
