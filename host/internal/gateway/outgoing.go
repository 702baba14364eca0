package gateway

import (
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// view is what a reader of events wants to see, and in which form.
type view struct {
	service.Selection
	form service.EventForm
}

// event is an event on its way out. Its bytes are shared by all who get it and
// must not be changed.
type event struct {
	cursor service.Cursor // its place
	text   api.Pieces     // the event in the form that was asked for, in one line
	size   int            // what it takes in memory, in bytes
	shared *service.Share // the part of size that all who have the event share; nil: none
}

// eventBytes is what an event takes beside its text, in bytes.
const eventBytes = 512

// outgoing are events in the form in which they leave.
func outgoing(events []*service.Event, form service.EventForm) []event {
	out := make([]event, len(events))
	for i, e := range events {
		text := textOf(e, form)
		out[i] = event{cursor: e.Cursor(), text: text, size: text.Size() + eventBytes}
	}
	return out
}

// subscribed are events of a subscriber as they leave, with what all subscribers share of them.
func subscribed(events []*service.Event, form service.EventForm) []event {
	out := outgoing(events, form)
	for i, e := range events {
		out[i].shared = e.Share(form)
	}
	return out
}

// textOf is an event in a form. The text of a large one is not made before it is
// written, nor kept.
func textOf(e *service.Event, form service.EventForm) api.Pieces {
	if len(e.Data) <= service.LargeData {
		return api.Text(e.Text(form))
	}
	head, tail, data := e.Around(form)
	as := map[service.DataForm]api.Form{service.LineData: api.OneLine, service.BinaryData: api.Base64}[data]
	return api.Around(head, e.Data, as, tail)
}
