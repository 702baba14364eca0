// Package safetext makes text of strangers safe to show: nothing that comes out of it moves a cursor,
// rings a bell, sets a clipboard, turns the direction of text around, hides, or begins a new line.
//
// What is unsafe is escaped as Go and JSON do; backslashes stay as they are, so what is safe is never
// changed, and escaping twice is escaping once. Who needs the text as it was asks for JSON.
package safetext

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Unsafe reports whether a rune does something else than being seen: controls (C0, DEL, C1), line and
// paragraph separators, all format characters (marks of direction, zero-width characters, tags), and
// letters that are invisible, such as the Hangul fillers.
func Unsafe(r rune) bool {
	if r < 0x7f {
		return r < ' '
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point)
}

// Text is s in one line of valid UTF-8, with everything unsafe escaped as in Go: \n, \x1b, \u202e.
// Bytes that are not UTF-8 are escaped as well: \xff.
func Text(s string) string {
	if safe(s) {
		return s
	}
	return string(appendText(make([]byte, 0, len(s)+16), []byte(s), false))
}

// Lines is [Text] for text that may have several lines: newlines stay.
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

// appendText appends b, escaped. newlines says that these stay.
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

// JSON is a JSON text in one line, with everything unsafe escaped as in JSON: \u001b, \u202e. It means what
// b means, if b is JSON; bytes that are not UTF-8 become U+FFFD, as which JSON's readers take them. What
// is not JSON is made safe all the same.
func JSON(b []byte) []byte {
	out := make([]byte, 0, len(b)+16)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			out = append(out, `\ufffd`...)
		case !Unsafe(r):
			out = append(out, b[:n]...)
		case r == '\n' || r == '\r' || r == '\t': // no string has them: they are between tokens
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

// base64Prefix is in front of what is not text.
const base64Prefix = "base64:"

// Body is the body of a command, event or reply in one line: JSON as JSON without its white space; other text as
// it is, if nothing in it is unsafe; and anything else as "base64:" and its base64.
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
