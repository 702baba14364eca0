package service

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Event is an event on disk. All readers share it, so it and its slices must never be changed. Its methods
// are safe for concurrent use. The zero value is not an event; see [NewEvent].
type Event struct {
	journal.Event

	service Name
	origin  journal.Stamp                         // identity of the log
	memory  Memory                                // nil: not counted
	texts   [eventForms]atomic.Pointer[eventText] // nil: not yet encoded in that form
	looked  sync.Once                             // guards the check of the data
	data    DataForm
}

// EventForm is a JSON form of an event. The two forms have the same members where possible.
type EventForm uint8

// The forms of events.
const (
	// NativeEvent is the form for programs that know Bulkhead: position and entityversion are numbers of up
	// to 64 bits, and metadata is an object with all pairs.
	NativeEvent EventForm = iota
	// CloudEvent is the JSON format of CloudEvents 1.0. Both numbers are texts, and there are no objects:
	// pairs of metadata become attributes where possible; the others are in metadata, as text.
	CloudEvent
	eventForms = iota
)

// eventText is an event in one form. It is encoded on first use.
type eventText struct {
	once   sync.Once
	bytes  []byte
	shared sync.Once // guards the creation of share
	share  *Share
}

// DataForm is the form of an event's data in its encoded forms.
type DataForm uint8

// The forms of data.
const (
	NoData     DataForm = iota
	JSONData            // unchanged
	LineData            // JSON with line breaks, which are white space
	BinaryData          // in base64
)

// LargeData is the size of an event's data, in bytes, above which encoded forms are not kept; see
// [Event.Around].
const LargeData = 16 << 10

// Around returns what comes before and after the data in an encoded form of the event, and the form of the
// data. It is for callers that write an event in pieces: LineData with spaces in place of line breaks,
// BinaryData as base64 between the existing quotes.
func (e *Event) Around(form EventForm) (head, tail []byte, data DataForm) {
	head = appendHead(make([]byte, 0, 512+len(e.Key)), e, form)
	switch data = e.dataForm(); data {
	case JSONData, LineData:
		head = append(head, `,"data":`...)
	case BinaryData:
		head = append(head, `,"data_base64":"`...)
		tail = append(tail, '"')
	}
	return head, appendTail(tail, e, form), data
}

func (e *Event) dataForm() DataForm {
	e.looked.Do(func() {
		switch {
		case len(e.Data) == 0:
			e.data = NoData
		case !isEventJSON(e.ContentType) || !utf8.Valid(e.Data) || !json.Valid(e.Data):
			e.data = BinaryData
		case bytes.IndexByte(e.Data, '\n') < 0 && bytes.IndexByte(e.Data, '\r') < 0:
			e.data = JSONData
		default:
			e.data = LineData
		}
	})
	return e.data
}

// NewEvent makes an event from one that was read from the log with that identity. It keeps e's slices;
// nothing else may use them.
func NewEvent(name Name, origin journal.Stamp, e journal.Event) *Event {
	made := new(Event)
	made.Init(name, origin, e, nil)
	return made
}

// Init is NewEvent for an existing zero value. memory, if not nil, counts what the event's subscribers hold
// of it; see [Share].
func (e *Event) Init(name Name, origin journal.Stamp, of journal.Event, memory Memory) {
	if of.ContentType == "" {
		of.ContentType = abi.EncodingJSON
	}
	e.Event, e.service, e.origin, e.memory = of, name, origin, memory
}

// Cursor is the event's place: a reader that begins there gets the event after this one first.
func (e *Event) Cursor() Cursor {
	return Cursor{Position: e.Position, Origin: e.origin, Stamp: e.Stamp}
}

// Text is the event in a form, as one line. Each form is encoded once, on first use, for all subscribers; if
// the data is large, it is encoded each time.
func (e *Event) Text(form EventForm) []byte {
	if len(e.Data) > LargeData {
		return appendEvent(nil, e, form)
	}
	t := e.text(form)
	t.once.Do(func() { t.bytes = appendEvent(nil, e, form) })
	return t.bytes
}

func (e *Event) text(form EventForm) *eventText {
	at := &e.texts[form]
	if at.Load() == nil {
		at.CompareAndSwap(nil, new(eventText)) // unless another goroutine was faster
	}
	return at.Load()
}

