package service

import (
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// Metadata in a CloudEvent. Pairs that can be attributes become extensions, so that routers and filters that
// do not know Bulkhead find them. The extension metadata has the other pairs, as the text of a JSON object,
// since the value of an extension cannot be an object. So each pair occurs once, and a client that needs all
// pairs reads both.

// maxAttributeName is the maximum length of names that the specification recommends.
const maxAttributeName = 20

// takenNames are the names that a pair of metadata cannot have as an attribute.
var takenNames = map[string]bool{
	// Attributes of CloudEvents 1.0, and the member that holds the data.
	"specversion": true, "id": true, "source": true, "type": true, "subject": true, "time": true,
	"datacontenttype": true, "dataschema": true, "data": true,
	// Extensions that the host sets, and one that would give sequence another meaning.
	"entityversion": true, "position": true, "sequence": true, "sequencetype": true,
	"commandid": true, "commandtype": true, "metadata": true,
	// Attributes of CloudEvents 0.3: the official SDKs read them as such.
	"schemaurl": true, "datacontentencoding": true,
	// Methods of an event in the official JavaScript SDK, which an attribute would replace.
	"validate": true, "emit": true,
}

// isAttribute reports whether a pair can be an extension.
func isAttribute(name, value []byte) bool {
	if len(name) == 0 || len(name) > maxAttributeName || takenNames[string(name)] {
		return false
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	for len(value) > 0 {
		r, n := utf8.DecodeRune(value)
		if r == utf8.RuneError && n == 1 || !inAttributes(r) {
			return false
		}
		value = value[n:]
	}
	return true
}

// inAttributes reports whether texts of CloudEvents may contain a character. Control characters and Unicode
// noncharacters are not allowed.
func inAttributes(r rune) bool {
	return r >= ' ' && (r < 0x7f || r > 0x9f) && (r < 0xfdd0 || r > 0xfdef) && r&0xfffe != 0xfffe
}

// appendAttributes appends the pairs of an event's metadata that are attributes.
func appendAttributes(b []byte, m abi.Metadata) []byte {
	if len(m) == 0 {
		return b
	}
	others := 0
	for name, value := range Pairs(m) {
		if isAttribute(name, value) {
			b = appendText(b, string(name), string(value))
		} else {
			others++
		}
	}
	if others == 0 {
		return b
	}
	separator := `,"metadata":"{`
	for name, value := range Pairs(m) {
		if !isAttribute(name, value) {
			b = append(appendTextInText(append(b, separator...), name), ':')
			b = appendTextInText(b, value)
			separator = ","
		}
	}
	return append(b, `}"`...)
}

// appendMetadata appends the member metadata of the native form: an object of strings.
func appendMetadata(b []byte, m abi.Metadata) []byte {
	separator := `,"metadata":{`
	for name, value := range Pairs(m) {
		b = append(appendString(append(b, separator...), string(name)), ':')
		b = appendString(b, string(value))
		separator = ","
	}
	if separator == "," {
		b = append(b, '}')
	}
	return b
}

// metadataSize is an upper bound for the memory of metadata in bytes, with their encodings in both forms.
func metadataSize(m abi.Metadata) int {
	n := 0
	for _, c := range m {
		switch {
		case c < ' ' || c == '"' || c == '\\' || c == 0x7f:
			n += 13
		case c >= utf8.RuneSelf:
			n += 7
		default:
			n += 2
		}
	}
	return n + 5*len(m) // the pairs, and the quotes of short pairs in either form
}

// appendTextInText appends a JSON string for JSON that is itself within a JSON string. Bytes
// that are not UTF-8 become U+FFFD.
func appendTextInText(b, s []byte) []byte {
	const hex = "0123456789abcdef"
	b = append(b, `\"`...)
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		s = s[n:]
		switch {
		case r == '"' || r == '\\':
			b = append(b, `\\\`...)
			b = append(b, byte(r))
		case inAttributes(r):
			b = utf8.AppendRune(b, r)
		case r > 0xffff: // as two surrogates
			r -= 0x10000
			for _, half := range [...]rune{0xd800 + r>>10, 0xdc00 + r&0x3ff} {
				b = append(b, `\\u`...)
				b = append(b, hex[half>>12], hex[half>>8&15], hex[half>>4&15], hex[half&15])
			}
		default:
			b = append(b, `\\u`...)
			b = append(b, hex[r>>12], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		}
	}
	return append(b, `\"`...)
}
