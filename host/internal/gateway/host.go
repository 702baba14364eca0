package gateway

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Host makes a host the backend of a gateway.
func Host(h *host.Host) Backend { return hostBackend{h} }

// hostBackend is a host with events in the form in which they leave.
type hostBackend struct{ *host.Host }

// selection is that of the host. Where it begins was a cursor, also at the start.
func selection(s Selection) host.Selection {
	return host.Selection{Service: s.Service, After: s.After, Exact: true, Types: s.Types, Keys: s.Keys}
}

func (b hostBackend) Events(ctx context.Context, s Selection, limit int) ([]Event, service.Position, bool, error) {
	events, next, atHead, err := b.Host.Events(ctx, selection(s), limit)
	return outgoing(events, s.Form), next, atHead, err
}

func (b hostBackend) EntityEvents(ctx context.Context, name service.Name, key service.Key, after service.Version, limit int, form service.EventForm) ([]Event, bool, error) {
	events, more, err := b.EntityPage(ctx, name, key, after, limit, batchBytes)
	return outgoing(events, form), more, err
}

func (b hostBackend) Subscribe(ctx context.Context, s Selection) (Subscriber, error) {
	sub, err := b.Host.Subscribe(ctx, selection(s))
	if err != nil {
		return nil, err
	}
	return hostSubscriber{sub, s.Form}, nil
}

type hostSubscriber struct {
	sub  *host.Subscriber
	form service.EventForm
}

func (s hostSubscriber) Next(ctx context.Context, limit int) ([]Event, error) {
	events, err := s.sub.Next(ctx, limit)
	out := outgoing(events, s.form)
	for i, e := range events {
		if share := e.Share(s.form); share != nil {
			out[i].Shared = share
		}
	}
	s.sub.Release() // whoever is slow holds what is counted, and not what it was made of
	return out, err
}

func (s hostSubscriber) Position() service.Position { return s.sub.Position() }

func outgoing(events []*service.Event, form service.EventForm) []Event {
	out := make([]Event, len(events))
	for i, e := range events {
		text := textOf(e, form)
		out[i] = Event{Cursor: e.Cursor(), Version: e.Version, Text: text, Size: text.Size() + eventBytes}
	}
	return out
}

// eventBytes is what an event takes beside its text, in bytes.
const eventBytes = 512

// textOf is an event in a form. The text of a large one is not made before it is
// written, nor kept.
func textOf(e *service.Event, form service.EventForm) api.Pieces {
	if len(e.Data) <= service.LargeData {
		return api.Text(e.Text(form))
	}
	head, tail, data := e.Around(form)
	return api.Around(head, e.Data, map[service.DataForm]api.Form{service.LineData: api.OneLine, service.BinaryData: api.Base64}[data], tail)
}
