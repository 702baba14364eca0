package jsonplan

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// placed is an error with the place of the value that caused it.
type placed struct {
	place string // for example lines[2].amount
	err   error
}

func (e *placed) Error() string {
	return "json: " + e.place + ": " + strings.TrimPrefix(e.err.Error(), "json: ")
}
func (e *placed) Unwrap() error { return e.err }

// within adds an outer step to the place of an error: an index of an array, or, if index is
// negative, the name of a member.
func within(err error, index int, name string) error {
	if err == nil {
		return nil
	}
	const maxNameSize = 64                                              // bytes; the sender chooses the names in maps
	step := strings.ToValidUTF8(name[:min(len(name), maxNameSize)], "") // the cut may split a rune
	if index >= 0 {
		step = "[" + strconv.Itoa(index) + "]"
	}
	e, ok := err.(*placed)
	switch {
	case !ok:
		return &placed{step, err}
	case len(e.place) > 4*maxNameSize: // long enough to find the value
	case strings.HasPrefix(e.place, "["):
		e.place = step + e.place
	default:
		e.place = step + "." + e.place
	}
	return e
}

// decoder reads JSON from b. It is total: for every b it ends with a value or an error, and
// the memory that it allocates is at most proportional to b.
type decoder struct {
	b       []byte
	i       int
	depth   int
	mode    mode
	scratch []byte // holds strings with escapes
}

// mode says how strict a decoder is.
type mode uint8

const (
	lenient mode = iota
	asInput      // from a client: pointers may be left out
	asWhole      // written by Append: every member that it always writes must be there
	modes
)

// enter goes one level deeper. The caller must call leave at the end of the level, unless
// decoding ends with an error.
func (d *decoder) enter() error {
	if d.depth++; d.depth > maxDepth {
		return ErrDepth
	}
	return nil
}

func (d *decoder) leave() { d.depth-- }

func (d *decoder) space() {
	for d.i < len(d.b) {
		switch d.b[d.i] {
		case ' ', '\t', '\n', '\r':
			d.i++
		default:
			return
		}
	}
}

// The loops below use local variables and slices. In a guest, each use of a field of d would
// be a load from memory, and each index a bounds check.

// peek skips space and returns the next byte without reading it; 0 at the end.
func (d *decoder) peek() byte {
	if i := d.i; uint(i) < uint(len(d.b)) {
		if c := d.b[i]; c > ' ' {
			return c
		}
	}
	d.space()
	if d.i < len(d.b) {
		return d.b[d.i]
	}
	return 0
}

func (d *decoder) literal(word string) bool {
	d.space()
	if len(d.b)-d.i < len(word) || string(d.b[d.i:d.i+len(word)]) != word {
		return false
	}
	d.i += len(word)
	return true
}

func (d *decoder) null() bool { return d.peek() == 'n' && d.literal("null") }

// left reads a null that leaves the value unchanged. Strict decoders do not accept one.
func (d *decoder) left() bool { return d.mode == lenient && d.null() }

// wrong returns the error for a value of another type than expected, or for malformed JSON.
func (d *decoder) wrong() error {
	before := d.i
	if d.skip() != nil {
		return ErrSyntax
	}
	d.i = before
	return ErrType
}

// number returns the text of the next number, after checking its form.
func (d *decoder) number() ([]byte, error) {
	if c := d.peek(); c != '-' && (c < '0' || c > '9') {
		return nil, d.wrong()
	}
	b, i := d.b[d.i:], 0
	if b[0] == '-' {
		i++
	}
	whole := digits(b[i:])
	if whole == 0 || whole > 1 && b[i] == '0' {
		return nil, ErrSyntax
	}
	i += whole
	if i < len(b) && b[i] == '.' {
		n := digits(b[i+1:])
		if n == 0 {
			return nil, ErrSyntax
		}
		i += 1 + n
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		n := digits(b[i:])
		if n == 0 {
			return nil, ErrSyntax
		}
		i += n
	}
	d.i += i
	return b[:i], nil
}

// digits counts the digits at the start of b.
func digits(b []byte) int {
	for i, c := range b {
		if c-'0' > 9 {
			return i
		}
	}
	return len(b)
}

// str returns the text of the next string. It is valid until the next call.
func (d *decoder) str() ([]byte, error) {
	if d.peek() != '"' {
		return nil, d.wrong()
	}
	d.i++
	start := d.i
	text := d.b[start:]
	for i, c := range text {
		switch {
		case c == '"':
			d.i = start + i + 1
			return text[:i], nil
		case c < 0x20:
			return nil, ErrSyntax
		case c == '\\' || c >= utf8.RuneSelf:
			d.i = start + i
			return d.slowString(start)
		}
	}
	return nil, ErrSyntax
}

