package api

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Op is the kind of a message of the protocol bulkhead.v1.json.
type Op string

// The messages of clients.
const (
	OpSubscribe   Op = "subscribe"   // start a subscription
	OpCredit      Op = "credit"      // allow it more events
	OpUnsubscribe Op = "unsubscribe" // end it
	OpCommand     Op = "command"     // send a command
	OpQuery       Op = "query"       // read an entity
	OpPing        Op = "ping"        // answered by pong
)

// The messages of servers.
const (
	OpHello        Op = "hello"        // the first message: what this connection may do
	OpSubscribed   Op = "subscribed"   // answers subscribe
	OpEvent        Op = "event"        // an event of a subscription
	OpCheckpoint   Op = "checkpoint"   // how far a subscription has read; sent after events that are not selected
	OpUnsubscribed Op = "unsubscribed" // the last message of a subscription; with a problem unless it was requested
	OpReply        Op = "reply"        // answers command and query
	OpError        Op = "error"        // answers anything that failed
	OpPong         Op = "pong"
)

// MaxStreamID bounds the id of a message or subscription, in bytes.
const MaxStreamID = 128

// ClientMessage is a message from client to server. The op decides which members it has. ID is chosen by the
// sender and returned in the answer.
type ClientMessage struct {
	Op Op     `json:"op"`
	ID string `json:"id,omitempty"`

	Service service.Name `json:"service,omitempty"` // subscribe, command, query

	From    string   `json:"from,omitempty"`    // subscribe: see [service.ParseFrom]; default "start"
	Types   []string `json:"types,omitempty"`   // subscribe: only these types of events
	Keys    []string `json:"keys,omitempty"`    // subscribe: only these entities
	Credits uint64   `json:"credits,omitempty"` // subscribe, credit: how many more events the client accepts

	Key        string           `json:"key,omitempty"`  // command, query
	Type       string           `json:"type,omitempty"` // command, query
	Data       json.RawMessage  `json:"data,omitempty"`
	DataBase64 []byte           `json:"data_base64,omitempty"` // instead of Data, if it is not JSON
	TimeoutMS  *int64           `json:"timeout_ms,omitempty"`  // how long from now the sender waits
	CommandID  string           `json:"command_id,omitempty"`
	Expected   *service.Version `json:"expected_version,omitempty"`
	Metadata   Metadata         `json:"metadata,omitempty"`

	keeps bool
}

// Keeps reports whether the message refers to the bytes that it was decoded from.
func (m *ClientMessage) Keeps() bool { return m.keeps }

// Body is the data of a command or query, in either form.
func (m *ClientMessage) Body() []byte { return either(m.Data, m.DataBase64) }

// DecodeClientMessage decodes one message. It is total. The data of a large message stays in b, which then
// belongs to the message; see [ClientMessage.Keeps]. The message must pass [service.DecodeJSON]: otherwise a
// misspelt expected_version would be ignored, and a subscription with key in place of keys would get every
// event. If there is an error, but the id could be read, the id is set.
func DecodeClientMessage(b []byte) (ClientMessage, error) {
	return decodeClientMessage(b, largeMessage)
}

func decodeClientMessage(b []byte, large int) (ClientMessage, error) {
	var m ClientMessage
	rest, err := b, error(nil)
	var data, binary []byte
	if len(b) > large {
		if err = service.CheckJSON("", b); err == nil {
			rest, data, binary, err = cutData(b)
		}
		m.keeps = true
	}
	if err == nil {
		err = service.DecodeJSON(rest, &m)
	}
	if data != nil {
		m.Data = data
	}
	if binary != nil {
		m.DataBase64 = binary
	}
	if err != nil {
		id := MessageID(b[:min(len(b), large)])
		if strings.ContainsRune(id, utf8.RuneError) {
			id = "" // the id itself may be invalid
		}
		if service.KindOf(err) == service.KindInvalid {
			err = service.Errorf(service.KindInvalid, "the message is not one of %s: %s", ProtocolStream,
				messageOf(err))
		}
		return ClientMessage{ID: id}, err
	}
	if len(m.ID) > MaxStreamID {
		return ClientMessage{}, service.Errorf(service.KindInvalid, "id has %d bytes; it may have %d", len(m.ID),
			MaxStreamID)
	}
	if len(m.Data) > 0 && m.DataBase64 != nil {
		return ClientMessage{ID: m.ID},
			service.Errorf(service.KindInvalid, "data and data_base64 are both there; which is meant?")
	}
	if name := m.foreign(); name != "" {
		return ClientMessage{ID: m.ID}, service.Errorf(service.KindInvalid,
			"the message is not one of %s: %s has no member %q", ProtocolStream, m.Op, name)
	}
	return m, nil
}

