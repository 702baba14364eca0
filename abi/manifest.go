package abi

import "strconv"

// Manifest describes a service, in answer to Describe, as JSON. The index of an entry in
// Commands, Queries or Events is the type in frames.
type Manifest struct {
	ABI          int           // major version of the ABI; [Version]
	Service      string        // the service's own name, [a-z][a-z0-9-]{0,62}
	Version      string        // the author's version, free text
	SDK          string        // name and version of the SDK, free text
	Features     []string      // minor features beyond the major version, by name
	StateSchema  uint32        // changes when old snapshots are no longer the state that their events give
	Encoding     string        // content type of all bodies; empty means application/json
	Commands     []CommandType // in type order
	Queries      []QueryType   // in type order
	Events       []EventType   // in type order
	Capabilities []string      // capability modules that the service wants

	// EarlierSchemas are the state schemas of earlier builds whose snapshots the guest takes, too.
	// They need [FeatureEarlierSchemas]. The index of an entry is the type of an Open with FlagEarlier.
	EarlierSchemas []uint32
}

// CommandType describes a command. Schemas are JSON Schema documents; "" means none.
type CommandType struct {
	Name  string
	Input string
	Reply string
}

// QueryType describes a query.
type QueryType struct {
	Name  string
	Input string
	Reply string
}

// EventType describes an event. Aliases are older names of the event that the journal may still
// have. An event with UpcastTo is an old one that the guest no longer emits: it applies such an
// event as the one named there.
type EventType struct {
	Name     string
	Schema   string
	Aliases  []string
	UpcastTo string // name of another event in the manifest; "" means none
}

// FeatureEarlierSchemas is the feature of guests that take snapshots of earlier state schemas.
const FeatureEarlierSchemas = "earlier_schemas"

// EncodingJSON is the default encoding of bodies.
const EncodingJSON = "application/json"

// AppendJSON appends the manifest as JSON, the body of a Description. Schemas are copied
// unchanged and must be valid JSON.
func (m *Manifest) AppendJSON(b []byte) []byte {
	b = append(b, `{"abi":`...)
	b = strconv.AppendInt(b, int64(m.ABI), 10)
	b = appendMember(b, "service", m.Service)
	b = appendMember(b, "version", m.Version)
	b = appendMember(b, "sdk", m.SDK)
	b = appendStrings(b, "features", m.Features)
	b = append(b, `,"state_schema":`...)
	b = strconv.AppendUint(b, uint64(m.StateSchema), 10)
	b = appendNumbers(b, "earlier_schemas", m.EarlierSchemas)
	encoding := m.Encoding
	if encoding == "" {
		encoding = EncodingJSON
	}
	b = appendMember(b, "encoding", encoding)
	b = append(b, `,"commands":[`...)
	for i, c := range m.Commands {
		b = appendCallable(b, i, c.Name, c.Input, c.Reply)
	}
	b = append(b, `],"queries":[`...)
	for i, q := range m.Queries {
		b = appendCallable(b, i, q.Name, q.Input, q.Reply)
	}
	b = append(b, `],"events":[`...)
	for i, e := range m.Events {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"name":`...)
		b = appendString(b, e.Name)
		b = appendRaw(b, "schema", e.Schema)
		b = appendStrings(b, "aliases", e.Aliases)
		if e.UpcastTo != "" {
			b = appendMember(b, "upcast_to", e.UpcastTo)
		}
		b = append(b, '}')
	}
	b = append(b, ']')
	b = appendStrings(b, "capabilities", m.Capabilities)
	return append(b, '}')
}

func appendCallable(b []byte, i int, name, input, reply string) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	b = append(b, `{"name":`...)
	b = appendString(b, name)
	b = appendRaw(b, "input", input)
	b = appendRaw(b, "reply", reply)
	return append(b, '}')
}

func appendMember(b []byte, name, value string) []byte {
	b = appendName(b, name)
	return appendString(b, value)
}

func appendRaw(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = appendName(b, name)
	return append(b, value...)
}

func appendStrings(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = appendName(b, name)
	b = append(b, '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, v)
	}
	return append(b, ']')
}

func appendNumbers(b []byte, name string, values []uint32) []byte {
	if len(values) == 0 {
		return b
	}
	b = appendName(b, name)
	for i, v := range values {
		sep := byte(',')
		if i == 0 {
			sep = '['
		}
		b = strconv.AppendUint(append(b, sep), uint64(v), 10)
	}
	return append(b, ']')
}

func appendName(b []byte, name string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// appendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD, so that the
// JSON is always valid.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}
