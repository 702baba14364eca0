package compartment

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A message of the child to its parent is
//
//	byte    kind
//	uint32  length of the text, little-endian, at most maxText
//	uint64  memory in use, in bytes, little-endian
//	bytes   text
//
// Both ends are the same program, so there is no version.
const (
	headerSize = 1 + 4 + 8
	maxText    = 4 << 10
	// maxMessages bounds what a child may say: one who watches itself says
	// something ten times a second, for an hour at the longest.
	maxMessages = 100_000
)

// messageKind says what a message means. 0 is none, so that zeros are not taken for one.
type messageKind uint8

const (
	messageAlive   messageKind = iota + 1 // the work goes on; text, if any, says how far
	messageDone                           // text is the result; nothing follows
	messageRefused                        // the input is at fault: text says why; nothing follows
	messageFailed                         // something else is at fault: text says what; nothing follows
	messageMemory                         // the child ends itself as its memory is used up; nothing follows
	messageCPU                            // the child ends itself as its processor time is used up; nothing follows
)

type message struct {
	kind   messageKind
	memory uint64
	text   string
}

func appendMessage(b []byte, m message) []byte {
	text := m.text[:min(len(m.text), maxText)]
	b = append(b, byte(m.kind))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	b = binary.LittleEndian.AppendUint64(b, m.memory)
	return append(b, text...)
}

// readMessage reads one message. At the end between two messages it is io.EOF.
func readMessage(r io.Reader) (message, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return message{}, err
	}
	m := message{kind: messageKind(header[0]), memory: binary.LittleEndian.Uint64(header[5:])}
	length := binary.LittleEndian.Uint32(header[1:])
	if m.kind < messageAlive || m.kind > messageCPU {
		return message{}, fmt.Errorf("a message of unknown kind %d", header[0])
	}
	if length > maxText {
		return message{}, fmt.Errorf("a message of %d bytes; it may have %d", length, maxText)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return message{}, io.ErrUnexpectedEOF
	}
	m.text = string(text)
	return m, nil
}
