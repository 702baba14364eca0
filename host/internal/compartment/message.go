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
	// maxMessages bounds the number of messages: a child reports ten times a second, for an hour at most.
	maxMessages = 100_000
)

// messageKind is the meaning of a message. 0 is none, so that zeros are not a message.
type messageKind uint8

const (
	messageAlive   messageKind = iota + 1 // the work continues; text, if any, is its progress
	messageDone                           // text is the result; the last message
	messageRefused                        // the input is at fault, text says why; the last message
	messageFailed                         // something else is at fault, text says what; the last message
	messageMemory                         // the child ends itself because its memory is used up; the last message
	messageCPU                            // the child ends itself because its time is used up; the last message
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

// readMessage reads one message. At the end of the messages it returns io.EOF.
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