// Size is an upper bound for the event's memory in bytes, with the encoded forms that are kept.
func (e *Event) Size() int64 {
	data := len(e.Data)
	if data <= LargeData {
		data *= 4 // the data, and its base64 in both forms
	}
	return int64(1280 + data + 3*len(e.Key) + 3*len(e.Type) + 3*len(e.CommandID) + metadataSize(e.Metadata))
}

// appendEvent appends an event in a form. Names of extensions are lower case letters and digits, as the
// specification demands; the native form uses the same names. Numbers of CloudEvents have 31 bits, and SDKs
// refuse an event with a larger one, so there the numbers are texts. sequence is the position in the format
// of the extension of that name: its order as text is the order of the events.
func appendEvent(b []byte, e *Event, form EventForm) []byte {
	if b == nil {
		b = make([]byte, 0, 448+len(e.Key)+len(e.Type)+len(e.CommandType)+len(e.CommandID)+len(e.Data)*4/3+
			2*len(e.Metadata))
	}
	return appendTail(appendData(appendHead(b, e, form), e), e, form)
}

func appendHead(b []byte, e *Event, form EventForm) []byte {
	b = append(b, '{')
	if form == CloudEvent {
		b = append(b, `"specversion":"1.0",`...)
	}
	b = append(b, `"id":"`...)
	b = e.Cursor().Append(b)
	b = append(b, `","source":"/services/`...)
	b = append(b, e.service...) // letters, digits and '-'
	b = append(b, '"')
	b = appendText(b, "type", e.Type)
	b = appendText(b, "subject", e.Key)
	b = append(b, `,"time":"`...)
	b = time.Unix(0, int64(e.Time)).UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	return appendText(b, "datacontenttype", e.ContentType)
}

func appendTail(b []byte, e *Event, form EventForm) []byte {
	b = appendNumber(b, "entityversion", uint64(e.Version), form)
	b = appendNumber(b, "position", uint64(e.Position), form)
	if form == CloudEvent {
		b = append(b, `,"sequence":"`...)
		b = appendSequence(b, uint64(e.Position))
		b = append(b, '"')
	}
	b = appendText(b, "commandid", string(e.CommandID))
	b = appendText(b, "commandtype", e.CommandType)
	if form == CloudEvent {
		b = appendAttributes(b, e.Metadata)
	} else {
		b = appendMetadata(b, e.Metadata)
	}
	return append(b, '}')
}

// appendNumber appends a member with a number of up to 64 bits; in a CloudEvent it is a text.
func appendNumber(b []byte, name string, n uint64, form EventForm) []byte {
	b = append(append(append(b, ',', '"'), name...), '"', ':')
	if form != CloudEvent {
		return strconv.AppendUint(b, n, 10)
	}
	return append(strconv.AppendUint(append(b, '"'), n, 10), '"')
}

// appendData appends the body: unchanged if its content type is JSON, otherwise as base64.
func appendData(b []byte, e *Event) []byte {
	switch e.dataForm() {
	case NoData:
		return b
	case JSONData:
		return append(append(b, `,"data":`...), e.Data...)
	case LineData:
		b = append(b, `,"data":`...)
		// Line breaks would end the event in a stream of lines.
		compact := bytes.NewBuffer(b)
		_ = json.Compact(compact, e.Data) // the data is valid
		return compact.Bytes()
	}
	b = append(b, `,"data_base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, e.Data)
	return append(b, '"')
}

// isEventJSON reports whether data of a content type is embedded as JSON: application/json and text/json.
// Data of other JSON types, +json, is base64: the official Go SDK refuses an event that embeds them as JSON.
func isEventJSON(contentType string) bool {
	if contentType == abi.EncodingJSON {
		return true
	}
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == abi.EncodingJSON || media == "text/json"
}

// appendSequence appends n with 20 digits.
func appendSequence(b []byte, n uint64) []byte {
	var digits [20]byte
	for i := range digits {
		digits[len(digits)-1-i] = byte('0' + n%10)
		n /= 10
	}
	return append(b, digits[:]...)
}

// appendText appends a member with a string. Bytes that are not UTF-8 become
// U+FFFD.
func appendText(b []byte, name, s string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return appendString(append(b, '"', ':'), s)
}

// appendString appends a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20 || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
