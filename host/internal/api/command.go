package api

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Reply is the answer to a command that was carried out; its events are on disk.
type Reply struct {
	Service     service.Name      `json:"service"`
	Key         service.Key       `json:"key"`
	CommandID   service.CommandID `json:"command_id"`
	Reply       json.RawMessage   `json:"reply,omitempty"`        // the handler's reply, if it is JSON
	ReplyBase64 []byte            `json:"reply_base64,omitempty"` // the handler's reply, if it is not
	Version     service.Version   `json:"version"`                // of the entity
	Position    service.Position  `json:"position"`               // of the last event, in the service's log
	Cursor      string            `json:"cursor"`                 // of that position: reading from it starts after this command
	Events      int               `json:"events"`                 // how many the command caused
	Fuel        uint64            `json:"fuel"`
	Repeated    bool              `json:"repeated"` // the command was carried out before; this is its first answer
}

// Data is the handler's reply, in either form.
func (r *Reply) Data() []byte { return either(r.Reply, r.ReplyBase64) }

// Value converts the reply to the type of package service.
func (r *Reply) Value() service.Reply {
	cursor, _ := service.ParseCursor(r.Cursor) // the zero one if the host sends something else
	return service.Reply{
		Service: r.Service, Key: r.Key, CommandID: r.CommandID, Data: r.Data(), Events: r.Events,
		Position: r.Position, Cursor: cursor, Version: r.Version, Fuel: r.Fuel, Repeated: r.Repeated,
	}
}

// ReplyText is the JSON of r, with head before it. A large reply of the handler is not
// copied.
func ReplyText(head []byte, r *service.Reply) Pieces {
	return replyMembers(append(head, '{'), r)
}

func replyMembers(b []byte, r *service.Reply) Pieces {
	b = append(b, `"service":`...)
	b = AppendString(b, string(r.Service))
	b = append(b, `,"key":`...)
	b = AppendString(b, string(r.Key))
	b = append(b, `,"command_id":`...)
	b = AppendString(b, string(r.CommandID))
	p := bodyIn(Text(b), "reply", r.Data)
	b = appendUint(p.text, "version", uint64(r.Version))
	b = appendUint(b, "position", uint64(r.Position))
	b = append(b, `,"cursor":"`...)
	b = append(r.Cursor.Append(b), '"')
	b = appendUint(b, "events", uint64(r.Events))
	b = appendUint(b, "fuel", r.Fuel)
	b = append(b, `,"repeated":`...)
	p.text = append(strconv.AppendBool(b, r.Repeated), '}')
	return p
}

// QueryReply is the answer to a query.
type QueryReply struct {
	Reply       json.RawMessage `json:"reply,omitempty"`        // the handler's reply, if it is JSON
	ReplyBase64 []byte          `json:"reply_base64,omitempty"` // the handler's reply, if it is not
	Version     service.Version `json:"version"`                // of the entity on which it depends
	Fuel        uint64          `json:"fuel"`
}

// Data is the handler's reply, in either form.
func (r *QueryReply) Data() []byte { return either(r.Reply, r.ReplyBase64) }

// Value converts the reply to the type of package service.
func (r *QueryReply) Value() service.QueryReply {
	return service.QueryReply{Data: r.Data(), Version: r.Version, Fuel: r.Fuel}
}

// QueryReplyText is the JSON of r, with head before it. A large reply of the handler is
// not copied.
func QueryReplyText(head []byte, r *service.QueryReply) Pieces {
	return queryMembers(append(head, '{'), r)
}

func queryMembers(b []byte, r *service.QueryReply) Pieces {
	b = append(b, `"version":`...)
	b = strconv.AppendUint(b, uint64(r.Version), 10)
	p := bodyIn(Text(b), "reply", r.Data)
	p.text = append(appendUint(p.text, "fuel", r.Fuel), '}')
	return p
}

func either(text json.RawMessage, binary []byte) []byte {
	if len(text) > 0 {
		return text
	}
	return binary
}

func appendUint(b []byte, name string, v uint64) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return strconv.AppendUint(b, v, 10)
}

// AppendString appends s as a JSON string; bytes that are not UTF-8 become U+FFFD.
func AppendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			i++
		case c < utf8.RuneSelf:
			b = append(b, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
		}
	}
	return append(b, '"')
}
