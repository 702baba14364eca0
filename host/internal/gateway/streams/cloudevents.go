package streams

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/ws"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// CloudEvents streams a service's events after a cursor on a WebSocket, one CloudEvent per message. The
// client sends no messages. It returns nil when the stream has ended; an error means that the request has not
// become a stream.
func (s *Streams) CloudEvents(a Answer, r *http.Request, sel View, first service.Cursor) error {
	ended, err := s.begin(api.ProtocolCloudEvents)
	if err != nil {
		return err
	}
	defer ended()
	// the request ends with the upgrade, but the stream does not
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	defer cancel(nil)
	gone, err := a.Flight().Subscribe(flight.ReaderRoom(&sel.Selection))
	if err != nil {
		return err
	}
	defer gone()
	feed, err := s.newFeed(ctx, a.Flight(), sel, first.Position)
	if err != nil {
		return err
	}
	feed.untold = true // the client does not yet have a cursor
	k, err := s.upgrade(a, r, api.ProtocolCloudEvents, 1<<10)
	if k == nil {
		return err
	}
	defer context.AfterFunc(s.options.Stopping, k.drain)()
	defer context.AfterFunc(s.options.Cut, func() { _ = k.conn.Close() })()

	pumped := make(chan struct{})
	go func() { // the sending goroutine; joined below
		defer close(pumped)
		if err := s.pumpCloudEvents(ctx, k, feed); ctx.Err() == nil {
			cancel(err)
			k.drain() // ends the receiving below
		}
	}()
	_, err = k.receive()
	k.flight.Give(k.keep())
	if err == nil {
		err = &ws.Closing{Code: ws.ClosePolicy, Reason: "this stream takes no messages"}
	}
	cancel(err)
	k.settle(pumped, err)
	err = context.Cause(ctx) // whichever was first
	var e *service.Error
	if errors.As(err, &e) {
		err = &ws.Closing{Code: ws.CloseInternal, Reason: closeReason(a.Problem(err))}
	}
	k.farewell(s.options.Cut, err)
	return nil
}

// closeReason is the part of a problem that fits into a close frame.
func closeReason(p api.Problem) string {
	const maxBytes = 120 // a control frame has 125 bytes, two of them for the code
	text := p.Kind + ": " + p.Detail
	if len(text) <= maxBytes {
		return text
	}
	return p.Kind
}

// pumpCloudEvents sends events until it cannot, and returns the reason.
func (s *Streams) pumpCloudEvents(ctx context.Context, k *socket, feed *feed) error {
	for {
		events, held, err := feed.nextOrPing(ctx, batchEvents)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			err = k.ping()
			if c, ok := feed.checkpoint(ctx); ok && err == nil {
				err = k.send(api.AppendCheckpointEvent(nil, feed.sel.Service, c.String(), time.Now()))
			}
		}
		for i := range events {
			if err == nil {
				err = k.sendPieces(&events[i].Text)
			}
		}
		clear(events)
		held.drop(k.flight)
		if err == nil {
			err = k.flush()
		}
		if err != nil {
			return err
		}
	}
}
