// Package jsoncheck checks whether a text is JSON, by the rules of encoding/json, and lets other
// goroutines run while it reads a large text. [Check] and [Decode] are stricter: what they accept
// means the same to every parser.
package jsoncheck

import (
	"encoding/binary"
	"runtime"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// Valid reports whether b is one JSON value, by the same rules as encoding/json's Valid (RFC 8259,
// nested no deeper than maxNesting). It lets other goroutines run every yield.Step bytes: an answer
// may have megabytes, and a goroutine that is not interrupted keeps its processor for ten
// milliseconds. It takes a fifth of encoding/json's time, because it does not call a function for
// each byte.
func Valid(b []byte) bool {
	s := scanner{b: b, yield: yield.Step}
	return s.value() && s.space() == len(b)
}

// Check reports whether b is one JSON value, like [Valid], and also I-JSON (RFC 7493): it is UTF-8,
// no escape is half of a surrogate pair, and no object has two members with the same name, however
// the names are escaped. Noncharacters are allowed. The error is an *[Error].
//
// The names of all open objects are kept, at most maxNames of them; see [Room].
func Check(b []byte) error {
	n := namesPool.Get().(*names)
	defer namesPool.Put(n)
	return n.check(b)
}

// check is [Check] with names, which it may reuse.
func (n *names) check(b []byte) error {
	n.begin(b)
	defer n.end()
	s := scanner{b: b, yield: yield.Step, names: n}
	switch {
	case s.value():
		if s.space() == len(b) {
			return nil
		}
		return &Error{Fault: Behind, At: s.at}
	case s.fault != nil:
		return s.fault
	case s.at >= len(b):
		return &Error{Fault: Malformed, At: len(b)}
	}
	return &Error{Fault: Malformed, At: s.at, What: character(b[s.at:])}
}

// maxNesting is the limit of encoding/json.
const maxNesting = 10_000

// scanner walks over a JSON text. It is not safe for concurrent use.
type scanner struct {
	b     []byte
	at    int
	yield int    // offset at which to let others run next
	hook  func() // called to let others run; nil: the scheduler is
	depth int    // of open arrays and objects
	flat  uint64 // one bit for each of the first 64 levels: set for an object
	deep  []bool // the same for deeper levels

	names   *names // of the open objects; nil: the rules of encoding/json apply
	escapes bool   // there was an escape since this was last set to false
	fault   *Error // what is wrong, if it is known
}

func (s *scanner) push(object bool) {
	if s.depth >= 64 {
		s.deep = append(s.deep, object)
	} else if object {
		s.flat |= 1 << s.depth
	} else {
		s.flat &^= 1 << s.depth
	}
	s.depth++
	if object && s.names != nil {
		s.names.open()
	}
}

// object reports whether the innermost open value is an object.
func (s *scanner) object() bool {
	if s.depth > 64 {
		return s.deep[s.depth-65]
	}
	return s.flat>>(s.depth-1)&1 == 1
}

func (s *scanner) pop() {
	if s.depth--; s.depth >= 64 {
		s.deep = s.deep[:s.depth-64]
	}
}

// space skips white space and returns where it ends.
func (s *scanner) space() int {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
			s.rest()
		default:
			return s.at
		}
	}
	return s.at
}

// rest lets others run from time to time.
func (s *scanner) rest() {
	if s.at >= s.yield {
		s.let()
	}
}

func (s *scanner) let() {
	s.yield = s.at + yield.Step
	if s.hook != nil {
		s.hook()
		return
	}
	runtime.Gosched()
}

// next returns the next byte after white space, or 0 at the end. No valid JSON has a 0 there.
func (s *scanner) next() byte {
	if s.at < len(s.b) && s.b[s.at] > ' ' {
		return s.b[s.at]
	}
	if s.space() == len(s.b) {
		return 0
	}
	return s.b[s.at]
}

// take consumes the given byte if it is next.
func (s *scanner) take(c byte) bool {
	if s.next() != c {
		return false
	}
	s.at++
	return true
}

