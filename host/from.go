package host

import (
	"context"
	"math"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/stream"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Place finds the cursor before the first event that from asks for. The error is KindBadCursor if a retention
// has deleted the position, if the position is beyond the next event, or as [Host.ParseCursor] says. A time
// before the first readable event means that event; a time after the last event means the end. Finding a time
// waits for a turn to read the log.
func (h *Host) Place(ctx context.Context, name service.Name, from service.From) (service.Cursor, error) {
	var at service.Position
	var err error
	switch from.Kind {
	case service.FromEnd:
		at, err = h.Head(name)
	case service.FromPosition:
		at, err = h.beforePosition(name, from.Position)
	case service.FromTime:
		at, err = h.beforeTime(ctx, name, from.Time)
	case service.FromAge:
		at, err = h.beforeTime(ctx, name, h.now().Add(-from.Age))
	case service.FromCursor:
		return h.ParseCursor(ctx, name, from.Cursor)
	default:
		at, err = h.Start(name)
	}
	if err != nil {
		return service.Cursor{}, err
	}
	return h.Cursor(ctx, name, at)
}

func (h *Host) beforePosition(name service.Name, p service.Position) (service.Position, error) {
	start, err := h.Start(name)
	if err != nil {
		return 0, err
	}
	head, err := h.Head(name)
	switch {
	case err != nil:
		return 0, err
	case p <= start:
		return 0, stream.Gone(p-1, start+1)
	case p > head+1:
		return 0, &service.Error{Service: name, Kind: service.KindBadCursor, Message: "the log has not come that far"}
	}
	return p - 1, nil
}

func (h *Host) beforeTime(ctx context.Context, name service.Name, t time.Time) (service.Position, error) {
	c, _, err := h.readService(name)
	if err != nil {
		return 0, err
	}
	turn := h.readers.turn(ctx, name)
	defer turn.End()
	first, err := c.journal.Since(ctx, journal.LogName(name), unixNano(t),
		func() error { return turnError(name, turn.Begin(ctx)) })
	if err != nil {
		return 0, readError("read events", name, err)
	}
	return first - 1, nil
}

// readError is the error for a log that could not be read.
func readError(op string, name service.Name, err error) error {
	return service.FromJournal{Use: service.JournalRead, Op: op, Service: name,
		Words: map[journal.ErrorKind]string{journal.KindCorrupt: "the log is damaged (%s)",
			journal.KindCanceled: "canceled"},
		Otherwise: "the journal cannot be read at present"}.Of(err)
}

// now is the time by the clock that gives events their times.
func (h *Host) now() time.Time {
	if h.opt.Journal.Clock != nil {
		return time.Unix(0, int64(h.opt.Journal.Clock()))
	}
	return time.Now()
}

// unixNano converts a time for the journal; a time that it cannot represent becomes the nearest one that it
// can.
func unixNano(t time.Time) journal.UnixNano {
	switch {
	case t.Before(time.Unix(0, 0)):
		return 0
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return journal.UnixNano(t.UnixNano())
}
