package stream

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A cursor's text is the base64url form, without padding, of
//
//	0   1  version of this format, 1
//	1   8  position, big-endian
//	9   4  FNV-1a of the service's name, big-endian
//	13  4  CRC-32C of the bytes before, big-endian
//
// It is part of the wire format: clients keep cursors for years. The checksum is
// against accidents (a cut or mistyped text), not against forgery: whoever may
// read the service may read it from anywhere.
const (
	cursorVersion = 1
	cursorBytes   = 17
	cursorText    = (cursorBytes*8 + 5) / 6
)

var (
	cursorEncoding = base64.RawURLEncoding.Strict()
	castagnoli     = crc32.MakeTable(crc32.Castagnoli)
)

// EncodeCursor returns the opaque text form of a position in a service's log: a
// reader that begins there gets the event after it first. It is ASCII that needs
// no escape in URLs, headers and JSON.
func EncodeCursor(name service.Name, p journal.Position) string {
	var text [cursorText]byte
	return string(appendCursor(text[:0], name, p))
}

func appendCursor(b []byte, name service.Name, p journal.Position) []byte {
	var raw [cursorBytes]byte
	raw[0] = cursorVersion
	binary.BigEndian.PutUint64(raw[1:], uint64(p))
	binary.BigEndian.PutUint32(raw[9:], fingerprint(name))
	binary.BigEndian.PutUint32(raw[13:], crc32.Checksum(raw[:13], castagnoli))
	return cursorEncoding.AppendEncode(b, raw[:])
}

// DecodeCursor reads what [EncodeCursor] wrote. It is total: whatever the text is,
// it returns a position or a KindBadCursor error that says what is wrong. Whether
// the log has come that far [Hub.Subscribe] tells.
func DecodeCursor(name service.Name, text string) (journal.Position, error) {
	bad := func(what string) (journal.Position, error) {
		return 0, &service.Error{Kind: service.KindBadCursor, Service: name, Message: what}
	}
	if len(text) != cursorText {
		return bad("the cursor is not one that this host gave out: it has the wrong length")
	}
	var raw [cursorBytes + 2]byte // room for what the decoder may write
	n, err := cursorEncoding.Decode(raw[:], []byte(text))
	if err != nil || n != cursorBytes {
		return bad("the cursor is not one that this host gave out: it has characters that no cursor has")
	}
	if binary.BigEndian.Uint32(raw[13:]) != crc32.Checksum(raw[:13], castagnoli) {
		return bad("the cursor is damaged: its checksum is wrong")
	}
	if raw[0] != cursorVersion {
		return bad("the cursor is of a format that this host does not know")
	}
	if binary.BigEndian.Uint32(raw[9:]) != fingerprint(name) {
		return bad("the cursor is of another service")
	}
	return journal.Position(binary.BigEndian.Uint64(raw[1:])), nil
}

// fingerprint is FNV-1a with 32 bits.
func fingerprint(name service.Name) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return h
}
