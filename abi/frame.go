package abi

// DecodeError says why bytes are not a frame or a payload. It is an enum, not a struct, so that
// it costs nothing in guests.
type DecodeError uint8

// The reasons why a decoder refuses its input. Zero is not an error.
const (
	ErrShortHeader  DecodeError = iota + 1 // fewer bytes than a header
	ErrFrameLength                         // the frame's length is too small, not aligned, or beyond the buffer
	ErrPayload                             // the payload does not fit its frame
	ErrShortPayload                        // the payload is shorter than its fixed fields
	ErrField                               // a field ends beyond its payload
	// metadata do not fill their field exactly, have an empty name, or are not UTF-8
	ErrMetadata
	ErrTooLarge // a field is larger than its limit
)

// Error implements error.
func (e DecodeError) Error() string {
	switch e {
	case ErrShortHeader:
		return "abi: fewer bytes than a frame header"
	case ErrFrameLength:
		return "abi: frame length is smaller than its header, not a multiple of 8, or beyond the buffer"
	case ErrPayload:
		return "abi: payload length is beyond its frame"
	case ErrShortPayload:
		return "abi: payload ends before its fixed fields"
	case ErrField:
		return "abi: field length is beyond its payload"
	case ErrMetadata:
		return "abi: metadata pairs do not fill their field exactly, have no name, or are not UTF-8"
	case ErrTooLarge:
		return "abi: field is above its size limit"
	}
	return "abi: no error"
}

// Request is a frame from host to guest.
//
//	offset  size  field
//	0       4     length of the frame with header and padding, a multiple of 8
//	4       1     kind
//	5       1     flags
//	6       2     type: index into the manifest's commands, queries or events
//	8       4     slot: the host's dense number of the entity
//	12      4     payload length
//	16      8     version of the entity
//	24      8     time, nanoseconds since the Unix epoch, UTC
//	32      …     payload, then zeros up to length
//
// All fields are little-endian.
type Request struct {
	Kind    RequestKind
	Flags   uint8
	Type    uint16
	Slot    uint32
	Version uint64
	Time    uint64
	Payload []byte // view into the decoded buffer
}

// Response is a frame from guest to host.
//
//	offset  size  field
//	0       4     length of the frame with header and padding, a multiple of 8
//	4       1     kind
//	5       1     flags
//	6       2     type: index into the manifest's events, for Event
//	8       4     slot: the same as in the request that it answers
//	12      4     payload length
//	16      4     index of the request frame that it answers, from 0
//	20      4     aux: number of events in a Reply to a Command; level of a Log; otherwise 0
//	24      …     payload, then zeros up to length
//
// All fields are little-endian.
type Response struct {
	Kind    ResponseKind
	Flags   uint8
	Type    uint16
	Slot    uint32
	Index   uint32
	Aux     uint32
	Payload []byte // view into the decoded buffer
}

// padding is a source of zeros for headers and for the space between frames.
const padding = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// pad appends zeros until the frame that starts at offset start has an aligned length.
func pad(b []byte, start int) []byte {
	n := (len(b) - start) & (FrameAlign - 1)
	if n == 0 {
		return b
	}
	return append(b, padding[:FrameAlign-n]...)
}

// BeginRequest appends an empty request header to b. The caller then appends the payload and
// passes start to [EndRequest].
func BeginRequest(b []byte) (buf []byte, start int) {
	return append(b, padding[:RequestHeaderSize]...), len(b)
}

// EndRequest pads the frame that begins at start and fills in its header. The payload is what was
// appended since [BeginRequest]; r.Payload is not used. The caller must keep the frame within
// [MaxFrameSize]: decoders refuse a larger one.
func EndRequest(b []byte, start int, r Request) []byte {
	n := len(b) - start - RequestHeaderSize
	b = pad(b, start)
	h := b[start:]
	putLE32(h[0:], uint32(len(h)))
	h[4], h[5] = byte(r.Kind), r.Flags
	putLE16(h[6:], r.Type)
	putLE32(h[8:], r.Slot)
	putLE32(h[12:], uint32(n))
	putLE64(h[16:], r.Version)
	putLE64(h[24:], r.Time)
	return b
}

// DecodeRequest decodes the first request frame of b. The payload is a view into b. An unknown
// kind is not an error: the caller can skip the frame.
func DecodeRequest(b []byte) (r Request, rest []byte, err error) {
	length, payload, e := frameBounds(b, RequestHeaderSize)
	if e != 0 {
		return Request{}, nil, e
	}
	r.Kind, r.Flags = RequestKind(b[4]), b[5]
	r.Type = le16(b[6:])
	r.Slot = le32(b[8:])
	r.Version = le64(b[16:])
	r.Time = le64(b[24:])
	r.Payload = b[RequestHeaderSize : RequestHeaderSize+payload : RequestHeaderSize+payload]
	return r, b[length:], nil
}

// BeginResponse appends an empty response header to b. The caller then appends the payload and
// passes start to [EndResponse].
func BeginResponse(b []byte) (buf []byte, start int) {
	return append(b, padding[:ResponseHeaderSize]...), len(b)
}

// EndResponse pads the frame that begins at start and fills in its header. The payload is what was
// appended since [BeginResponse]; r.Payload is not used. The caller must keep the frame within
// [MaxFrameSize]: decoders refuse a larger one.
func EndResponse(b []byte, start int, r Response) []byte {
	n := len(b) - start - ResponseHeaderSize
	b = pad(b, start)
	h := b[start:]
	putLE32(h[0:], uint32(len(h)))
	h[4], h[5] = byte(r.Kind), r.Flags
	putLE16(h[6:], r.Type)
	putLE32(h[8:], r.Slot)
	putLE32(h[12:], uint32(n))
	putLE32(h[16:], r.Index)
	putLE32(h[20:], r.Aux)
	return b
}

// DecodeResponse decodes the first response frame of b. The payload is a view into b. An unknown
// kind is not an error here, but the host's rules refuse it.
func DecodeResponse(b []byte) (r Response, rest []byte, err error) {
	length, payload, e := frameBounds(b, ResponseHeaderSize)
	if e != 0 {
		return Response{}, nil, e
	}
	r.Kind, r.Flags = ResponseKind(b[4]), b[5]
	r.Type = le16(b[6:])
	r.Slot = le32(b[8:])
	r.Index = le32(b[16:])
	r.Aux = le32(b[20:])
	r.Payload = b[ResponseHeaderSize : ResponseHeaderSize+payload : ResponseHeaderSize+payload]
	return r, b[length:], nil
}

// frameBounds decodes and checks the two length fields, which are at the same offsets in both
// headers.
func frameBounds(b []byte, header int) (length, payload int, err DecodeError) {
	if len(b) < header {
		return 0, 0, ErrShortHeader
	}
	n := le32(b)
	p := le32(b[12:])
	if n < uint32(header) || n > MaxFrameSize || n%FrameAlign != 0 || uint64(n) > uint64(len(b)) {
		return 0, 0, ErrFrameLength
	}
	if p > n-uint32(header) {
		return 0, 0, ErrPayload
	}
	return int(n), int(p), 0
}
