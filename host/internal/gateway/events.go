package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Bounds of what is gathered before it is written, so that large events cannot
// make a page or a batch as large as they like.
const (
	pageBytes   = 4 << 20
	pageEvents  = 512 // read at a time
	entityReads = 64  // likewise, of one entity
	pageReads   = 64  // a filter that lets little through ends a page early
	batchBytes  = 256 << 10
	batchEvents = 256
)

func (s *Server) entityEvents(a *answer, r *http.Request) error {
	name, key, err := pathEntity(r)
	if err != nil {
		return err
	}
	q, err := query(r, "after", "limit")
	if err != nil {
		return err
	}
	limit, err := parseLimit(q.Get("limit"))
	if err != nil {
		return err
	}
	var after uint64
	if text := q.Get("after"); text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return service.Errorf(service.KindInvalid, "after is %.80q; it takes a version", text)
		}
	}
	if _, err := s.backend.Head(name); err != nil {
		return err
	}
	ctx, cancel := s.wait(r.Context(), time.Time{})
	defer cancel()
	var page []byte
	next, count, more := service.Version(after), 0, true
	for more && count < limit && len(page) < pageBytes {
		// One more than wanted tells whether there is more.
		want := min(limit-count, entityReads)
		events, err := s.backend.EntityEvents(ctx, name, key, next, want+1)
		if err != nil {
			return err
		}
		more = len(events) > want
		for i, e := range events[:min(len(events), want)] {
			if i > 0 && len(page) >= pageBytes {
				more = true
				break
			}
			page = api.AppendPage(page, e.CloudEvent)
			next = e.Version
			count++
		}
	}
	a.send(http.StatusOK, api.ContentJSON, append(api.CloseEntityPage(page, next, more), '\n'))
	return nil
}

// serviceEvents is a page, a stream of server-sent events or a WebSocket,
// depending on how it is asked for.
func (s *Server) serviceEvents(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	q, err := query(r, "from", "limit", "types", "keys")
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
	sel := Selection{Service: name}
	if sel.Types, sel.Keys, err = filter(types, keys); err != nil {
		return err
	}
	limit, err := parseLimit(q.Get("limit"))
	if err != nil {
		return err
	}
	from := q.Get("from")
	sse := r.Method == http.MethodGet && accepts(r, api.ContentSSE)
	if last := r.Header.Get(api.HeaderLastEventID); last != "" && (sse || isUpgrade(r)) {
		from = last
	}
	if sel.After, err = s.position(name, from); err != nil {
		return err
	}
	switch {
	case isUpgrade(r):
		return s.cloudEvents(a, r, sel)
	case sse:
		return s.sendSSE(a, r, sel)
	}
	return s.eventsPage(a, r, sel, limit)
}

func (s *Server) eventsPage(a *answer, r *http.Request, sel Selection, limit int) error {
	ctx, cancel := s.wait(r.Context(), time.Time{})
	defer cancel()
	// A page that is not full in time ends where it is, so that whoever reads comes on however
	// little a filter lets through, and however long it waits for others.
	reading, stop := context.WithTimeout(ctx, s.options.RequestTime*3/4)
	defer stop()
	var page []byte
	begin := sel.After
	count, atEnd := 0, false
	for reads := 0; reads < pageReads && !atEnd && count < limit && len(page) < pageBytes; reads++ {
		events, next, atHead, err := s.backend.Events(reading, sel, min(limit-count, pageEvents))
		if count > 0 && service.KindOf(err) == service.KindDamaged {
			break // the next page says so
		}
		if err != nil && sel.After > begin && reading.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		atEnd = atHead
		for _, e := range events {
			if len(page) >= pageBytes {
				next, atEnd = sel.After, false // what is left is for the next page
				break
			}
			page = api.AppendPage(page, e.CloudEvent)
			sel.After = e.Position
			count++
		}
		sel.After = max(sel.After, next)
	}
	page = api.ClosePage(page, s.backend.Cursor(sel.Service, sel.After), !atEnd)
	a.send(http.StatusOK, api.ContentJSON, append(page, '\n'))
	return nil
}

// pace says how many events to take at a time, by how large the last ones were.
type pace struct{ average int }

func (p *pace) limit() int {
	if p.average == 0 {
		return 16
	}
	return min(max(batchBytes/p.average, 1), batchEvents)
}

func (p *pace) saw(events []Event) {
	sum := 0
	for _, e := range events {
		sum += len(e.CloudEvent)
	}
	p.average = max(1, sum/max(1, len(events)))
}

// nextOrPing waits for events no longer than a stream may be silent; no events
// and no error is a reason to give a sign of life.
func (s *Server) nextOrPing(ctx context.Context, sub Subscriber, limit int) ([]Event, error) {
	waiting, cancel := context.WithTimeout(ctx, s.options.PingTime)
	defer cancel()
	events, err := sub.Next(waiting, limit)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	return events, err
}

// sendSSE streams server-sent events until the client goes away or the server
// stops; either way the client resumes by the last id.
func (s *Server) sendSSE(a *answer, r *http.Request, sel Selection) error {
	ended, err := s.openStream("sse")
	if err != nil {
		return err
	}
	defer ended()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	sub, err := s.backend.Subscribe(ctx, sel)
	if err != nil {
		return err
	}

	a.stream = true
	a.Header().Set("Content-Type", api.ContentSSE)
	a.Header().Set("X-Accel-Buffering", "no") // proxies that would wait for the end
	a.WriteHeader(http.StatusOK)
	// The first id makes who reads from the end resume here, even before any event.
	b := append([]byte("retry: 1000\nid: "), s.backend.Cursor(sel.Service, sel.After)...)
	b = append(b, "\n\n"...)
	var pace pace
	at := sel.After // the last id that was given
	for {
		a.limitWrite(len(b))
		if _, err := a.Write(b); err != nil {
			return nil // the client is gone
		}
		if err := a.control.Flush(); err != nil {
			return nil
		}
		b = b[:0]
		events, err := s.nextOrPing(ctx, sub, pace.limit())
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			p := s.problem(err, a.id)
			text, _ := json.Marshal(p) // a problem always encodes
			a.limitWrite(len(text))
			_, _ = a.Write(appendSSE(append(b, "event: error\n"...), text))
			return nil
		case len(events) == 0:
			// What was passed by need not be read again by who resumes. An id without data is no event.
			if now := sub.Position(); now > at {
				at = now
				b = append(append(b, "id: "...), s.backend.Cursor(sel.Service, at)...)
				b = append(b, "\n\n"...)
			} else {
				b = append(b, ": \n\n"...)
			}
			continue
		}
		at = events[len(events)-1].Position
		pace.saw(events)
		for _, e := range events {
			b = append(append(b, "id: "...), s.backend.Cursor(sel.Service, e.Position)...)
			b = appendSSE(append(b, '\n'), e.CloudEvent)
		}
	}
}

// appendSSE appends data and the end of its message. A line break in the data,
// which JSON has between values only, becomes the start of another data line.
func appendSSE(b, data []byte) []byte {
	for first := true; first || len(data) > 0; first = false {
		line := data
		if i := lineBreak(data); i >= 0 {
			line, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		b = append(append(append(b, "data: "...), line...), '\n')
	}
	return append(b, '\n')
}

// lineBreak is where the first line break is, or negative. There hardly ever is one, and to
// look for two bytes one after the other is much quicker than for either.
func lineBreak(b []byte) int {
	r, n := bytes.IndexByte(b, '\r'), bytes.IndexByte(b, '\n')
	if r < 0 || n >= 0 && n < r {
		return n
	}
	return r
}
