package streams

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/ws"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// SSE streams server-sent events after a cursor until the client goes away or the server stops. The client
// can then resume after the last id. An error means that nothing was answered yet.
func (s *Streams) SSE(a Answer, r *http.Request, sel View, first service.Cursor) error {
	ended, err := s.begin("sse")
	if err != nil {
		return err
	}
	defer ended()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.options.Stopping, cancel)()
	if err := a.Take(flight.StreamBytes); err != nil {
		return err
	}
	f := a.Flight()
	gone, err := f.Subscribe(flight.ReaderRoom(&sel.Selection))
	if err != nil {
		return err
	}
	defer gone()
	feed, err := s.newFeed(ctx, f, sel, first.Position)
	if err != nil {
		return err
	}

	a.Header().Set("Content-Type", api.ContentSSE)
	a.Header().Set("X-Accel-Buffering", "no") // proxies would wait for the end
	a.WriteHeader(http.StatusOK)
	// With the first id a client that reads from the end resumes here, even before any event.
	b := append(first.Append([]byte("retry: 1000\nid: ")), "\n\n"...)
	var held holding
	control := http.NewResponseController(a)
	defer func() { held.drop(f) }()
	for {
		a.LimitWrite()
		if _, err := a.Write(b); err != nil {
			return nil // the client has gone
		}
		if err := control.Flush(); err != nil {
			return nil
		}
		b = kept(b[:0])
		var events []Event
		events, held, err = feed.nextOrPing(ctx, batchEvents)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			text, _ := json.Marshal(a.Problem(err)) // a problem can always be encoded
			a.LimitWrite()
			_, _ = a.Write(appendSSE(append(b, "event: problem\n"...), text))
			return nil
		case len(events) == 0:
			// A client that resumes need not read the skipped events again. An id without data is not an
			// event.
			if c, ok := feed.checkpoint(ctx); ok {
				b = append(c.Append(append(b, "id: "...)), "\n\n"...)
			} else {
				b = append(b, ": \n\n"...)
			}
			continue
		}
		a.LimitWrite()
		for i := range events {
			e := &events[i]
			b = append(e.Cursor.Append(append(b, "id: "...)), '\n')
			if text, ok := e.Text.Short(); ok {
				if b = appendSSE(b, text); len(b) < ws.MaxGathered/2 {
					continue
				}
			} else {
				long := e.Text.Within(append(b, "data: "...), []byte("\n\n"))
				b = nil
				if err := writeTo(a, &long); err != nil {
					return nil
				}
			}
			if _, err := a.Write(b); err != nil {
				return nil
			}
			b = kept(b[:0])
		}
		clear(events)
		held.drop(f)
	}
}

// writeTo writes a text that may be large.
func writeTo(w io.Writer, text *api.Pieces) error {
	return text.Each(func(piece []byte) error {
		_, err := w.Write(piece)
		return err
	})
}

// appendSSE appends data and the end of its message. A line break in the data, which JSON has only between
// values, becomes the start of another data line.
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

// lineBreak is the index of the first line break, or negative. There is hardly ever one, and two searches for
// one byte each are much quicker than one search for either.
func lineBreak(b []byte) int {
	r, n := bytes.IndexByte(b, '\r'), bytes.IndexByte(b, '\n')
	if r < 0 || n >= 0 && n < r {
		return n
	}
	return r
}