// foreign names a member that is set, but does not belong to messages of this op; empty if there is none. An
// unknown op is reported elsewhere.
func (m *ClientMessage) foreign() string {
	call := m.Op == OpCommand || m.Op == OpQuery
	for _, member := range []struct {
		name string
		set  bool
		of   bool // it belongs to this op
	}{
		{"service", m.Service != "", call || m.Op == OpSubscribe},
		{"from", m.From != "", m.Op == OpSubscribe},
		{"types", m.Types != nil, m.Op == OpSubscribe},
		{"keys", m.Keys != nil, m.Op == OpSubscribe},
		{"credits", m.Credits != 0, m.Op == OpSubscribe || m.Op == OpCredit},
		{"key", m.Key != "", call},
		{"type", m.Type != "", call},
		{"data", m.Data != nil, call},
		{"data_base64", m.DataBase64 != nil, call},
		{"timeout_ms", m.TimeoutMS != nil, call},
		{"command_id", m.CommandID != "", m.Op == OpCommand},
		{"expected_version", m.Expected != nil, m.Op == OpCommand},
		{"metadata", m.Metadata != nil, m.Op == OpCommand},
	} {
		if member.set && !member.of && m.Op.ofClients() {
			return member.name
		}
	}
	return ""
}

// ofClients reports whether clients send such messages.
func (o Op) ofClients() bool {
	switch o {
	case OpSubscribe, OpCredit, OpUnsubscribe, OpCommand, OpQuery, OpPing:
		return true
	}
	return false
}

// Limits are the limits of one connection.
type Limits struct {
	MessageBytes  int64 `json:"message_bytes"` // size of one message of the client
	InFlight      int   `json:"in_flight"`     // commands and queries without an answer yet
	Subscriptions int   `json:"subscriptions"` // number of subscriptions
	Credits       int64 `json:"credits"`       // that one subscription may hold
}

// ServerMessage is a message from server to client, as a client reads it.
type ServerMessage struct {
	Op      Op              `json:"op"`
	ID      string          `json:"id,omitempty"`  // of the request that is answered
	Sub     string          `json:"sub,omitempty"` // event, checkpoint: the id of its subscription
	Reply                   // reply; those to queries have only Reply, Version and Fuel
	Event   json.RawMessage `json:"event,omitempty"`   // event: an [Event]
	Problem *Problem        `json:"problem,omitempty"` // error, unsubscribed
	Limits  *Limits         `json:"limits,omitempty"`  // hello

	Protocol string `json:"protocol,omitempty"` // hello: bulkhead.v1.json
}

// The server's messages are appended by hand: replies and events are encoded for each client separately.

// AppendHello appends a hello.
func AppendHello(b []byte, l Limits) []byte {
	text, _ := json.Marshal(struct { // values of these types can always be encoded
		Op       Op     `json:"op"`
		Protocol string `json:"protocol"`
		Limits   Limits `json:"limits"`
	}{OpHello, ProtocolStream, l})
	return append(b, text...)
}

// CommandReplyText is the reply to a command. It appends to head.
func CommandReplyText(head []byte, id string, r *service.Reply) Pieces {
	return replyMembers(append(appendHead(head, OpReply, id), ','), r)
}

// QueryAnswerText is the reply to a query. It appends to head.
func QueryAnswerText(head []byte, id string, r *service.QueryReply) Pieces {
	return queryMembers(append(appendHead(head, OpReply, id), ','), r)
}

// AppendSubscribed appends the answer to a subscribe: the cursor after which the events begin.
func AppendSubscribed(b []byte, id, cursor string) []byte {
	b = append(appendHead(b, OpSubscribed, id), `,"cursor":`...)
	return append(AppendString(b, cursor), '}')
}

// AppendCheckpoint appends a checkpoint: a cursor after which a subscription goes on.
func AppendCheckpoint(b []byte, sub, cursor string) []byte {
	b = append(appendHead(b, OpCheckpoint, ""), `,"sub":`...)
	b = append(AppendString(b, sub), `,"cursor":`...)
	return append(AppendString(b, cursor), '}')
}

// AppendProblem appends a message that may carry a problem: error or unsubscribed.
func AppendProblem(b []byte, op Op, id string, p *Problem) []byte {
	b = appendHead(b, op, id)
	if p != nil {
		text, _ := json.Marshal(p)
		b = append(append(b, `,"problem":`...), text...)
	}
	return append(b, '}')
}

// AppendPong appends the answer to a ping.
func AppendPong(b []byte, id string) []byte { return append(appendHead(b, OpPong, id), '}') }

// AppendEventHead appends what comes before the event, in its native form, in an event message; one closing
// brace follows the event. It is the same for all events of a subscription.
func AppendEventHead(b []byte, sub string) []byte {
	b = append(b, `{"op":"event","sub":`...)
	b = AppendString(b, sub)
	return append(b, `,"event":`...)
}

func appendHead(b []byte, op Op, id string) []byte {
	b = append(b, `{"op":"`...)
	b = append(b, op...)
	b = append(b, '"')
	if id != "" {
		b = append(b, `,"id":`...)
		b = AppendString(b, id)
	}
	return b
}

// MetadataOf converts m's metadata to the form of the ABI.
func (m *ClientMessage) MetadataOf() abi.Metadata { return abi.Metadata(m.Metadata) }
