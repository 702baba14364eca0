package streams

import (
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// View says which events a reader wants, and in which form.
type View struct {
	service.Selection
	Form service.EventForm
}

// Event is an event on its way out. Its bytes are shared by all who get it, and must not be changed.
type Event struct {
	Cursor service.Cursor // the place after it
	Text   api.Pieces     // the event in the requested form, in one line
	Size   int            // its memory in bytes
	shared *service.Share // the part of Size that all who have the event share; nil: none
}

// eventBytes is what an event takes beside its text, in bytes.
const eventBytes = 512

// Outgoing yields events in the form in which they are sent.
func Outgoing(events []*service.Event, form service.EventForm) []Event {
	out := make([]Event, len(events))
	for i, e := range events {
		text := textOf(e, form)
		out[i] = Event{Cursor: e.Cursor(), Text: text, Size: text.Size() + eventBytes}
	}
	return out
}

// subscribed are a subscriber's events as they are sent, with what all subscribers share of them.
func subscribed(events []*service.Event, form service.EventForm) []Event {
	out := Outgoing(events, form)
	for i, e := range events {
		out[i].shared = e.Share(form)
	}
	return out
}

// textOf is an event in a form. The text of a large one is neither made before it is written, nor kept.
func textOf(e *service.Event, form service.EventForm) api.Pieces {
	if len(e.Data) <= service.LargeData {
		return api.Text(e.Text(form))
	}
	head, tail, data := e.Around(form)
	as := map[service.DataForm]api.Form{service.LineData: api.OneLine, service.BinaryData: api.Base64}[data]
	return api.Around(head, e.Data, as, tail)
}

// MaxFilter is the maximum number of types, and of keys, that a reader of events may select.
const MaxFilter = 128

// Filter checks which events a reader wants. It refuses a list without values: that is probably a mistake,
// and would select everything.
func Filter(types, keys []string) (t []service.Type, k []service.Key, err error) {
	if types != nil && len(types) == 0 || keys != nil && len(keys) == 0 {
		return nil, nil, service.Errorf(service.KindInvalid, "types and keys list at least one value each; leave out "+
			"what is not to be filtered by")
	}
	if len(types) > MaxFilter || len(keys) > MaxFilter {
		return nil, nil, service.Errorf(service.KindInvalid, "types and keys list at most %d values each", MaxFilter)
	}
	for _, s := range types {
		parsed, err := service.ParseType(s)
		if err != nil {
			return nil, nil, err
		}
		t = append(t, parsed)
	}
	for _, s := range keys {
		parsed, err := service.ParseKey(s)
		if err != nil {
			return nil, nil, err
		}
		k = append(k, parsed)
	}
	return t, k, nil
}
