package stream

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Event is an event for subscribers. It is shared by all of them: nobody changes
// it or its slices. Its methods are safe for concurrent use.
type Event struct {
	journal.Event

	service service.Name
	hub     *Hub // nil: of nobody's stream
	origin  journal.Stamp
	once    sync.Once
	cloud   []byte
	shared  sync.Once // guards the making of share
	share   *Share
	looked  sync.Once // at the data
	form    Form
}

// Form is how an event's data stands in its encoded form.
type Form uint8

// The forms of data.
const (
	NoData  Form = iota
	JSON         // as it is
	Lines        // JSON with line breaks, which are white space
	NotJSON      // in base64
)

// LargeData is the size of an event's data, in bytes, above which an encoded form of it
// is better not kept; see [Event.Around].
const LargeData = 16 << 10

// Around is what stands before and after the data in the event's encoded form, and how
// the data stands there, for those who write it in pieces: Lines with spaces instead of
// line breaks, NotJSON between the quotes that are there.
func (e *Event) Around() (head, tail []byte, form Form) {
	head = appendHead(make([]byte, 0, 512+len(e.Key)), e)
	switch form = e.dataForm(); form {
	case JSON, Lines:
		head = append(head, `,"data":`...)
	case NotJSON:
		head = append(head, `,"data_base64":"`...)
		tail = append(tail, '"')
	}
	return head, appendTail(tail, e), form
}

func (e *Event) dataForm() Form {
	e.looked.Do(func() {
		switch {
		case len(e.Data) == 0:
			e.form = NoData
		case !isJSON(e.ContentType) || !utf8.Valid(e.Data) || !json.Valid(e.Data):
			e.form = NotJSON
		case bytes.IndexByte(e.Data, '\n') < 0 && bytes.IndexByte(e.Data, '\r') < 0:
			e.form = JSON
		default:
			e.form = Lines
		}
	})
	return e.form
}

// NewEvent makes an event of one that was read from the log with that identity. It keeps e's
// slices, which must be its own.
func NewEvent(name service.Name, origin journal.Stamp, e journal.Event) *Event {
	e.ContentType = contentType(e.ContentType)
	return &Event{Event: e, service: name, origin: origin}
}

// Cursor is the event's place: a reader that begins there gets the event after this one first.
func (e *Event) Cursor() service.Cursor {
	return service.Cursor{Position: e.Position, Origin: e.origin, Stamp: e.Stamp}
}

// CloudEvent is the event in the JSON format of CloudEvents 1.0, in one line
// without line breaks. It is encoded once for all subscribers, when the first
// asks.
func (e *Event) CloudEvent() []byte {
	e.once.Do(func() { e.cloud = appendCloudEvent(nil, e) })
	return e.cloud
}

// size is what the event takes in memory, in bytes, with its encoded form: no less.
func (e *Event) size() int64 {
	return int64(768 + 3*len(e.Data) + 2*len(e.Key) + 2*len(e.Type) + 2*len(e.CommandID) + metadataSize(e.Metadata))
}

// blocks makes events, many small ones in one piece of memory. Who keeps one of them keeps
// the whole piece, and so what the others refer to: little, as large ones stand alone.
type blocks struct{ room []Event }

const (
	together = 64      // events in a piece
	alone    = 1 << 10 // bytes of data and metadata from which on an event is no part of one
)

// next makes an event with so many bytes of data and metadata. left is how many there may be yet.
func (b *blocks) next(bytes, left int) *Event {
	if bytes >= alone {
		return new(Event)
	}
	if len(b.room) == 0 {
		b.room = make([]Event, min(together, left))
	}
	e := &b.room[0]
	b.room = b.room[1:]
	return e
}

func contentType(s string) string {
	if s == "" {
		return abi.EncodingJSON
	}
	return s
}

// appendCloudEvent appends the structured form. Names of extensions are of lower
// case letters and digits, as the specification demands. Numbers are texts: those of
// CloudEvents have 31 bits, and SDKs refuse the whole event for a larger one. sequence is the
// position as an extension of that name wants it: ordered as text.
func appendCloudEvent(b []byte, e *Event) []byte {
	if b == nil {
		b = make([]byte, 0, 448+len(e.Key)+len(e.Type)+len(e.CommandType)+len(e.CommandID)+len(e.Data)*4/3)
	}
	return appendTail(appendData(appendHead(b, e), e), e)
}

func appendHead(b []byte, e *Event) []byte {
	b = append(b, `{"specversion":"1.0","id":"`...)
	b = e.Cursor().Append(b)
	b = append(b, `","source":"/services/`...)
	b = append(b, e.service...) // of letters, digits and '-'
	b = append(b, '"')
	b = appendText(b, "type", e.Type)
	b = appendText(b, "subject", e.Key)
	b = append(b, `,"time":"`...)
	b = time.Unix(0, int64(e.Time)).UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	return appendText(b, "datacontenttype", e.ContentType)
}

func appendTail(b []byte, e *Event) []byte {
	b = append(b, `,"entityversion":"`...)
	b = strconv.AppendUint(b, uint64(e.Version), 10)
	b = append(b, `","position":"`...)
	b = strconv.AppendUint(b, uint64(e.Position), 10)
	b = append(b, `","sequence":"`...)
	b = appendSequence(b, uint64(e.Position))
	b = append(b, '"')
	b = appendText(b, "commandid", string(e.CommandID))
	b = appendText(b, "commandtype", e.CommandType)
	return append(appendMetadata(b, e.Metadata), '}')
}

// appendData appends the body: as it is if it is JSON and says so, else in base64.
func appendData(b []byte, e *Event) []byte {
	switch e.dataForm() {
	case NoData:
		return b
	case JSON:
		return append(append(b, `,"data":`...), e.Data...)
	case Lines:
		b = append(b, `,"data":`...)
		// Line breaks would end the event in a stream of lines.
		compact := bytes.NewBuffer(b)
		_ = json.Compact(compact, e.Data) // it is valid
		return compact.Bytes()
	}
	b = append(b, `,"data_base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, e.Data)
	return append(b, '"')
}

// isJSON reports whether data of a content type are JSON within an event: application/json and
// text/json. Those of other kinds of JSON, +json, are in base64: the official Go SDK refuses an
// event that has them as JSON.
func isJSON(contentType string) bool {
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
	b = append(b, `":"`...)
	const hex = "0123456789abcdef"
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
