package client

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Event is an event on the host's disk. Its JSON is the native form, whichever form it was received in.
type Event struct {
	ID          string // the event's cursor: reading from it begins with the next event
	Source      string // /services/ and the service's name; unique together with ID
	Type        service.Type
	Key         service.Key // of the entity
	Time        time.Time   // of the commit
	ContentType string      // media type of Data, such as application/json
	Data        []byte      // as the service wrote it; nil if it wrote none
	Version     service.Version
	Position    service.Position // in the service's log
	CommandID   service.CommandID
	CommandType service.Type
	// Metadata are what the service wrote beside the event, and what the log keeps of its command's. See
	// [service.Pairs].
	Metadata abi.Metadata
}

// MarshalJSON implements json.Marshaler.
func (e Event) MarshalJSON() ([]byte, error) {
	w := api.Event{
		ID: e.ID, Source: e.Source, Type: string(e.Type), Subject: string(e.Key), Time: e.Time,
		DataContentType: e.ContentType, EntityVersion: e.Version, Position: e.Position,
		CommandID: e.CommandID, CommandType: e.CommandType, Metadata: api.EventMetadata(e.Metadata),
	}
	if service.IsJSON(e.ContentType) && isJSON(e.Data) {
		w.Data = e.Data
	} else {
		w.DataBase64 = e.Data
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // the data is not changed
	err := enc.Encode(&w)
	return text.Bytes(), err
}

// UnmarshalJSON implements json.Unmarshaler. It accepts the native form. It keeps no reference to text.
func (e *Event) UnmarshalJSON(text []byte) error {
	w, err := api.DecodeEvent(text)
	if err != nil {
		return service.Errorf(service.KindInternal, "an event cannot be read: %w", err)
	}
	*e = eventOf(&w)
	return nil
}

// eventOf converts an event from the wire.
func eventOf(w *api.Event) Event {
	return Event{
		ID: w.ID, Source: w.Source, Type: service.Type(w.Type), Key: service.Key(w.Subject), Time: w.Time,
		ContentType: w.DataContentType, Data: w.Body(), Version: w.EntityVersion, Position: w.Position,
		CommandID: w.CommandID, CommandType: w.CommandType, Metadata: abi.Metadata(w.Metadata),
	}
}

// Page is a part of a service's events.
type Page struct {
	Events []Event `json:"events"`
	// Next is the cursor from which to read on. It is also set at the end of the log.
	Next string `json:"next"`
	// More says that there were more events when the host made the page.
	More bool `json:"more"`
}

// EntityPage is a part of one entity's events.
type EntityPage struct {
	Events []Event `json:"events"`
	// First is the version of the entity's first readable event: 1 unless a retention has deleted events.
	First service.Version `json:"first"`
	// Next is the place from which to read on: a cursor, or the requested place if there were no events.
	Next string `json:"next"`
	// More says that there were more events when the host made the page.
	More bool `json:"more"`
}
