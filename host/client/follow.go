package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Follow calls each with a service's events, from s.From on and as they are committed, until ctx ends, each
// returns an error (which Follow returns), or the host refuses. If the connection breaks, Follow resumes
// after the last event, so each gets every event once, in order. It gives up after Options.Retries attempts
// in a row without an event.
func (c *Client) Follow(ctx context.Context, s service.Selection, each func(Event) error) error {
	last, failed := "", 0
	waits := lifecycle.Backoff{First: c.options.Backoff, Max: 100 * c.options.Backoff}
	for {
		began := last
		err := c.follow(ctx, s, &last, each)
		var stop *callerError
		switch {
		case errors.As(err, &stop):
			return stop.err
		case ctx.Err() != nil:
			return service.Errorf(service.KindOf(ctx.Err()), "following ended: %w", context.Cause(ctx))
		case last != began:
			failed = 0
		}
		switch service.KindOf(err) {
		case service.KindUnavailable, service.KindOverloaded, service.KindUnknown, service.KindDeadline,
			service.KindCanceled:
		default:
			return err // it would be refused again
		}
		if failed++; failed > c.options.Retries {
			return err
		}
		lifecycle.Sleep(ctx, waits.Asked(failed, service.RetryAfterOf(err))) // if ctx ends, the next attempt fails
	}
}

// callerError is an error of the caller's function; it ends Follow.
type callerError struct{ err error }

func (e *callerError) Error() string { return e.err.Error() }

// follow reads one connection's events. last is the cursor of the last one.
func (c *Client) follow(ctx context.Context, s service.Selection, last *string, each func(Event) error) error {
	h := http.Header{}
	if *last != "" {
		h.Set(api.HeaderLastEventID, *last)
	}
	resp, err := c.do(ctx, request{
		method: http.MethodGet, path: servicePath(s.Service, "/events"), query: selectionQuery(&s), header: h,
		accept: api.ContentSSE,
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := sseReader{r: bufio.NewReaderSize(resp.Body, 64<<10)}
	for {
		m, err := lines.next()
		if err != nil {
			return c.broken(err, false)
		}
		switch m.event {
		case "problem":
			var p api.Problem
			if err := json.Unmarshal(m.data, &p); err != nil {
				return c.garbled(err, false)
			}
			return p.Err()
		case "":
			if m.data == nil {
				break // it only has the id at which the stream begins
			}
			e, err := api.DecodeCloudEvent(m.data)
			if err != nil {
				return c.garbled(err, false)
			}
			if err := each(eventOf(&e)); err != nil {
				return &callerError{err}
			}
		}
		if m.id != "" {
			*last = m.id
		}
	}
}

// maxSSE is the maximum size of one message of a stream, in bytes.
const maxSSE = maxAnswer

// sseMessage is one message of a stream of server-sent events.
type sseMessage struct {
	event, id string
	data      []byte
}

// sseReader splits a stream of server-sent events. It is total.
type sseReader struct{ r *bufio.Reader }

// next returns the next message with data or an id. The caller owns its data.
func (s *sseReader) next() (sseMessage, error) {
	var m sseMessage
	var any bool
	for size := 0; ; {
		line, err := s.r.ReadSlice('\n')
		var long []byte
		for errors.Is(err, bufio.ErrBufferFull) && size+len(long) < maxSSE {
			long = append(long, line...)
			line, err = s.r.ReadSlice('\n')
		}
		if long != nil {
			line = append(long, line...)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return sseMessage{}, err // a message without its empty line is incomplete
		}
		if size += len(line); size > maxSSE {
			return sseMessage{}, errors.New("a message of the stream is too large")
		}
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte{'\n'}), []byte{'\r'})
		if len(line) == 0 {
			if any {
				return m, nil
			}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(name) {
		case "data":
			if m.data != nil {
				m.data = append(m.data, '\n')
			}
			m.data = append(m.data, value...)
			any = true
		case "id":
			m.id, any = string(value), true
		case "event":
			m.event = string(value)
		}
	}
}
