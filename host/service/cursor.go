package service

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Cursor is a place in one history of a service's log: after the event at a position. It contains proof that
// a log has this event. Its text is opaque to clients, which may keep it forever; it is also the id of the
// event. A Cursor is comparable.
type Cursor struct {
	Position Position      // of the event; 0 is the place before the first one
	Origin   journal.Stamp // the identity of the log; see [commitlog.Journal.Origin]
	Stamp    journal.Stamp // of the batch with the event; zero at position 0
}

// A cursor's text is the base64url form, without padding, of
//
//	0   1  version of this format, 2
//	1   8  position, big-endian
//	9   8  origin
//	17  8  stamp
//	25  4  CRC-32C of the bytes before, big-endian
//
// This is part of the wire format. The checksum detects accidents such as truncated or mistyped texts. It is
// not against forgery: a client that may read the service may read it from any place.
const (
	cursorVersion = 2
	cursorBytes   = 29
	cursorText    = (cursorBytes*8 + 5) / 6
	// oldCursorText is the length of texts of version 1, which did not identify a history.
	oldCursorText = 23
)

var (
	cursorEncoding = base64.RawURLEncoding.Strict()
	castagnoli     = crc32.MakeTable(crc32.Castagnoli)
)

// CursorOf is the place after what a receipt proves.
func CursorOf(r journal.Receipt) Cursor {
	return Cursor{Position: r.Last(), Origin: r.Origin(), Stamp: r.Stamp()}
}

// String is the opaque text of a cursor. It is ASCII that needs no escape in URLs, headers and JSON.
func (c Cursor) String() string {
	var text [cursorText]byte
	return string(c.Append(text[:0]))
}

// Append appends the text.
func (c Cursor) Append(b []byte) []byte {
	var raw [cursorBytes]byte
	raw[0] = cursorVersion
	binary.BigEndian.PutUint64(raw[1:], uint64(c.Position))
	copy(raw[9:], c.Origin[:])
	copy(raw[17:], c.Stamp[:])
	binary.BigEndian.PutUint32(raw[25:], crc32.Checksum(raw[:25], castagnoli))
	return cursorEncoding.AppendEncode(b, raw[:])
}

// ParseCursor parses the text of [Cursor.String]. It is total: for any text it returns a cursor, or a
// KindBadCursor error that says what is wrong. Only the host can tell whether a log has the event.
func ParseCursor(text string) (Cursor, error) {
	bad := func(what string) (Cursor, error) {
		return Cursor{}, &Error{Kind: KindBadCursor, Message: what}
	}
	switch len(text) {
	case cursorText:
	case oldCursorText:
		return bad("the cursor is of an earlier version of Bulkhead, which did not note the history that it is of; " +
			"begin from the start")
	default:
		return bad("the cursor is not one that a host gave out: it has the wrong length")
	}
	var raw [cursorBytes + 2]byte // room for what the decoder may write
	n, err := cursorEncoding.Decode(raw[:], []byte(text))
	if err != nil || n != cursorBytes {
		return bad("the cursor is not one that a host gave out: it has characters that no cursor has")
	}
	if binary.BigEndian.Uint32(raw[25:]) != crc32.Checksum(raw[:25], castagnoli) {
		return bad("the cursor is damaged: its checksum is wrong")
	}
	if raw[0] != cursorVersion {
		return bad("the cursor is of a format that this host does not know")
	}
	return Cursor{
		Position: Position(binary.BigEndian.Uint64(raw[1:])),
		Origin:   journal.Stamp(raw[9:17]), Stamp: journal.Stamp(raw[17:25]),
	}, nil
}
