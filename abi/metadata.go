package abi

import "unicode/utf8"

// Metadata is text that travels with a command or an event beside its body:
// trace context, the caller's identity, a content type. It is a sequence of
// pairs without padding, at most [MaxMetadataSize] bytes:
//
//	0  2  name length
//	2  2  value length
//	4  …  name, value
type Metadata []byte

// AppendPair appends one pair. Name and value are at most 65,535 bytes each;
// longer ones are cut, between characters. The sum of all pairs is the caller's
// to bound by [MaxMetadataSize].
func (m Metadata) AppendPair(name, value string) Metadata {
	name, value = cut(name, 0xffff), cut(value, 0xffff)
	m = appendLE16(m, uint16(len(name)))
	m = appendLE16(m, uint16(len(value)))
	m = append(m, name...)
	return append(m, value...)
}

// Next splits the first pair off m, as views. ok is false at the end and when
// the bytes are malformed; [Metadata.Valid] tells the two apart.
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

// Valid returns nil if m is a whole sequence of pairs within its limit: texts in UTF-8, each
// with a name that is not empty.
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

// Get returns the value of the first pair with that name.
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
