package abi

import "unicode/utf8"

// Metadata are pairs of texts that travel with the body of a command or an event: a trace
// context, the caller's identity, a content type. They are encoded as a sequence of pairs without
// padding, at most [MaxMetadataSize] bytes:
//
//	0  2  name length
//	2  2  value length
//	4  …  name, value
type Metadata []byte

// AppendPair appends one pair. Name and value have at most 65,535 bytes each; longer ones are cut
// between characters. The caller must keep the sum of all pairs within [MaxMetadataSize].
func (m Metadata) AppendPair(name, value string) Metadata {
	name, value = cut(name, 0xffff), cut(value, 0xffff)
	m = appendLE16(m, uint16(len(name)))
	m = appendLE16(m, uint16(len(value)))
	m = append(m, name...)
	return append(m, value...)
}

// Next splits the first pair off m, as views into it. ok is false at the end, and also if the
// bytes are malformed; use [Metadata.Valid] to tell them apart.
func (m Metadata) Next() (name, value []byte, rest Metadata, ok bool) {
	if len(m) < 4 {
		return nil, nil, nil, false
	}
	n, v := int(le16(m)), int(le16(m[2:]))
	if len(m)-4 < n+v {
		return nil, nil, nil, false
	}
	return m[4 : 4+n : 4+n], m[4+n : 4+n+v : 4+n+v], m[4+n+v:], true
}

// Valid returns nil if m is a complete sequence of pairs within the limit, in UTF-8 and without
// empty names, and otherwise a [DecodeError].
func (m Metadata) Valid() error {
	if len(m) > MaxMetadataSize {
		return ErrTooLarge
	}
	for len(m) > 0 {
		name, value, rest, ok := m.Next()
		if !ok || len(name) == 0 || !utf8.Valid(name) || !utf8.Valid(value) {
			return ErrMetadata
		}
		m = rest
	}
	return nil
}

// Get returns the value of the first pair with this name.
func (m Metadata) Get(name string) (value []byte, ok bool) {
	for {
		n, v, rest, more := m.Next()
		if !more {
			return nil, false
		}
		if string(n) == name {
			return v, true
		}
		m = rest
	}
}
