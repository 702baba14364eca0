package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"

	"github.com/bulkhead-wasm/bulkhead/host/internal/jsoncheck"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// largeMessage is the size, in bytes, from which on the data of a client's message stays in place.
// encoding/json would hold it in memory three times.
const largeMessage = 64 << 10

// maxMembers is the maximum size of the members of a large message without its data, in bytes: enough for a
// subscription with the longest filters.
const maxMembers = 512 << 10

// DecodingRoom is the maximum memory, in bytes, that decoding a message of a size takes beside the message:
// during the check, and afterwards.
func DecodingRoom(message int) int {
	return max(jsoncheck.Room(message), 4*min(message, maxMembers))
}

// cutData removes the data from a large message that has passed [jsoncheck.Check]. The slices refer to b;
// data in base64 is overwritten with its decoded form. The rest is a message without data.
func cutData(b []byte) (rest, data, binary []byte, err error) {
	b = bytes.Trim(b, " \t\r\n")
	if b[0] != '{' {
		return b[:min(len(b), largeMessage)], nil, nil,
			service.Errorf(service.KindInvalid, "it should be a JSON object")
	}
	rest = append(rest, '{')
	for name, member := range jsoncheck.Members(b) {
		switch {
		case string(name) == `"data"`:
			data = member
		case string(name) == `"data_base64"` && member[0] == '"':
			if binary, err = decodeInPlace(member[1 : len(member)-1]); err != nil {
				return rest, nil, nil, err
			}
		case len(rest)+len(name)+len(member) > maxMembers:
			return nil, nil, nil,
				service.Errorf(service.KindTooLarge, "the message has more than %d bytes beside its data", maxMembers)
		default:
			if len(rest) > 1 {
				rest = append(rest, ',')
			}
			rest = append(append(append(rest, name...), ':'), member...)
		}
	}
	return append(rest, '}'), data, binary, nil
}

// decodeInPlace decodes base64 between the quotes of a valid JSON string, and overwrites the text.
func decodeInPlace(text []byte) ([]byte, error) {
	wrong := service.Errorf(service.KindInvalid, "data_base64 is not base64")
	if bytes.IndexByte(text, '\\') >= 0 {
		var ok bool
		if text, ok = unescape(text); !ok {
			return nil, wrong
		}
	}
	var piece [3 << 10]byte
	to := text[:0]
	for rest := text; len(rest) > 0; {
		from := rest[:min(4<<10, len(rest))]
		rest = rest[len(from):]
		if len(rest) > 0 && bytes.IndexByte(from, '=') >= 0 {
			return nil, wrong
		}
		n, err := base64.StdEncoding.Decode(piece[:], from)
		if err != nil {
			return nil, wrong
		}
		to = append(to, piece[:n]...) // never overtakes what is still to be read
	}
	return to, nil
}

// unescape resolves those escapes of a JSON string that can occur in base64, in place, and removes line
// breaks.
func unescape(text []byte) (to []byte, ok bool) {
	to = text[:0]
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' {
			i++
			switch text[i] {
			case '/':
				c = '/'
			case 'n', 'r':
				continue
			case 'u':
				n, err := strconv.ParseUint(string(text[i+1:i+5]), 16, 16)
				if err != nil || n > '~' {
					return nil, false
				}
				c, i = byte(n), i+4
			default:
				return nil, false
			}
		}
		to = append(to, c)
	}
	return to, true
}

// MessageID finds the id of a message of which only the beginning is present. It is total, and empty if there
// is no id.
func MessageID(start []byte) string {
	d := json.NewDecoder(bytes.NewReader(start))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return ""
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return ""
		}
		if name != "id" {
			var skip json.RawMessage
			if d.Decode(&skip) != nil {
				return ""
			}
			continue
		}
		if id, err := d.Token(); err == nil {
			if id, ok := id.(string); ok && len(id) <= MaxStreamID {
				return id
			}
		}
		return ""
	}
	return ""
}