// slowString continues a string from its first byte that is an escape or not ASCII.
func (d *decoder) slowString(start int) ([]byte, error) {
	out := append(d.scratch[:0], d.b[start:d.i]...)
	for d.i < len(d.b) {
		c := d.b[d.i]
		switch {
		case c == '"':
			d.i++
			d.scratch = out
			return out, nil
		case c < 0x20:
			return nil, ErrSyntax
		case c == '\\':
			var err error
			if out, err = d.escape(out); err != nil {
				return nil, err
			}
		case c < utf8.RuneSelf:
			out = append(out, c)
			d.i++
		default:
			r, n := utf8.DecodeRune(d.b[d.i:])
			if n == 1 && d.mode != lenient {
				return nil, ErrText
			}
			out = utf8.AppendRune(out, r) // U+FFFD for bytes that are not UTF-8
			d.i += n
		}
	}
	return nil, ErrSyntax
}

func (d *decoder) escape(out []byte) ([]byte, error) {
	if d.i+1 >= len(d.b) {
		return out, ErrSyntax
	}
	c := d.b[d.i+1]
	d.i += 2
	switch c {
	case '"', '\\', '/':
		return append(out, c), nil
	case 'b':
		return append(out, '\b'), nil
	case 'f':
		return append(out, '\f'), nil
	case 'n':
		return append(out, '\n'), nil
	case 'r':
		return append(out, '\r'), nil
	case 't':
		return append(out, '\t'), nil
	case 'u':
		r, ok := d.hex4()
		if !ok {
			return out, ErrSyntax
		}
		if utf16.IsSurrogate(r) {
			// Half of a surrogate pair: with its other half one rune, alone U+FFFD.
			if d.i+1 < len(d.b) && d.b[d.i] == '\\' && d.b[d.i+1] == 'u' {
				before := d.i
				d.i += 2
				low, ok := d.hex4()
				if !ok {
					return out, ErrSyntax
				}
				if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
					return utf8.AppendRune(out, both), nil
				}
				d.i = before
			}
			if d.mode != lenient {
				return out, ErrText
			}
			r = utf8.RuneError
		}
		return utf8.AppendRune(out, r), nil
	}
	return out, ErrSyntax
}

func (d *decoder) hex4() (rune, bool) {
	if len(d.b)-d.i < 4 {
		return 0, false
	}
	var r rune
	for _, c := range d.b[d.i : d.i+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	d.i += 4
	return r, true
}

// open enters the next array or object, which must begin with first, and reports whether it
// has an element or a member. After each of them the caller calls more.
func (d *decoder) open(first, last byte) (more bool, err error) {
	if d.peek() != first {
		return false, d.wrong()
	}
	if err := d.enter(); err != nil {
		return false, err
	}
	d.i++
	if d.peek() == last {
		d.i++
		d.leave()
		return false, nil
	}
	return true, nil
}

// more reads what follows an element or a member, and reports whether another one comes.
func (d *decoder) more(last byte) (more bool, err error) {
	switch d.peek() {
	case ',':
		d.i++
		return true, nil
	case last:
		d.i++
		d.leave()
		return false, nil
	}
	return false, ErrSyntax
}

// comma reads a comma if it is the very next byte.
func (d *decoder) comma() bool {
	if i := d.i; uint(i) < uint(len(d.b)) && d.b[i] == ',' {
		d.i = i + 1
		return true
	}
	return false
}

// name reads the name of a member and the colon. The name is valid until the next string is
// read.
func (d *decoder) name() ([]byte, error) {
	if d.peek() != '"' {
		return nil, ErrSyntax
	}
	name, err := d.str()
	if err != nil {
		return nil, err
	}
	if d.peek() != ':' {
		return nil, ErrSyntax
	}
	d.i++
	return name, nil
}

// prefix reads name, which includes quotes and colon, if the input continues with exactly
// these bytes, and reports whether it did.
func (d *decoder) prefix(name string) bool {
	b := d.b[d.i:]
	if len(b) < len(name) || string(b[:len(name)]) != name {
		return false
	}
	d.i += len(name)
	return true
}

// skip reads the next value, of any type, and drops it.
func (d *decoder) skip() error {
	switch d.peek() {
	case '"':
		_, err := d.str()
		return err
	case '{':
		more, err := d.open('{', '}')
		for more && err == nil {
			if _, err := d.name(); err != nil {
				return err
			}
			if err := d.skip(); err != nil {
				return err
			}
			more, err = d.more('}')
		}
		return err
	case '[':
		more, err := d.open('[', ']')
		for more && err == nil {
			if err := d.skip(); err != nil {
				return err
			}
			more, err = d.more(']')
		}
		return err
	case 't':
		if d.literal("true") {
			return nil
		}
	case 'f':
		if d.literal("false") {
			return nil
		}
	case 'n':
		if d.literal("null") {
			return nil
		}
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		_, err := d.number()
		return err
	}
	return ErrSyntax
}
