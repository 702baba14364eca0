package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/bulkhead-wasm/bulkhead/host/internal/consumer"
	"github.com/bulkhead-wasm/bulkhead/host/internal/stream"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// serviceLog is a service's log as a consumer reads it, through the core that there is.
type serviceLog struct {
	host   *Host
	wants  service.Selection
	reader string // on whose behalf it is read; see [service.WithReader]
}

var _ consumer.Log = (*serviceLog)(nil)

// Open implements consumer.Log.
func (l *serviceLog) Open(after service.Position, resumed bool) (consumer.Cursor, consumer.Generation, error) {
	c, svc, err := l.host.readService(l.wants.Service)
	if err != nil {
		return nil, nil, err
	}
	subscribe := svc.Hub().Subscribe
	if resumed {
		subscribe = svc.Hub().Resume
	}
	cursor, err := subscribe(after, stream.Filter{Types: l.wants.Types, Keys: l.wants.Keys}, l.reader)
	if err != nil {
		return nil, nil, err
	}
	return cursor, c, nil
}

// Now implements consumer.Log.
func (l *serviceLog) Now() (consumer.Generation, <-chan struct{}) {
	h := l.host
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.core == nil {
		return nil, h.changed
	}
	return h.core, h.changed
}

// Closing implements consumer.Log.
func (l *serviceLog) Closing() <-chan struct{} { return l.host.life.Done() }

// Subscribe begins to read the events that s selects. A place that the log has not
// reached is an error of kind KindBadCursor, and so is one after which a retention has
// deleted events. Finding a time or a cursor waits for its turn to read the log.
func (h *Host) Subscribe(ctx context.Context, s service.Selection) (service.Subscriber, error) {
	sub, err := h.subscribe(ctx, s)
	if err != nil {
		return nil, err
	}
	return sub, nil
}

func (h *Host) subscribe(ctx context.Context, s service.Selection) (*consumer.Consumer, error) {
	after, resumed, err := h.placeOf(ctx, s.Service, s.From)
	if err != nil {
		return nil, err
	}
	return consumer.New(&serviceLog{h, s, service.ReaderOf(ctx)}, after, resumed)
}

// placeOf is the position after which a selection begins, and whether a reader has been there.
func (h *Host) placeOf(
	ctx context.Context, name service.Name, from service.From,
) (after service.Position, resumed bool, err error) {
	switch from.Kind {
	case service.FromStart:
		return 0, false, nil
	case service.FromPosition:
		if from.Position == 0 {
			return 0, false, service.Errorf(service.KindInvalid, "positions begin with 1")
		}
		return from.Position - 1, true, nil // its event is looked for by whoever begins there
	}
	at, err := h.Place(ctx, name, from)
	return at.Position, true, err
}

// Head is the position of the last event of a service.
func (h *Host) Head(name service.Name) (service.Position, error) {
	_, svc, err := h.readService(name)
	if err != nil {
		return 0, err
	}
	return svc.Hub().Head(), nil
}

// Events returns events that are on disk, at most limit, without waiting for more. A page may be
// empty and not the last, when a filter lets little through, or ctx ends before all there is was
// looked at.
func (h *Host) Events(ctx context.Context, s service.Selection, limit int) (service.Page, error) {
	sub, err := h.subscribe(ctx, s)
	if err != nil {
		return service.Page{}, err
	}
	events, atHead, err := sub.Poll(ctx, limit)
	return service.Page{Events: events, Next: sub.Position(), AtHead: atHead}, err
}

// EntityEvents returns the events of one entity with a version above after, at most
// limit (0: all). An entity without events has none. Version 0 begins with the first
// event that a retention has left, in the log or apart from it; another one below that is
// KindBadCursor, and so is one that the entity has not come to.
func (h *Host) EntityEvents(
	ctx context.Context, name service.Name, key service.Key, after service.Version, limit int,
) ([]*service.Event, error) {
	events, _, err := h.EntityPage(ctx, name, key, after, limit, math.MaxInt)
	return events, err
}

