package abi

// Every payload begins with fixed fields. Some of these are the lengths of variable fields, which
// follow in the same order. A decoder ignores bytes after the last field that it knows, so that
// fields can be added within a major version.

// Open is the payload of an Open request: 8 bytes of fixed fields.
//
//	0  4  key length
//	4  4  snapshot length; used only with FlagSnapshot
//	8  …  key, snapshot
type Open struct {
	Key      []byte
	Snapshot []byte // nil without FlagSnapshot
}

// AppendOpen appends an Open frame. version is the version of the snapshot, 0 without one. A nil
// snapshot means none; an empty one is a snapshot of no bytes.
func AppendOpen(b []byte, slot uint32, version uint64, key string, snapshot []byte) []byte {
	b, at := BeginRequest(b)
	b = appendLengths(b, len(key), len(snapshot))
	b = append(b, key...)
	b = append(b, snapshot...)
	var flags uint8
	if snapshot != nil {
		flags = FlagSnapshot
	}
	return EndRequest(b, at, Request{Kind: ReqOpen, Flags: flags, Slot: slot, Version: version})
}

// AppendOpenEarlier is AppendOpen with a snapshot of an earlier state schema, which is given by its
// index in the manifest's earlier schemas.
func AppendOpenEarlier(b []byte, slot uint32, version uint64, key string, snapshot []byte, schema uint16) []byte {
	b, at := BeginRequest(b)
	b = appendLengths(b, len(key), len(snapshot))
	b = append(b, key...)
	b = append(b, snapshot...)
	return EndRequest(b, at, Request{Kind: ReqOpen, Flags: FlagSnapshot | FlagEarlier, Type: schema, Slot: slot,
		Version: version})
}

// DecodeOpen decodes the payload of an Open request.
func DecodeOpen(r *Request) (o Open, err error) {
	f := fields{b: r.Payload}
	f.fixed(8)
	o.Key = f.variable(0, MaxKeySize)
	snapshot := f.variable(4, MaxFrameSize)
	if r.Flags&FlagSnapshot != 0 {
		o.Snapshot = snapshot
	}
	if f.err != 0 {
		return Open{}, f.err
	}
	return o, nil
}

// Apply is the payload of an Apply request: 8 bytes of fixed fields. Type, version and time of the
// event are in the header.
//
//	0  4  body length
//	4  4  metadata length
//	8  …  body, metadata
type Apply struct {
	Body     []byte
	Metadata []byte
}

// AppendApply appends an Apply frame. version is the entity's version after the event.
func AppendApply(b []byte, slot uint32, typ uint16, version, time uint64, body, metadata []byte) []byte {
	b, at := BeginRequest(b)
	b = appendLengths(b, len(body), len(metadata))
	b = append(b, body...)
	b = append(b, metadata...)
	return EndRequest(b, at, Request{Kind: ReqApply, Type: typ, Slot: slot, Version: version, Time: time})
}

// DecodeApply decodes the payload of an Apply request.
func DecodeApply(r *Request) (a Apply, err error) {
	f := fields{b: r.Payload}
	f.fixed(8)
	a.Body = f.variable(0, MaxFrameSize)
	a.Metadata = f.variable(4, MaxMetadataSize)
	if f.err != 0 {
		return Apply{}, f.err
	}
	return a, nil
}

// Command is the payload of a Command request: 32 bytes of fixed fields. Type, entity version
// before the command, and time are in the header.
//
//	0   16  seed
//	16  4   command id length
//	20  4   metadata length
//	24  4   body length
//	28  4   zero
//	32  …   command id, metadata, body
type Command struct {
	Seed     [SeedSize]byte
	ID       []byte
	Metadata []byte
	Body     []byte
}

// AppendCommand appends a Command frame. version is the entity's version before the command.
func AppendCommand(b []byte, slot uint32, typ uint16, version, time uint64, seed *[SeedSize]byte, id string, metadata,
	body []byte) []byte {
	b, at := BeginRequest(b)
	b = append(b, seed[:]...)
	b = appendLengths(b, len(id), len(metadata))
	b = appendLengths(b, len(body), 0)
	b = append(b, id...)
	b = append(b, metadata...)
	b = append(b, body...)
	return EndRequest(b, at, Request{Kind: ReqCommand, Type: typ, Slot: slot, Version: version, Time: time})
}

// DecodeCommand decodes the payload of a Command request.
func DecodeCommand(r *Request) (c Command, err error) {
	f := fields{b: r.Payload}
	if f.fixed(32) {
		copy(c.Seed[:], f.b)
	}
	c.ID = f.variable(16, MaxCommandIDSize)
	c.Metadata = f.variable(20, MaxMetadataSize)
	c.Body = f.variable(24, MaxFrameSize)
	if f.err != 0 {
		return Command{}, f.err
	}
	return c, nil
}

// Query is the payload of a Query request: 8 bytes of fixed fields. Type, entity version and time
// are in the header.
//
//	0  4  body length
//	4  4  zero
//	8  …  body
type Query struct {
	Body []byte
}

// AppendQuery appends a Query frame. version is the entity's version.
func AppendQuery(b []byte, slot uint32, typ uint16, version, time uint64, body []byte) []byte {
	b, at := BeginRequest(b)
	b = appendLengths(b, len(body), 0)
	b = append(b, body...)
	return EndRequest(b, at, Request{Kind: ReqQuery, Type: typ, Slot: slot, Version: version, Time: time})
}

// DecodeQuery decodes the payload of a Query request.
func DecodeQuery(r *Request) (q Query, err error) {
	f := fields{b: r.Payload}
	f.fixed(8)
	q.Body = f.variable(0, MaxFrameSize)
	if f.err != 0 {
		return Query{}, f.err
	}
	return q, nil
}

