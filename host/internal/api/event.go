package api

import (
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
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

// FromStart and FromEnd are where to read a log from, beside what else [service.ParseFrom] reads.
const (
	FromStart = "start" // the first event; the default
	FromEnd   = "end"   // what comes after now
)

// Event is an event as clients see it: a CloudEvent 1.0.
type Event struct {
	SpecVersion     string            `json:"specversion"`     // "1.0"
	ID              string            `json:"id"`              // the cursor: reading from it starts after this event
	Source          string            `json:"source"`          // /services/{service}
	Type            string            `json:"type"`            // the event's type
	Subject         string            `json:"subject"`         // the entity's key
	Time            time.Time         `json:"time"`            // when it was committed
	DataContentType string            `json:"datacontenttype"` // of Data
	Data            json.RawMessage   `json:"data,omitempty"`
	DataBase64      []byte            `json:"data_base64,omitempty"` // if data is not JSON
	EntityVersion   service.Version   `json:"entityversion,string"`  // of the entity after this event
	Position        service.Position  `json:"position,string"`       // in the service's log
	Sequence        string            `json:"sequence"`              // the position with 20 digits, so that texts compare as numbers do
	CommandID       service.CommandID `json:"commandid"`             // of the command that caused it
	CommandType     service.Type      `json:"commandtype"`
	// MetadataText is the metadata of the event: the text of a JSON object of strings. Pairs
	// whose names can be names of attributes are members of the event beside it.
	MetadataText string `json:"metadata,omitempty"`

	Raw json.RawMessage `json:"-"` // the event as it came; see [DecodeEvent]
}

// Body is the event's data, whichever form it came in.
func (e *Event) Body() []byte { return either(e.Data, e.DataBase64) }

// Metadata is what its guest wrote beside the event, and what is kept of its command's.
func (e *Event) Metadata() (abi.Metadata, error) {
	if e.MetadataText == "" {
		return nil, nil
	}
	return parsePairs([]byte(e.MetadataText), math.MaxInt, strings.Clone)
}

// TypeCheckpoint is the type of what a stream of CloudEvents has beside a service's events: a checkpoint, whose id is the
// cursor that it has come to. Its source is that of no service's event.
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

// Page is a part of a log. Events are kept as they came; [Event] is their form.
type Page struct {
	Events []json.RawMessage `json:"events"`
	// Next is the cursor to read on from. It is there also at the end of the log.
	Next string `json:"next"`
	// More says that there was more when the page was made.
	More bool `json:"more"`
}

// EntityPage is a part of one entity's stream.
type EntityPage struct {
	Events []json.RawMessage `json:"events"`
	// First is the version of the first event that a retention has left of the entity; 1 if it has
	// deleted none.
	First service.Version `json:"first"`
	// Next is what to read on after: a cursor, or what was asked for if there was nothing.
	Next string `json:"next"`
	// More says that there was more when the page was made.
	More bool `json:"more"`
}

// PageStart is what stands before the first event of a [Page] or an [EntityPage]. There
// are commas between the events.
var PageStart = []byte(`{"events":[`)

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

// DecodeEvent reads an event and keeps its text in Raw.
func DecodeEvent(raw []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(raw, &e); err != nil {
		return Event{}, err
	}
	e.Raw = raw
	return e, nil
}
