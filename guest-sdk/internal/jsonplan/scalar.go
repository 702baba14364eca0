package jsonplan

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

func planBool(p *Plan) {
	p.append = func(b []byte, v unsafe.Pointer, _ int) ([]byte, error) {
		return strconv.AppendBool(b, *(*bool)(v)), nil
	}
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		switch {
		case d.left():
		case d.literal("true"):
			*(*bool)(v) = true
		case d.literal("false"):
			*(*bool)(v) = false
		default:
			return d.wrong()
		}
		return nil
	}
	p.schema = fixed(`{"type":"boolean"`)
}

// fixed writes the beginning of a schema that is the same for all types of a kind.
func fixed(text string) func(*schema, []keyword) {
	return func(s *schema, _ []keyword) { s.raw(text) }
}

func loadInt(v unsafe.Pointer, size uintptr) int64 {
	switch size {
	case 1:
		return int64(*(*int8)(v))
	case 2:
		return int64(*(*int16)(v))
	case 4:
		return int64(*(*int32)(v))
	}
	return *(*int64)(v)
}

func storeInt(v unsafe.Pointer, size uintptr, x int64) {
	switch size {
	case 8:
		*(*int64)(v) = x
	case 1:
		*(*int8)(v) = int8(x)
	case 2:
		*(*int16)(v) = int16(x)
	case 4:
		*(*int32)(v) = int32(x)
	}
}

func planInt(p *Plan) {
	size := p.typ.Size()
	maxValue := int64(1)<<(8*size-1) - 1
	p.wide = size == 8
	p.append = func(b []byte, v unsafe.Pointer, _ int) ([]byte, error) {
		return strconv.AppendInt(b, loadInt(v, size), 10), nil
	}
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		if x, ok := d.short(); ok {
			if x < -maxValue-1 || x > maxValue {
				return ErrRange
			}
			storeInt(v, size, x)
			return nil
		}
		if d.left() {
			return nil
		}
		negative, u, err := d.integer()
		if err != nil {
			return err
		}
		limit := uint64(maxValue) + 1
		if u > limit || u == limit && !negative {
			return ErrRange
		}
		x := int64(u)
		if negative {
			x = -x
		}
		storeInt(v, size, x)
		return nil
	}
	p.schema = fixed(`{"type":"integer"`)
	if p.typ.PkgPath() == "time" && p.typ.Name() == "Duration" { // by its name, as its methods are large
		p.unit = "in nanoseconds"
		p.own = []keyword{{"description", quoted(p.unit), 0}}
	}
}

func planUint(p *Plan) {
	size := p.typ.Size()
	mask := ^uint64(0) >> (64 - 8*size)
	p.append = func(b []byte, v unsafe.Pointer, _ int) ([]byte, error) {
		return strconv.AppendUint(b, uint64(loadInt(v, size))&mask, 10), nil
	}
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		if x, ok := d.short(); ok {
			if x < 0 || uint64(x) > mask {
				return ErrRange
			}
			storeInt(v, size, x)
			return nil
		}
		if d.left() {
			return nil
		}
		negative, u, err := d.integer()
		if err != nil {
			return err
		}
		if negative {
			return ErrRange
		}
		if u > mask {
			return ErrRange
		}
		storeInt(v, size, int64(u))
		return nil
	}
	p.schema = fixed(`{"type":"integer"`)
	p.own = []keyword{{"minimum", "0", numberShape}}
}

// short reads an integer of few digits that starts at the very next byte. ok is false, and
// nothing is read, if there is none; most integers are of this form.
func (d *decoder) short() (x int64, ok bool) {
	const maxDigits = 18 // integers of 18 digits cannot overflow
	i := d.i
	if uint(i) >= uint(len(d.b)) {
		return 0, false
	}
	b := d.b[i:]
	negative := b[0] == '-'
	if negative {
		b = b[1:]
	}
	n := len(b)
	for i, c := range b {
		if c -= '0'; c > 9 {
			n = i
			break
		}
		x = x*10 + int64(c)
	}
	if n == 0 || n > maxDigits || b[0] == '0' && (n > 1 || negative) || n < len(b) &&
		(b[n] == '.' || b[n]|0x20 == 'e') {
		return 0, false
	}
	d.i += n
	if negative {
		d.i++
		x = -x
	}
	return x, true
}

// integer returns the next number. It must be whole, but may be written in any way.
func (d *decoder) integer() (negative bool, u uint64, err error) {
	token, err := d.number()
	if err != nil {
		return false, 0, err
	}
	if token[0] == '-' {
		negative, token = true, token[1:]
	}
	n := digits(token)
	if n == len(token) {
		u, err = long(0, token)
	} else {
		u, err = whole(token[:n], token[n:])
	}
	return negative && u != 0, u, err
}

