package api

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/jsoncheck"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Subprotocols of WebSocket connections.
const (
	ProtocolStream      = "bulkhead.v1.json" // GET /v1/stream
	ProtocolCloudEvents = "cloudevents.json" // GET /v1/services/{service}/events
	// ProtocolTokenPrefix starts a subprotocol that carries the token, in base64url
	// without padding, for browsers, which cannot set headers on an upgrade. The
	// server never selects it.
	ProtocolTokenPrefix = "bulkhead.token."
)

// Event is an event as clients see it. Its JSON is the native form, in pages and in messages of
// bulkhead.v1.json. Its members have the names of CloudEvents attributes, but it is not a CloudEvent: its
// numbers are not texts, and its metadata is an object.
type Event struct {
	ID              string            `json:"id"`              // the cursor: reading from it starts after this event
	Source          string            `json:"source"`          // /services/{service}
	Type            string            `json:"type"`            // the event's type
	Subject         string            `json:"subject"`         // the entity's key
	Time            time.Time         `json:"time"`            // when it was committed
	DataContentType string            `json:"datacontenttype"` // of Data
	Data            json.RawMessage   `json:"data,omitempty"`
	DataBase64      []byte            `json:"data_base64,omitempty"` // if data is not JSON
	EntityVersion   service.Version   `json:"entityversion"`         // of the entity after this event
	Position        service.Position  `json:"position"`              // in the service's log
	CommandID       service.CommandID `json:"commandid"`             // of the command that caused it
	CommandType     service.Type      `json:"commandtype"`
	Metadata        EventMetadata     `json:"metadata,omitempty"`
}

// Body is the event's data, in either form.
func (e *Event) Body() []byte { return either(e.Data, e.DataBase64) }

// EventMetadata is what a guest wrote beside an event, with what is kept of its command's metadata, as a JSON
// object of strings. It may be larger than a command's metadata.
type EventMetadata abi.Metadata

// MarshalJSON implements json.Marshaler, as [Metadata] does.
func (m EventMetadata) MarshalJSON() ([]byte, error) { return Metadata(m).MarshalJSON() }

// UnmarshalJSON implements json.Unmarshaler. It keeps the order, and refuses repeated names.
func (m *EventMetadata) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*m = nil
		return nil
	}
	parsed, err := parsePairs(b, math.MaxInt, strings.Clone)
	*m = EventMetadata(parsed)
	return err
}

// DecodeEvent decodes an event in its native form.
func DecodeEvent(text []byte) (e Event, err error) {
	err = json.Unmarshal(text, &e)
	return e, err
}

// cloudEvent is an event as CloudEvents 1.0, without the attributes from metadata. Numbers are texts, and so
// is the rest of the metadata.
type cloudEvent struct {
	SpecVersion string `json:"specversion"`
	Event
	EntityVersion service.Version  `json:"entityversion,string"`
	Position      service.Position `json:"position,string"`
	Sequence      string           `json:"sequence"` // the position with 20 digits, so that texts sort like numbers
	Metadata      string           `json:"metadata"`
}

// attributes are the members of a cloudEvent. All other members of an event are pairs of its metadata.
var attributes = map[string]bool{
	"specversion": true, "id": true, "source": true, "type": true, "subject": true, "time": true,
	"datacontenttype": true,
	"data":            true, "data_base64": true, "entityversion": true, "position": true, "sequence": true,
	"commandid": true, "commandtype": true, "metadata": true,
}