// EntityPage is EntityEvents with at most maxBytes of data and metadata, or one event. more says
// that there are more events.
func (h *Host) EntityPage(
	ctx context.Context, name service.Name, key service.Key, after service.Version, limit, maxBytes int,
) (events []*service.Event, more bool, err error) {
	c, _, err := h.readService(name)
	if err != nil {
		return nil, false, err
	}
	turn := h.readers.turn(ctx, name)
	if err := turn.Begin(ctx); err != nil {
		return nil, false, turnError(name, err)
	}
	defer turn.End()
	read := limit
	if limit > 0 {
		read = limit + 1 // it tells whether there is more
	}
	size, origin := 0, c.journal.Origin(journal.LogName(name))
	err = c.journal.Entity(ctx, journal.LogName(name), string(key), after, read, func(e *journal.Event) error {
		if limit > 0 && len(events) == limit || len(events) > 0 && len(e.Data)+len(e.Metadata) > maxBytes-size {
			more = true
			return errPageFull
		}
		size += len(e.Data) + len(e.Metadata)
		own := *e
		own.Data, own.Metadata = bytes.Clone(e.Data), bytes.Clone(e.Metadata)
		events = append(events, service.NewEvent(name, origin, own))
		return nil
	})
	if errors.Is(err, errPageFull) {
		err = nil
	}
	if err != nil {
		return nil, false, entityError(name, err)
	}
	return events, more, nil
}

// EntityVersion is an entity's version after the event at a position of its service's log, which is on disk.
func (h *Host) EntityVersion(
	ctx context.Context, name service.Name, key service.Key, at service.Position,
) (service.Version, error) {
	c, _, err := h.readService(name)
	if err != nil {
		return 0, err
	}
	turn := h.readers.turn(ctx, name)
	if err := turn.Begin(ctx); err != nil {
		return 0, turnError(name, err)
	}
	defer turn.End()
	v, err := c.journal.VersionAt(ctx, journal.LogName(name), string(key), at)
	if err != nil {
		return 0, entityError(name, err)
	}
	return v, nil
}

// EntityFirst is the version of the first event of an entity that a retention has left: 1 if it has
// deleted none, the next one if there are no more.
func (h *Host) EntityFirst(ctx context.Context, name service.Name, key service.Key) (service.Version, error) {
	c, _, err := h.readService(name)
	if err != nil {
		return 0, err
	}
	first, err := c.journal.EntityFirst(ctx, journal.LogName(name), string(key))
	if err != nil {
		return 0, entityError(name, err)
	}
	return first, nil
}

// KeptVersion is the version of the event of an entity that a cursor is of, if a retention has kept that event apart:
// the cursor is of no place in the log any more, and one of the entity's events. ok is false if it is none of these.
func (h *Host) KeptVersion(
	ctx context.Context, name service.Name, key service.Key, cursor string,
) (v service.Version, ok bool, err error) {
	at, err := service.ParseCursor(cursor)
	if err != nil {
		return 0, false, err
	}
	c, _, err := h.readService(name)
	if err != nil {
		return 0, false, err
	}
	turn := h.readers.turn(ctx, name)
	if err := turn.Begin(ctx); err != nil {
		return 0, false, turnError(name, err)
	}
	defer turn.End()
	log := journal.LogName(name)
	if at.Origin != c.journal.Origin(log) {
		return 0, false, nil
	}
	if v, ok, err = c.journal.KeptVersion(ctx, log, string(key), at.Position, at.Stamp); err != nil {
		return 0, false, entityError(name, err)
	}
	return v, ok, nil
}

// errPageFull ends the reading of a page.
var errPageFull = errors.New("the page is full")

func entityError(name service.Name, err error) error {
	return service.FromJournal{Use: service.JournalRead, Op: "read events", Service: name,
		Words: map[journal.ErrorKind]string{
			journal.KindInvalid:  "%s",
			journal.KindCorrupt:  "the entity's events are damaged (%s)",
			journal.KindVersion:  "%s",
			journal.KindTrimmed:  "%s; reading from version 0 begins after them",
			journal.KindCanceled: "canceled",
		},
		Otherwise: "the journal cannot be read at present"}.Of(err)
}

