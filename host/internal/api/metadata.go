package api

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/jsoncheck"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Metadata is a command's metadata as a JSON object of strings.
type Metadata abi.Metadata

// MarshalJSON implements json.Marshaler. The JSON is plain ASCII, so that it can be used in a header.
func (m Metadata) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for rest := abi.Metadata(m); ; {
		name, value, r, ok := rest.Next()
		if !ok {
			break
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = appendASCII(b, name)
		b = append(b, ':')
		b = appendASCII(b, value)
		rest = r
	}
	return append(b, '}'), nil
}

// UnmarshalJSON implements json.Unmarshaler, by [ParseMetadata].
func (m *Metadata) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*m = nil
		return nil
	}
	parsed, err := ParseMetadata(b)
	*m = Metadata(parsed)
	return err
}

// ParseMetadata parses a JSON object of strings that passes [service.CheckJSON]. It keeps the order. Names
// must differ in more than case, and the total size must not exceed the ABI's limit.
func ParseMetadata(b []byte) (abi.Metadata, error) {
	return parsePairs(b, abi.MaxMetadataSize, service.FoldName)
}

// parsePairs is ParseMetadata with another maximum size, in bytes, and another way to compare names: an event
// may have more than a command, as it keeps its command's metadata beside its own.
func parsePairs(b []byte, maxBytes int, form func(string) string) (abi.Metadata, error) {
	bad := func(format string, args ...any) (abi.Metadata, error) {
		return nil, service.Errorf(service.KindInvalid, "metadata is a JSON object of strings; "+format, args...)
	}
	if err := service.CheckJSON("metadata is a JSON object of strings", b); err != nil {
		return nil, err
	}
	b = bytes.Trim(b, " \t\r\n")
	if b[0] != '{' {
		return bad("it is something else")
	}
	var m abi.Metadata
	taken := map[string]bool{}
	for written, text := range jsoncheck.Members(b) {
		var name, value string
		if json.Unmarshal(written, &name) != nil || json.Unmarshal(text, &value) != nil || text[0] != '"' {
			return bad("the value of %.80q is no string", name)
		}
		if name == "" || taken[form(name)] {
			return bad("the name %.80q is empty or there twice, in whatever case", name)
		}
		taken[form(name)] = true
		if len(m)+4+len(name)+len(value) > maxBytes {
			return nil, service.Errorf(service.KindTooLarge, "metadata is larger than %d bytes", maxBytes)
		}
		m = m.AppendPair(name, value)
	}
	return m, nil
}

// appendASCII appends a JSON string with everything outside ASCII escaped.
func appendASCII(b, s []byte) []byte {
	b = append(b, '"')
	for _, r := range string(s) {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ' && r <= '~':
			b = append(b, byte(r))
		case r < 0x10000:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			r -= 0x10000
			b = fmt.Appendf(b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return append(b, '"')
}