// DecodeCloudEvent decodes an event in the form of a CloudEvent. It is total. It joins the metadata; pairs
// that were attributes come first.
func DecodeCloudEvent(text []byte) (Event, error) {
	var c cloudEvent
	if err := json.Unmarshal(text, &c); err != nil {
		return Event{}, err
	}
	if c.SpecVersion != "1.0" { // even null, which has no members
		return Event{}, service.Errorf(service.KindInvalid, "specversion is %.40q; it has to be 1.0", c.SpecVersion)
	}
	e := c.Event
	e.EntityVersion, e.Position = c.EntityVersion, c.Position
	seen := map[string]bool{}
	add := func(name, value string) error {
		if seen[name] {
			return service.Errorf(service.KindInvalid, "%.80q is there twice", name)
		}
		seen[name] = true
		e.Metadata = EventMetadata(abi.Metadata(e.Metadata).AppendPair(name, value))
		return nil
	}
	for written, value := range jsoncheck.Members(bytes.Trim(text, " \t\r\n")) {
		var name, pair string
		if err := json.Unmarshal(written, &name); err != nil {
			return Event{}, err
		}
		if attributes[name] {
			continue
		}
		if !isAttributeName(name) {
			return Event{}, service.Errorf(service.KindInvalid, "%.80q is no name of an attribute", name)
		}
		if err := json.Unmarshal(value, &pair); err != nil {
			return Event{}, err
		}
		if err := add(name, pair); err != nil {
			return Event{}, err
		}
	}
	if c.Metadata != "" {
		var others EventMetadata
		if err := json.Unmarshal([]byte(c.Metadata), &others); err != nil {
			return Event{}, err
		}
		for name, value := range service.Pairs(abi.Metadata(others)) {
			if err := add(string(name), string(value)); err != nil {
				return Event{}, err
			}
		}
	}
	return e, nil
}

// isAttributeName reports whether CloudEvents may have an attribute of a name.
func isAttributeName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// TypeCheckpoint is the type of a checkpoint in a stream of CloudEvents. Its id is the cursor that has been
// reached. No event of a service has its source.
const TypeCheckpoint = "bulkhead.checkpoint"

// AppendCheckpointEvent appends a checkpoint as a CloudEvent.
func AppendCheckpointEvent(b []byte, name service.Name, cursor string, now time.Time) []byte {
	b = append(b, `{"specversion":"1.0","id":`...)
	b = AppendString(b, cursor)
	b = append(b, `,"source":"/services/`...)
	b = append(b, name...) // of letters, digits and '-'
	b = append(b, `/checkpoints","type":"`+TypeCheckpoint+`","time":"`...)
	return append(now.UTC().AppendFormat(b, time.RFC3339Nano), `"}`...)
}

// Page is a part of a log. Events are kept in encoded form; see [Event].
type Page struct {
	Events []json.RawMessage `json:"events"`
	// Next is the cursor from which to read on. It is set even at the end of the log.
	Next string `json:"next"`
	// More says that there were more events when the page was made.
	More bool `json:"more"`
}

// EntityPage is a part of one entity's stream.
type EntityPage struct {
	Events []json.RawMessage `json:"events"`
	// First is the version of the entity's first event that a retention has left; 1 if none was deleted.
	First service.Version `json:"first"`
	// Next is the place from which to read on: a cursor, or the requested place if there were no events.
	Next string `json:"next"`
	// More says that there were more events when the page was made.
	More bool `json:"more"`
}

// PageStart is what comes before the first event of a [Page] or an [EntityPage]. Commas separate the events.
var PageStart = []byte(`{"events":[`)

// BatchStart and BatchEnd enclose the events of a batch, which commas separate: the JSON batch format of
// CloudEvents 1.0.
var (
	BatchStart = []byte(`[`)
	BatchEnd   = []byte(`]`)
)

// PageEnd is the end of a [Page].
func PageEnd(next string, more bool) []byte {
	return closePage(AppendString([]byte(`],"next":`), next), more)
}

// EntityPageEnd is the end of an [EntityPage].
func EntityPageEnd(first service.Version, next string, more bool) []byte {
	b := append(appendUint([]byte(`]`), "first", uint64(first)), `,"next":`...)
	return closePage(AppendString(b, next), more)
}

func closePage(b []byte, more bool) []byte {
	if more {
		return append(b, `,"more":true}`...)
	}
	return append(b, `,"more":false}`...)
}