// long continues reading a number; u is what its first digits are.
func long(u uint64, digits []byte) (uint64, error) {
	for _, c := range digits {
		// A division for each digit would cost more than everything else here.
		if u >= math.MaxUint64/10 && (u > math.MaxUint64/10 || c-'0' > math.MaxUint64%10) {
			return 0, ErrRange
		}
		u = u*10 + uint64(c-'0')
	}
	return u, nil
}

// whole reads a number with a fraction or an exponent exactly: 1.50e1 is 15. The form of the
// number has been checked.
func whole(before, rest []byte) (uint64, error) {
	var fraction []byte
	if rest[0] == '.' {
		n := digits(rest[1:])
		fraction, rest = rest[1:1+n], rest[1+n:]
	}
	fraction = bytes.TrimRight(fraction, "0")
	shift := exponent(rest) // how far the decimal point moves
	if len(bytes.Trim(before, "0"))+len(bytes.Trim(fraction, "0")) == 0 {
		return 0, nil
	}
	if shift < 0 {
		cut := len(before) + shift
		if cut <= 0 || len(bytes.Trim(before[cut:], "0"))+len(fraction) > 0 {
			return 0, ErrWhole
		}
		return long(0, before[:cut])
	}
	if len(fraction) > shift {
		return 0, ErrWhole
	}
	u, err := long(0, before)
	if err == nil {
		u, err = long(u, fraction)
	}
	for range shift - len(fraction) {
		if err != nil || u == 0 {
			break
		}
		u, err = long(u, []byte("0"))
	}
	return u, err
}

// exponent reads the exponent of a number, 0 if it has none. It is cut to a value that is
// already too large for every integer whose digits fit into an input.
func exponent(rest []byte) int {
	if len(rest) == 0 {
		return 0
	}
	const maxExponent = 1 << 27
	rest = rest[1:]
	sign := 1
	if rest[0] == '+' || rest[0] == '-' {
		if rest[0] == '-' {
			sign = -1
		}
		rest = rest[1:]
	}
	n := 0
	for _, c := range rest {
		n = min(n*10+int(c-'0'), maxExponent)
	}
	return sign * n
}

func planFloat(p *Plan) {
	bits := int(8 * p.typ.Size())
	load := func(v unsafe.Pointer) float64 {
		if bits == 32 {
			return float64(*(*float32)(v))
		}
		return *(*float64)(v)
	}
	p.append = func(b []byte, v unsafe.Pointer, _ int) ([]byte, error) {
		f := load(v)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return b, ErrFloat
		}
		// As ECMAScript writes numbers: an exponent only for very large and very small ones.
		format := byte('f')
		if a := math.Abs(f); a != 0 {
			if bits == 64 && (a < 1e-6 || a >= 1e21) || bits == 32 && (float32(a) < 1e-6 || float32(a) >= 1e21) {
				format = 'e'
			}
		}
		b = strconv.AppendFloat(b, f, format, -1, bits)
		if n := len(b); format == 'e' && n >= 4 && b[n-4] == 'e' && (b[n-3] == '-' || b[n-3] == '+') && b[n-2] == '0' {
			b[n-2] = b[n-1] // e-09 is e-9
			b = b[:n-1]
		}
		return b, nil
	}
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		if d.left() {
			return nil
		}
		token, err := d.number()
		if err != nil {
			return err
		}
		f, err := strconv.ParseFloat(string(token), bits)
		if err != nil {
			return ErrRange
		}
		if bits == 32 {
			*(*float32)(v) = float32(f)
		} else {
			*(*float64)(v) = f
		}
		return nil
	}
	p.schema = fixed(`{"type":"number"`)
}

func planString(p *Plan) {
	p.append = func(b []byte, v unsafe.Pointer, _ int) ([]byte, error) { return appendString(b, *(*string)(v)), nil }
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		if d.left() {
			return nil
		}
		s, err := d.str()
		if err != nil {
			return err
		}
		*(*string)(v) = string(s)
		return nil
	}
	p.schema = fixed(`{"type":"string"`)
}

func planBytes(p *Plan) {
	p.append = func(b []byte, v unsafe.Pointer, _ int) ([]byte, error) {
		data := *(*[]byte)(v)
		if data == nil {
			return append(b, "null"...), nil
		}
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, data)
		return append(b, '"'), nil
	}
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		if d.null() {
			*(*[]byte)(v) = nil
			return nil
		}
		s, err := d.str()
		if err != nil {
			return err
		}
		data, err := base64.StdEncoding.AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(s))), s)
		if err != nil {
			return ErrType
		}
		*(*[]byte)(v) = data
		return nil
	}
	p.schema = fixed(`{"type":["string","null"],"contentEncoding":"base64"`)
}

// replaced is written for bytes that are not UTF-8, and for nothing else.
const replaced = `\ufffd`

// appendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD, written as
// an escape.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n != 1 {
				i += n
				continue
			}
			b = append(append(b, s[start:i]...), replaced...)
			i++
			start = i
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
