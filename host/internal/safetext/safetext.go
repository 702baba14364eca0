// Package safetext makes untrusted text safe to show. Safe text does not move the cursor, ring the
// bell, set the clipboard, change the direction of text, hide anything, or begin a new line.
//
// Unsafe characters are escaped as in Go or JSON. Backslashes stay as they are, so safe text is
// never changed, and escaping twice is the same as escaping once. The original text is only in the
// JSON output.
package safetext

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Unsafe reports whether a rune does more than show a character: controls (C0, DEL, C1), line and
// paragraph separators, all format characters (direction marks, zero-width characters, tags), and
// invisible letters such as the Hangul fillers.
func Unsafe(r rune) bool {
	if r < 0x7f {
		return r < ' '
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point)
}

// Text returns s as one line of valid UTF-8, with everything unsafe escaped as in Go: \n, \x1b,
// \u202e. Bytes that are not UTF-8 are escaped as well: \xff.
func Text(s string) string {
	if safe(s) {
		return s
	}
	return string(appendText(make([]byte, 0, len(s)+16), []byte(s), false))
}

// Lines is [Text] for text with several lines: it keeps newlines.
func Lines(s string) string {
	return string(appendText(make([]byte, 0, len(s)), []byte(s), true))
}

func safe(s string) bool {
	for i, r := range s {
		if Unsafe(r) {
			return false
		}
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return false
			}
		}
	}
	return true
}

// appendText appends b, escaped. If newlines is true, newlines are kept.
func appendText(out, b []byte, newlines bool) []byte {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			out = appendHex(append(out, '\\', 'x'), uint32(b[0]), 2)
		case !Unsafe(r) || newlines && r == '\n':
			out = append(out, b[:n]...)
		case r == '\n':
			out = append(out, '\\', 'n')
		case r == '\r':
			out = append(out, '\\', 'r')
		case r == '\t':
			out = append(out, '\\', 't')
		case r < 0x80:
			out = appendHex(append(out, '\\', 'x'), uint32(r), 2)
		case r < 0x10000:
			out = appendHex(append(out, '\\', 'u'), uint32(r), 4)
		default:
			out = appendHex(append(out, '\\', 'U'), uint32(r), 8)
		}
		b = b[n:]
	}
	return out
}

func appendHex(out []byte, v uint32, digits int) []byte {
	for digits--; digits >= 0; digits-- {
		out = append(out, "0123456789abcdef"[v>>(4*digits)&15])
	}
	return out
}

// JSON returns a JSON text as one line, with everything unsafe escaped as in JSON: \u001b, \u202e.
// If b is JSON, the result has the same meaning; bytes that are not UTF-8 become U+FFFD, as JSON
// parsers read them. Text that is not JSON becomes safe, too.
func JSON(b []byte) []byte {
	out := make([]byte, 0, len(b)+16)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			out = append(out, `\ufffd`...)
		case !Unsafe(r):
			out = append(out, b[:n]...)
		case r == '\n' || r == '\r' || r == '\t': // only between tokens: a string cannot have them
			out = append(out, ' ')
		case r < 0x10000:
			out = appendHex(append(out, '\\', 'u'), uint32(r), 4)
		default:
			high, low := utf16.EncodeRune(r)
			out = appendHex(append(out, '\\', 'u'), uint32(high), 4)
			out = appendHex(append(out, '\\', 'u'), uint32(low), 4)
		}
		b = b[n:]
	}
	return out
}

// base64Prefix begins the text of a body that is not text.
const base64Prefix = "base64:"

// Body returns the body of a command, event or reply as one line: JSON without white space; other
// text as it is, if it is safe; anything else as "base64:" and its base64.
func Body(b []byte) string {
	if utf8.Valid(b) && json.Valid(b) {
		var compact bytes.Buffer
		if json.Compact(&compact, b) == nil {
			return string(JSON(compact.Bytes()))
		}
	}
	if safe(string(b)) && !bytes.HasPrefix(b, []byte(base64Prefix)) {
		return string(b)
	}
	return base64Prefix + base64.StdEncoding.EncodeToString(b)
}
