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

// serviceLog adapts a service's log for a consumer. It reads through the present core.
type serviceLog struct {
	host   *Host
	wants  service.Selection
	reader string // the name of the reader; see [service.WithReader]
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

// Subscribe begins to read the events that s selects. The error is KindBadCursor if the log has not reached
// the place, or a retention has deleted events after it. Finding a time or a cursor waits for a turn to read
// the log.
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

// placeOf returns the position after which a selection begins, and whether a reader has already been there.
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
		return from.Position - 1, true, nil // the subscription looks for the event
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

// Events returns at most limit events that are on disk, and does not wait for new ones. A page may be empty
// although there are more: if a filter matches few events, or ctx ends early.
func (h *Host) Events(ctx context.Context, s service.Selection, limit int) (service.Page, error) {
	sub, err := h.subscribe(ctx, s)
	if err != nil {
		return service.Page{}, err
	}
	events, atHead, err := sub.Poll(ctx, limit)
	return service.Page{Events: events, Next: sub.Position(), AtHead: atHead}, err
}

// EntityEvents returns the events of one entity with a version above after, at most limit (0: all). If the
// entity has no events, neither has the result. after = 0 begins with the first event that a retention has
// left, in the log or as a kept event. Another after below that is KindBadCursor, and so is one above the
// entity's version.
func (h *Host) EntityEvents(
	ctx context.Context, name service.Name, key service.Key, after service.Version, limit int,
) ([]*service.Event, error) {
	events, _, err := h.EntityPage(ctx, name, key, after, limit, math.MaxInt)
	return events, err
}

// EntityPage is EntityEvents with at most maxBytes of data and metadata, but at least one event. more reports
// whether there are more events.
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
		read = limit + 1 // the extra event shows whether there are more
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

// EntityVersion is an entity's version after the event at a position of the service's log that is on disk.
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

// EntityFirst is the version of the entity's first event that a retention has left: 1 if none were deleted,
// and the next version if none are left.
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

// KeptVersion is the version of the entity's kept event to which a cursor belongs. Such a cursor is no longer
// a place in the log, but it still identifies an event of the entity. ok is false for every other cursor.
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

// Cursor returns the cursor after the event at a position of a service's log. Clients may keep it forever.
// The error is KindBadCursor if the log has not reached the position, or a retention has deleted events after
// it. A cursor at the head costs nothing; any other waits for a turn to read the log.
func (h *Host) Cursor(ctx context.Context, name service.Name, p service.Position) (service.Cursor, error) {
	c, _, err := h.readService(name)
	if err != nil {
		return service.Cursor{}, err
	}
	return h.cursorAt(ctx, c, name, p)
}

// ParseCursor parses a cursor and checks that the service's log has its event. It fails with KindBadCursor if
// the text is not a cursor, if the cursor is of another log, if the log was restored from a backup without
// the event, or if a retention has deleted events after it.
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
		given.Origin = origin // a cursor before the first event, where all histories are alike
	}
	if given.Origin != origin {
		return bad("the cursor is of another log: that of another service, or of a service with this name on another " +
			"host")
	}
	if given.Position < first-1 { // the place before the very first event is valid only as an explicit start
		return service.Cursor{}, stream.Gone(given.Position, first)
	}
	here, err := h.cursorAt(ctx, c, name, given.Position)
	switch {
	case err != nil:
		return service.Cursor{}, err
	case here.Stamp == (journal.Stamp{}) && here.Position > 0: // nothing is left to compare with
		return service.Cursor{}, stream.Gone(given.Position, first)
	case here.Stamp != given.Stamp: // origins are not compared: the first event may have been written since
		return bad("the cursor is of an event that this log does not have: the log was restored from a backup, " +
			"or has lost its end, and has gone on otherwise; begin from the start")
	}
	return here, nil
}

// cursorAt is the cursor of a position in the log, read through the core c.
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

// Start is the position before a service's first readable event: 0, unless a retention has deleted some.
func (h *Host) Start(name service.Name) (service.Position, error) {
	c, _, err := h.readService(name)
	if err != nil {
		return 0, err
	}
	return c.journal.First(journal.LogName(name)) - 1, nil
}