// Cursor is the place after the event at a position of a service's log, which clients may keep for
// ever. A position that the log has not reached is KindBadCursor, and so is one after which a
// retention has deleted events. At the head it costs nothing, else it waits for its turn to read the log.
func (h *Host) Cursor(ctx context.Context, name service.Name, p service.Position) (service.Cursor, error) {
	c, _, err := h.readService(name)
	if err != nil {
		return service.Cursor{}, err
	}
	return h.cursorAt(ctx, c, name, p)
}

// ParseCursor reads the text of a cursor and makes sure that the service's log has its event.
// KindBadCursor if it is no cursor, is of the log of another service or host, is of an event that this log
// does not have, as it was restored from a backup without it, or is of a place after which a retention has
// deleted events.
func (h *Host) ParseCursor(ctx context.Context, name service.Name, text string) (service.Cursor, error) {
	given, err := service.ParseCursor(text)
	if err != nil {
		return service.Cursor{}, err
	}
	c, _, err := h.readService(name)
	if err != nil {
		return service.Cursor{}, err
	}
	bad := func(what string) (service.Cursor, error) {
		return service.Cursor{}, &service.Error{Service: name, Kind: service.KindBadCursor, Message: what}
	}
	log := journal.LogName(name)
	origin, first := c.journal.Origin(log), c.journal.First(log)
	if given.Position == 0 && given.Origin == journal.Unborn(log) {
		given.Origin = origin // of a time before the first event, which is the beginning of every history
	}
	if given.Origin != origin {
		return bad("the cursor is of another log: that of another service, or of a service with this name on another " +
			"host")
	}
	if given.Position < first-1 { // a place before the first event of all is the start only for who says start
		return service.Cursor{}, stream.Gone(given.Position, first)
	}
	here, err := h.cursorAt(ctx, c, name, given.Position)
	switch {
	case err != nil:
		return service.Cursor{}, err
	case here.Stamp == (journal.Stamp{}) && here.Position > 0: // nothing is left that could prove it
		return service.Cursor{}, stream.Gone(given.Position, first)
	case here.Stamp != given.Stamp: // not the origins: the first event of all may have come since that was compared
		return bad("the cursor is of an event that this log does not have: the log was restored from a backup, " +
			"or has lost its end, and has gone on otherwise; begin from the start")
	}
	return here, nil
}

// cursorAt is the cursor of a position in the log that a core has.
func (h *Host) cursorAt(ctx context.Context, c *core, name service.Name, p service.Position) (service.Cursor, error) {
	log := journal.LogName(name)
	here := service.Cursor{Position: p, Origin: c.journal.Origin(log)}
	if head, stamp := c.journal.Newest(log); p == head && stamp != (journal.Stamp{}) {
		here.Stamp = stamp
		return here, nil
	}
	turn := h.readers.turn(ctx, name)
	if err := turn.Begin(ctx); err != nil {
		return service.Cursor{}, turnError(name, err)
	}
	defer turn.End()
	var err error
	if here.Stamp, err = c.journal.StampAt(ctx, log, p); err != nil {
		return service.Cursor{}, cursorError(name, p, c.journal.First(log), err)
	}
	return here, nil
}

func cursorError(name service.Name, p, first service.Position, err error) error {
	return service.FromJournal{Use: service.JournalRead, Op: "read events", Service: name,
		Words: map[journal.ErrorKind]string{
			journal.KindTrimmed: stream.Gone(p, first).Message,
			journal.KindInvalid: fmt.Sprintf("the cursor is of an event that this log does not have: it is of "+
				"position %d, "+
				"which the log has not reached", p),
			journal.KindCorrupt:  "the event that the cursor is of is damaged (%s)",
			journal.KindCanceled: "ended before it began",
		},
		Otherwise: "the journal cannot be read at present"}.Of(err)
}

// Start is the place before the first event that there is of a service: 0, unless a
// retention has deleted some.
func (h *Host) Start(name service.Name) (service.Position, error) {
	c, _, err := h.readService(name)
	if err != nil {
		return 0, err
	}
	return c.journal.First(journal.LogName(name)) - 1, nil
}
