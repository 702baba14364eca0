package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/streams"
	"github.com/bulkhead-wasm/bulkhead/host/internal/ws"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// reader reads events.
type reader interface {
	streams.Reader
	// Events reads at most limit events without waiting for more.
	Events(ctx context.Context, s service.Selection, limit int) (service.Page, error)
	// EntityPage reads one entity's events after a version: at most limit, and at most that many bytes of
	// data, but at least one event. more says that there are more events.
	EntityPage(
		ctx context.Context, name service.Name, key service.Key, after service.Version, limit, maxBytes int,
	) (events []*service.Event, more bool, err error)
	// EntityFirst is the version of the entity's first readable event.
	EntityFirst(ctx context.Context, name service.Name, key service.Key) (service.Version, error)
	// EntityVersion is an entity's version after the event at a position.
	EntityVersion(
		ctx context.Context, name service.Name, key service.Key, at service.Position,
	) (service.Version, error)
	// KeptVersion is the version of the entity's kept event to which a cursor belongs.
	KeptVersion(
		ctx context.Context, name service.Name, key service.Key, cursor string,
	) (v service.Version, ok bool, err error)
}

// readerRoutes are the routes of a reader.
func (s *Server) readerRoutes() []route {
	return []route{
		{
			"GET", "/v1/services/{service}/entities/{key}/events", guarded,
			takes{params: []string{"after", "limit"}, answers: eventAnswers}, s.entityEvents,
		},
		{
			"GET", "/v1/services/{service}/events", guarded,
			takes{params: []string{"from", "limit", "types", "keys"}, answers: eventAnswers}, s.serviceEvents,
		},
	}
}

// Bounds of what is collected before it is written, so that large events do not make an unbounded page.
const (
	pageBytes   = 4 << 20
	pageEvents  = 512 // events that are read at a time
	entityReads = 64  // the same, for one entity
	pageReads   = 64  // a filter that matches few events ends a page early
	batchBytes  = 256 << 10
)

// entityEvents answers with a page, a batch of CloudEvents, or a stream of server-sent events, whose ids are
// cursors of the service.
func (s *Server) entityEvents(a *answer, r *http.Request) error {
	name, key, err := pathEntity(r)
	if err != nil {
		return err
	}
	after := a.params.Get("after")
	as := eventsAs(r)
	if as == api.ContentSSE {
		return s.entityStream(a, r, streams.View{
			Selection: service.Selection{Service: name, Keys: []service.Key{key}}, Form: formOf(as),
		}, after)
	}
	limit, err := parseLimit(a.params.Get("limit"))
	if err != nil {
		return err
	}
	if _, err := s.reader.Head(name); err != nil {
		return err
	}
	ctx, cancel := s.wait(r.Context(), time.Time{})
	defer cancel()
	next, err := s.entityPlace(ctx, name, key, after)
	if err != nil {
		return err
	}
	first, err := s.reader.EntityFirst(ctx, name, key)
	if err != nil {
		return err
	}
	begins := next == 0
	if after == "" {
		after = "0"
	}
	p, more := page{a: a, batch: as == api.ContentBatch}, true
	for more && p.count < limit && !p.full {
		var events []*service.Event
		if events, more, err = s.reader.EntityPage(ctx, name, key, next, min(limit-p.count, entityReads),
			batchBytes); err != nil {
			return err
		}
		out := streams.Outgoing(events, formOf(as))
		if begins && p.count == 0 && len(events) > 0 {
			first = events[0].Version // a retention may have happened meanwhile
		}
		for i := range events {
			if err := p.add(&out[i]); err != nil {
				return err
			}
			if p.full {
				more = true
				break
			}
			next, after = events[i].Version, out[i].Cursor.String()
		}
	}
	p.goOn(r, "after", after, more)
	p.send(ctx, s, api.EntityPageEnd(first, after, more))
	return nil
}

// entityStream streams the events of one entity after a version or a cursor, or after the last id that the
// client has seen.
func (s *Server) entityStream(a *answer, r *http.Request, sel streams.View, after string) (err error) {
	if err := noLimit(a); err != nil {
		return err
	}
	var at service.Cursor
	if last := r.Header.Get(api.HeaderLastEventID); last != "" {
		at, err = s.entityAfter(r.Context(), sel.Service, sel.Keys[0], last)
	} else {
		at, err = s.entityCursor(r.Context(), sel.Service, sel.Keys[0], after)
	}
	if err != nil {
		return err
	}
	return s.sendSSE(a, r, sel, at)
}

// entityCursor finds a place in the service's log at which the entity has a version, or the version of a
// cursor: all later events of the entity come after it.
func (s *Server) entityCursor(
	ctx context.Context, name service.Name, key service.Key, after string,
) (service.Cursor, error) {
	version, isVersion := entityVersion(after)
	if !isVersion {
		return s.entityAfter(ctx, name, key, after)
	}
	return s.entityVersionCursor(ctx, name, key, version)
}