// value walks over one value, including what is nested in it.
func (s *scanner) value() bool {
	for {
		opened, ok := s.begin()
		if !ok {
			return false
		}
		if opened {
			continue
		}
		for { // a value has ended
			s.rest()
			if s.depth == 0 {
				return true
			}
			object := s.object()
			if s.take(',') {
				if object && !s.name() {
					return false
				}
				break
			}
			if !s.take(closing(object)) {
				return false
			}
			if s.pop(); object && s.names != nil {
				s.names.close()
			}
		}
	}
}

func closing(object bool) byte {
	if object {
		return '}'
	}
	return ']'
}

// begin walks over a scalar or an empty array or object, or opens one that is not empty.
func (s *scanner) begin() (opened, ok bool) {
	switch c := s.next(); c {
	case '{', '[':
		s.at++
		object := c == '{'
		if s.depth == maxNesting {
			s.fault = &Error{Fault: TooDeep, At: s.at - 1}
			return false, false
		}
		if s.take(closing(object)) {
			return false, true
		}
		s.push(object)
		return true, !object || s.name()
	case '"':
		return false, s.text()
	case 't':
		return false, s.word("true")
	case 'f':
		return false, s.word("false")
	case 'n':
		return false, s.word("null")
	default:
		return false, s.number()
	}
}

