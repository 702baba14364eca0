package schema

import (
	"bytes"
	"io"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// runes reads the characters of a JSON string between its quotation marks. The string's form has
// been checked. It implements io.RuneReader for regular expressions.
type runes struct {
	b    []byte
	at   int
	rest *check // counts the work
	each int    // maximum nanoseconds of the expression for one character
}

// ReadRune implements io.RuneReader.
func (r *runes) ReadRune() (rune, int, error) {
	if r.at >= len(r.b) || r.rest.stopped() {
		return 0, 0, io.EOF
	}
	from := r.at
	c := r.next()
	r.rest.spend(r.at - from)
	r.rest.toil(r.each)
	return c, utf8.RuneLen(c), nil
}

// next returns the next character; there must be one.
func (r *runes) next() rune {
	c := r.b[r.at]
	switch {
	case c == '\\':
		return r.escape()
	case c < utf8.RuneSelf:
		r.at++
		return rune(c)
	}
	x, n := utf8.DecodeRune(r.b[r.at:])
	r.at += n
	return x
}

func (r *runes) escape() rune {
	c := r.b[r.at+1]
	if c != 'u' {
		r.at += 2
		if i := bytes.IndexByte([]byte("bfnrt"), c); i >= 0 {
			return rune("\b\f\n\r\t"[i])
		}
		return rune(c)
	}
	x := hex4(r.b[r.at+2:])
	r.at += 6
	if utf16.IsSurrogate(x) {
		if rest := r.b[r.at:]; len(rest) >= 6 && rest[0] == '\\' && rest[1] == 'u' {
			if pair := utf16.DecodeRune(x, hex4(rest[2:])); pair != utf8.RuneError {
				r.at += 6
				return pair
			}
		}
		return utf8.RuneError
	}
	return x
}

func hex4(b []byte) (x rune) {
	for _, c := range b[:4] {
		switch {
		case c <= '9':
			c -= '0'
		case c <= 'F':
			c -= 'A' - 10
		default:
			c -= 'a' - 10
		}
		x = x<<4 | rune(c)
	}
	return x
}

// plain returns the text of a string token without its quotation marks: a part of the data or, if
// it has escapes, decoded into scratch.
func (c *check) plain(token []byte) []byte {
	inner := token[1 : len(token)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	c.scratch = c.scratch[:0]
	for r := (runes{b: inner}); r.at < len(inner); {
		c.scratch = utf8.AppendRune(c.scratch, r.next())
	}
	return c.scratch
}

// characters counts the characters of a string token, up to limit.
func (c *check) characters(token []byte, limit int) (n int) {
	r := runes{b: token[1 : len(token)-1]}
	for r.at < len(r.b) && n < limit {
		from := r.at
		r.next()
		c.spend(r.at - from)
		n++
	}
	return n
}

// matchTime is the maximum time, in nanoseconds, of one instruction of a regular expression for one
// character, if all instructions are active. Most expressions take a thousandth of that.
const matchTime = 16

// matches reports whether a string token matches the pattern. If that may take long, the regular
// expression reads the string character by character, so that others can run meanwhile.
func (c *check) matches(p *pattern, token []byte) bool {
	c.spend(len(token) * (1 + p.instructions/4))
	if c.stopped() {
		return false
	}
	inner, each := token[1:len(token)-1], p.instructions*matchTime
	if work := len(inner) * each; work <= yield.Step && bytes.IndexByte(inner, '\\') < 0 {
		c.toil(work)
		return p.Match(inner)
	}
	return p.MatchReader(&runes{b: inner, rest: c, each: each})
}
