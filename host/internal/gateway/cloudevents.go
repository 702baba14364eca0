package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/ws"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// cloudEvents streams a service's events on a WebSocket, a CloudEvent a message.
// The client says nothing.
func (s *Server) cloudEvents(a *answer, r *http.Request, sel view, first service.Cursor) error {
	ended, err := s.openStream(api.ProtocolCloudEvents)
	if err != nil {
		return err
	}
	defer ended()
	// the request ends with the upgrade, the stream does not
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	defer cancel(nil)
	gone, err := a.flight.subscribe(readerRoom(&sel))
	if err != nil {
		return err
	}
	defer gone()
	feed, err := s.newFeed(ctx, a.flight, sel, first.Position)
	if err != nil {
		return err
	}
	feed.untold = true // it does not say where it begins
	k, err := s.upgrade(a, r, api.ProtocolCloudEvents, 1<<10)
	if k == nil {
		return err
	}
	defer context.AfterFunc(s.stopping, k.drain)()
	defer context.AfterFunc(s.cut, func() { _ = k.conn.Close() })()

	pumped := make(chan struct{})
	go func() { // the sending goroutine; joined below
		defer close(pumped)
		if err := s.pumpCloudEvents(ctx, k, feed); ctx.Err() == nil {
			cancel(err)
			k.drain() // ends the receiving below
		}
	}()
	_, err = k.receive()
	k.flight.give(k.keep())
	if err == nil {
		err = &ws.Closing{Code: ws.ClosePolicy, Reason: "this stream takes no messages"}
	}
	cancel(err)
	k.settle(pumped, err)
	err = context.Cause(ctx) // whichever came first
	var e *service.Error
	if errors.As(err, &e) {
		p := s.problem(err, a.id, a.about...)
		err = &ws.Closing{Code: ws.CloseInternal, Reason: closeReason(p)}
	}
	k.farewell(s.cut, err)
	return nil
}

// closeReason is as much of a problem as fits into a close frame.
func closeReason(p api.Problem) string {
	const most = 120 // a control frame has 125 bytes, two of them the code
	text := p.Kind + ": " + p.Detail
	if len(text) <= most {
		return text
	}
	return p.Kind
}

// pumpCloudEvents sends events until it cannot, and says why.
func (s *Server) pumpCloudEvents(ctx context.Context, k *socket, feed *feed) error {
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
				err = k.sendPieces(&events[i].text)
			}
		}
		clear(events)
		k.flight.drop(&held)
		if err == nil {
			err = k.flush()
		}
		if err != nil {
			return err
		}
	}
}
