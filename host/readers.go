package host

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/internal/stream"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// readers has those who read logs take turns. What shards read of their entities is not
// among it: commands wait for that.
type readers struct {
	turns   *fair.Turns
	backlog *stream.Backlog
	rings   *stream.Rings // what need not be read, as it is recent
	// shared counts what subscribers hold of events while they write them: each event once.
	shared *budget.Account
}

// sharedPart is the part of the bytes in flight that events may take which subscribers share.
// Beyond it each subscriber takes what it holds from its own connection.
const sharedPart = 8

// What is read of a service's log counts among its readers, who share a turn of their own
// kind, and not among its guests: else whoever may read a log could hold up its service.
func newReaders(o *Options, account *budget.Account) readers {
	turns := fair.New(fair.Options{Slots: int(o.Budget.Readers), Waiting: o.MaxWaitingReaders})
	return readers{turns: turns, backlog: stream.NewBacklog(turns, o.SharedReadBytes),
		rings: stream.NewRings(o.RecentEventBytes),
		shared: account.Group("events that subscribers share",
			budget.Limits{budget.FlightBytes: max(1, o.Budget.FlightBytes/sharedPart)})}
}

// Readers is what those do who read logs.
func (h *Host) Readers() service.Readers {
	s := h.readers.turns.Stats()
	return service.Readers{
		AtOnce: s.Slots, Reading: s.Working, Waiting: s.Waiting, Turns: s.Begun, ReadTime: s.Worked, WaitTime: s.Waited,
		SharedBytes: h.readers.backlog.Bytes(),
	}
}

// turn makes a place for who reads the log of a service, or all of them if the name is empty.
func (r *readers) turn(ctx context.Context, name service.Name) *fair.Turn {
	return r.turns.Turn(string(name), service.ReaderOf(ctx))
}

// Turn makes a place for work on what a service answers: among its sandboxes, if it has to
// take turns. Without a name, for what is nobody's in particular, such as a body that
// arrives, it is a place among those that read logs.
func (h *Host) Turn(ctx context.Context, name service.Name) service.Turn {
	if svc, err := h.service(name); err == nil {
		if t := svc.HostTurn(); t != nil {
			return t
		}
	}
	return h.readers.turn(ctx, name)
}

// turnError gives errors of waiting for a turn the kind that callers of a host know.
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

// pacedLogs is a journal whose logs are read in turns with others; it is what backups
// are made of. One goroutine uses it.
type pacedLogs struct {
	*journal.Journal
	turn *fair.Turn
	name service.Name
}

// Batches implements backup.Source. What yield does, waiting for a client for instance, may
// take as long as it likes.
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