// name walks over a member's name and its colon.
func (s *scanner) name() bool {
	if s.next() != '"' {
		return false
	}
	from := s.at
	s.escapes = false
	if !s.text() {
		return false
	}
	if s.names != nil {
		switch twice, room := s.names.add(from+1, s.at-1, s.escapes); {
		case !room:
			s.fault = &Error{Fault: TooMany, At: from}
			return false
		case twice:
			s.fault = &Error{Fault: Twice, At: from, What: shown(s.b[from:s.at])}
			return false
		}
	}
	return s.take(':')
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.at < len(w) || string(s.b[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// plain says which bytes stand in a string for themselves. What is no UTF-8 does, too,
// as in encoding/json.
var plain = func() (p [256]bool) {
	for c := range p {
		p[c] = c >= ' ' && c != '"' && c != '\\'
	}
	return p
}()

const (
	ones = 0x0101010101010101
	high = 0x8080808080808080
)

// plainWords is how many bytes at the beginning are plain, looked at eight at a time: a
// multiple of that. seen has the bits of them all.
func plainWords(b []byte) (n int, seen uint64) {
	zero := func(x uint64) uint64 { return (x - ones) & ^x & high } // not 0 if a byte is 0
	for ; n+8 <= len(b); n += 8 {
		x := binary.LittleEndian.Uint64(b[n:])
		if control := (x - ones*' ') & ^x & high; control|zero(x^ones*'"')|zero(x^ones*'\\') != 0 {
			break
		}
		seen |= x
	}
	return n, seen
}

// few is how many bytes of a string or number are examined without letting others run.
const few = 16

// shortText is where a string of a few characters of ASCII ends, without escapes, whose quotation mark
// is in front of a place; 0 if it is another.
func shortText(b []byte, at int) (end int) {
	for i, c := range b[at:min(at+few, len(b))] {
		if c == '"' {
			return at + i + 1
		}
		if c >= utf8.RuneSelf || !plain[c] {
			break
		}
	}
	return 0
}

// shortNumber is where a number of a few digits ends, without a fraction or an exponent; 0 if it is another,
// or none.
func shortNumber(b []byte, at int) (end int) {
	if b[at] == '-' {
		at++
	}
	for i, c := range b[at:min(at+few, len(b))] {
		switch {
		case c >= '0' && c <= '9':
			if i == 1 && b[at] == '0' {
				return 0
			}
		case i == 0 || c == '.' || c == 'e' || c == 'E':
			return 0
		default:
			return at + i
		}
	}
	return 0
}

// text walks over a string, whose quotation mark comes next.
func (s *scanner) text() bool {
	s.at++
	if end := shortText(s.b, s.at); end > 0 {
		s.at = end
		return true
	}
	checked := s.at // up to here it is known to be UTF-8
	for {
		stop := min(len(s.b), max(s.yield, s.at+1))
		run := s.b[s.at:stop]
		n, seen := plainWords(run)
		for n < len(run) && plain[run[n]] {
			seen |= uint64(run[n])
			n++
		}
		pending := checked < s.at
		s.at += n
		if s.names != nil && (pending || seen&high != 0) {
			if checked = s.utf8(checked, n == len(run)); checked < 0 {
				return false
			}
		} else {
			checked = s.at
		}
		switch {
		case s.at == len(s.b):
			return false
		case s.at == stop:
			s.rest()
		case s.b[s.at] == '"':
			s.at++
			return true
		case s.b[s.at] != '\\' || !s.escape():
			return false
		default:
			checked = s.at
		}
	}
}

// utf8 checks the bytes from there to here, but for the first bytes of a character that goes on,
// and returns how far it has come; below 0 if they are not UTF-8.
func (s *scanner) utf8(from int, goesOn bool) (checked int) {
	to := s.at
	for last := to - 1; goesOn && last >= max(from, s.at-utf8.UTFMax); last-- {
		if utf8.RuneStart(s.b[last]) {
			if !utf8.FullRune(s.b[last:to]) {
				to = last
			}
			break
		}
	}
	if utf8.Valid(s.b[from:to]) {
		return to
	}
	for r, n := utf8.DecodeRune(s.b[from:to]); r != utf8.RuneError || n > 1; r, n = utf8.DecodeRune(s.b[from:to]) {
		from += n
	}
	s.fault = &Error{Fault: NotUTF8, At: from, What: character(s.b[from:])}
	return -1
}

// escape walks over an escape sequence, whose backslash comes next.
func (s *scanner) escape() bool {
	if s.at+1 >= len(s.b) {
		return false
	}
	s.escapes = true
	switch s.b[s.at+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at += 2
		return true
	case 'u':
		c, ok := unit(s.b, s.at)
		if !ok {
			return false
		}
		if s.names != nil && utf16.IsSurrogate(c) {
			if low, ok := unit(s.b, s.at+6); !ok || utf16.DecodeRune(c, low) == utf8.RuneError {
				s.fault = &Error{Fault: HalfPair, At: s.at, What: string(s.b[s.at : s.at+6])}
				return false
			}
			s.at += 6
		}
		s.at += 6
		return true
	}
	return false
}

// unit reads the escape of a UTF-16 code unit at a place.
func unit(b []byte, at int) (c rune, ok bool) {
	if at+6 > len(b) || b[at] != '\\' || b[at+1] != 'u' {
		return 0, false
	}
	for _, x := range b[at+2 : at+6] {
		switch {
		case x >= '0' && x <= '9':
			x -= '0'
		case x >= 'a' && x <= 'f':
			x -= 'a' - 10
		case x >= 'A' && x <= 'F':
			x -= 'A' - 10
		default:
			return 0, false
		}
		c = c<<4 | rune(x)
	}
	return c, true
}

// number walks over a number.
func (s *scanner) number() bool {
	if s.at < len(s.b) {
		if end := shortNumber(s.b, s.at); end > 0 {
			s.at = end
			return true
		}
	}
	s.optional('-')
	if !s.optional('0') && !s.digits() {
		return false
	}
	if s.optional('.') && !s.digits() {
		return false
	}
	if s.optional('e') || s.optional('E') {
		_ = s.optional('+') || s.optional('-')
		return s.digits()
	}
	return true
}

// optional consumes the given byte if it is next, without skipping white space.
func (s *scanner) optional(c byte) bool {
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

// digits takes one digit or more.
func (s *scanner) digits() bool {
	from := s.at
	for s.at < len(s.b) && s.b[s.at] >= '0' && s.b[s.at] <= '9' {
		s.at++
		s.rest()
	}
	return s.at > from
}