// AppendSnapshotRequest appends a Snapshot frame, which has no payload.
func AppendSnapshotRequest(b []byte, slot uint32) []byte {
	b, at := BeginRequest(b)
	return EndRequest(b, at, Request{Kind: ReqSnapshot, Slot: slot})
}

// AppendDrop appends a Drop frame, which has no payload.
func AppendDrop(b []byte, slot uint32) []byte {
	b, at := BeginRequest(b)
	return EndRequest(b, at, Request{Kind: ReqDrop, Slot: slot})
}

// AppendDescribe appends a Describe frame, which has no payload.
func AppendDescribe(b []byte) []byte {
	b, at := BeginRequest(b)
	return EndRequest(b, at, Request{Kind: ReqDescribe})
}

// Event is the payload of an Event response: 8 bytes of fixed fields.
//
//	0  4  body length
//	4  4  metadata length
//	8  …  body, metadata
type Event struct {
	Body     []byte
	Metadata []byte
}

// DecodeEvent decodes the payload of an Event response.
func DecodeEvent(r *Response) (e Event, err error) {
	f := fields{b: r.Payload}
	f.fixed(8)
	e.Body = f.variable(0, MaxFrameSize)
	e.Metadata = f.variable(4, MaxMetadataSize)
	if f.err != 0 {
		return Event{}, f.err
	}
	return e, nil
}

// AppendEvent appends an Event frame. A guest can also encode the body in place, with [BeginBody]
// and [EndBody].
func AppendEvent(b []byte, slot, index uint32, typ uint16, body, metadata []byte) []byte {
	b, at := BeginResponse(b)
	b = appendLengths(b, len(body), len(metadata))
	b = append(b, body...)
	b = append(b, metadata...)
	return EndResponse(b, at, Response{Kind: RespEvent, Type: typ, Slot: slot, Index: index})
}

// Body is the payload of Reply, Snapshot, Description and Log responses: 8
// bytes of fixed fields.
//
//	0  4  body length
//	4  4  zero
//	8  …  body
type Body []byte

// DecodeBody decodes the payload of a Reply, Snapshot, Description or Log.
func DecodeBody(r *Response) (Body, error) {
	f := fields{b: r.Payload}
	f.fixed(8)
	body := f.variable(0, MaxFrameSize)
	if f.err != 0 {
		return nil, f.err
	}
	return body, nil
}

// AppendBody appends a frame whose payload is a single body: a Reply, Snapshot, Description or
// Log.
func AppendBody(b []byte, r Response, body []byte) []byte {
	b, at := BeginBody(b)
	b = append(b, body...)
	return EndBody(b, at, r)
}

// BeginBody begins a response frame whose payload is a single body: an Event without metadata, a
// Reply, Snapshot, Description or Log. The caller then appends the body and calls [EndBody].
func BeginBody(b []byte) (buf []byte, start int) {
	return append(b, padding[:ResponseHeaderSize+8]...), len(b)
}

// EndBody fills in the body's length and ends the frame that [BeginBody] began at start.
func EndBody(b []byte, start int, r Response) []byte {
	at := start + ResponseHeaderSize
	putLE32(b[at:], uint32(len(b)-at-8))
	return EndResponse(b, start, r)
}

// Refusal is the payload of Reject and Fault responses: 8 bytes of fixed fields.
//
//	0  4  code length
//	4  4  message length
//	8  …  code, message
//
// The code is for programs, the message for people.
type Refusal struct {
	Code    []byte
	Message []byte
}

// AppendRefusal appends a Reject or Fault frame. Code and message are cut to their limits, between
// characters. The code must be printable ASCII without space and not empty, or the host treats the
// answer as a violation.
func AppendRefusal(b []byte, r Response, code, message string) []byte {
	code, message = cut(code, MaxCodeSize), cut(message, MaxMessageSize)
	b, at := BeginResponse(b)
	b = appendLengths(b, len(code), len(message))
	b = append(b, code...)
	b = append(b, message...)
	return EndResponse(b, at, r)
}

// DecodeRefusal decodes the payload of a Reject or Fault.
func DecodeRefusal(r *Response) (x Refusal, err error) {
	f := fields{b: r.Payload}
	f.fixed(8)
	x.Code = f.variable(0, MaxCodeSize)
	x.Message = f.variable(4, MaxMessageSize)
	if f.err != 0 {
		return Refusal{}, f.err
	}
	return x, nil
}

// cut shortens s to at most n bytes, without splitting a UTF-8 sequence.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for back := 0; back < 3 && n > 0 && s[n]&0xc0 == 0x80; back++ {
		n--
	}
	return s[:n]
}

// appendLengths appends two length fields.
func appendLengths(b []byte, x, y int) []byte {
	b = appendLE32(b, uint32(x))
	return appendLE32(b, uint32(y))
}

// fields decodes a payload: fixed checks the fixed fields once, then variable returns the variable
// fields in order. After a failure, all further calls fail.
type fields struct {
	b   []byte
	at  int
	err DecodeError
}

func (f *fields) fixed(n int) bool {
	if len(f.b) < n {
		f.err = ErrShortPayload
		return false
	}
	f.at = n
	return true
}

// variable returns the next variable field. Its length is at offset off of the fixed fields. The
// result is nil after a failure.
func (f *fields) variable(off int, limit uint32) []byte {
	if f.err != 0 {
		return nil
	}
	n := le32(f.b[off:])
	if n > limit {
		f.err = ErrTooLarge
		return nil
	}
	if uint64(n) > uint64(len(f.b)-f.at) {
		f.err = ErrField
		return nil
	}
	v := f.b[f.at : f.at+int(n) : f.at+int(n)]
	f.at += int(n)
	return v
}