// entityAfter is entityCursor of an event, given by its id or cursor.
func (s *Server) entityAfter(
	ctx context.Context, name service.Name, key service.Key, id string,
) (service.Cursor, error) {
	at, err := s.placeAfter(ctx, name, id)
	if v, ok := s.keptVersion(ctx, name, key, id, err); ok {
		return s.entityVersionCursor(ctx, name, key, v)
	}
	return at, err
}

func (s *Server) entityVersionCursor(
	ctx context.Context, name service.Name, key service.Key, version service.Version,
) (service.Cursor, error) {
	start, err := s.placeOf(ctx, name, service.From{Kind: service.FromStart})
	if err != nil || version == 0 {
		return start, err
	}
	events, _, err := s.reader.EntityPage(ctx, name, key, version-1, 1, batchBytes)
	found := err == nil && len(events) > 0 && events[0].Version == version
	if found && events[0].Position >= start.Position {
		return events[0].Cursor(), nil
	}
	// A retention has removed that event from the log. If it has removed none of the later ones, all of them
	// can still be read.
	later, _, err := s.reader.EntityPage(ctx, name, key, version, 1, batchBytes)
	if err != nil {
		return service.Cursor{}, err
	}
	if found && len(later) > 0 && later[0].Position <= start.Position {
		return events[0].Cursor(), nil // it is refused, as the log does not have what follows
	}
	return start, nil
}

// noLimit refuses a limit for a stream.
func noLimit(a *answer) error {
	if a.params.Has("limit") {
		return service.Errorf(service.KindInvalid, "limit is for pages; a stream ends when its client has enough")
	}
	return nil
}

// serviceEvents answers with a page, a batch of CloudEvents, a stream of server-sent events or a WebSocket,
// as the request asks.
func (s *Server) serviceEvents(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	types, err := listParam(r.URL.RawQuery, "types")
	if err != nil {
		return err
	}
	keys, err := listParam(r.URL.RawQuery, "keys")
	if err != nil {
		return err
	}
	as := eventsAs(r)
	sel := streams.View{Selection: service.Selection{Service: name}, Form: formOf(as)}
	if sel.Types, sel.Keys, err = streams.Filter(types, keys); err != nil {
		return err
	}
	limit, err := parseLimit(a.params.Get("limit"))
	if err != nil {
		return err
	}
	from := a.params.Get("from")
	stream := ws.IsUpgrade(r) || as == api.ContentSSE
	if stream {
		if err := noLimit(a); err != nil {
			return err
		}
	}
	var at service.Cursor
	if last := r.Header.Get(api.HeaderLastEventID); last != "" && stream {
		at, err = s.placeAfter(r.Context(), name, last)
	} else {
		at, err = s.place(r.Context(), name, from)
	}
	if err != nil {
		return err
	}
	switch {
	case ws.IsUpgrade(r):
		sel.Form = service.CloudEvent
		return s.streams.CloudEvents(a, r, sel, at)
	case stream:
		return s.sendSSE(a, r, sel, at)
	}
	return s.eventsPage(a, r, sel, at, limit, as)
}

// eventsPage answers with a page, or a batch, that begins after a cursor.
func (s *Server) eventsPage(
	a *answer, r *http.Request, sel streams.View, last service.Cursor, limit int, as string,
) error {
	if err := a.Take(flight.ReaderRoom(&sel.Selection)); err != nil {
		return err
	}
	ctx, cancel := s.wait(r.Context(), time.Time{})
	defer cancel()
	// A page that is not full in time ends early. So the client makes progress, however few events the filter
	// matches and however long the reading waits for others.
	reading, stop := context.WithTimeout(ctx, s.options.RequestTime*3/4)
	defer stop()
	begin, at := last.Position, last.Position
	p, atEnd := page{a: a, batch: as == api.ContentBatch}, false
	for reads := 0; reads < pageReads && !atEnd && p.count < limit && !p.full; reads++ {
		sel.From = service.AfterPosition(at)
		read, err := s.reader.Events(reading, sel.Selection, min(limit-p.count, pageEvents))
		if p.count > 0 && service.KindOf(err) == service.KindDamaged {
			break // the next page reports it
		}
		if err != nil && at > begin && reading.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		next := read.Next
		atEnd = read.AtHead
		events := streams.Outgoing(read.Events, sel.Form)
		for i := range events {
			if err := p.add(&events[i]); err != nil {
				return err
			}
			if p.full {
				next, atEnd = at, false // the rest belongs to the next page
				break
			}
			last = events[i].Cursor
			at = last.Position
		}
		at = max(at, next)
	}
	if at > last.Position {
		if c, err := s.reader.Cursor(ctx, sel.Service, at); err == nil {
			last = c
		} // otherwise the skipped events are skipped again
	}
	p.goOn(r, "from", last.String(), !atEnd)
	p.send(ctx, s, api.PageEnd(last.String(), !atEnd))
	return nil
}

// sendSSE continues as a stream of server-sent events.
func (s *Server) sendSSE(a *answer, r *http.Request, sel streams.View, first service.Cursor) error {
	err := s.streams.SSE(a, r, sel, first)
	a.stream = err == nil
	return err
}
