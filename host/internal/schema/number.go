package schema

import (
	"bytes"
	"math/big"
	"math/bits"
)

// number is a decimal: digits · 10^exp, where digits neither begins nor ends with a zero, and is
// empty for zero. It is never expanded, so 1e999999999 costs no more than 1.
type number struct {
	negative bool
	digits   []byte
	exp      int64
}

// bigExponent caps exponents. A number beyond it is larger, or smaller, than any number of a
// schema.
const bigExponent = 1 << 40

// parseNumber parses a JSON number. The digits of the result are in scratch or in text.
func parseNumber(text, scratch []byte) (n number, _ []byte) {
	if text[0] == '-' {
		n.negative, text = true, text[1:]
	}
	if i := bytes.IndexAny(text, "eE"); i >= 0 {
		n.exp, text = parseExponent(text[i+1:]), text[:i]
	}
	if i := bytes.IndexByte(text, '.'); i >= 0 {
		n.exp -= int64(len(text) - i - 1)
		scratch = append(append(scratch[:0], text[:i]...), text[i+1:]...)
		text = scratch
	}
	n.digits = bytes.TrimLeft(text, "0")
	whole := bytes.TrimRight(n.digits, "0")
	n.exp += int64(len(n.digits) - len(whole))
	n.digits = whole
	if len(whole) == 0 {
		n.negative, n.exp = false, 0
	}
	return n, scratch
}

func parseExponent(text []byte) (exp int64) {
	negative := text[0] == '-'
	if negative || text[0] == '+' {
		text = text[1:]
	}
	for _, c := range text {
		exp = min(10*exp+int64(c-'0'), bigExponent)
	}
	if negative {
		return -exp
	}
	return exp
}

// numberOf converts a number of the library, which was parsed from a decimal.
func numberOf(r *big.Rat) *number {
	digits, _ := r.FloatPrec()
	n, _ := parseNumber([]byte(r.FloatString(digits)), nil)
	return &n
}

// whole reports whether the number has no fraction.
func (n *number) whole() bool { return n.exp >= 0 }

func (n *number) compare(m *number) int {
	a, b := n.sign(), m.sign()
	switch {
	case a != b:
		return a - b
	case a == 0:
		return 0
	}
	// The signs are equal: the exponent of the first digit decides, then the digits.
	c := 0
	if x, y := int64(len(n.digits))+n.exp, int64(len(m.digits))+m.exp; x != y {
		if c = 1; x < y {
			c = -1
		}
	} else {
		c = bytes.Compare(n.digits, m.digits) // one that goes on is larger, as it does not end with 0
	}
	return a * c
}

func (n *number) sign() int {
	switch {
	case len(n.digits) == 0:
		return 0
	case n.negative:
		return -1
	}
	return 1
}

// divisor is a number that others have to be multiples of.
type divisor struct {
	digits uint64
	exp    int64
	text   string
}

// divisorOf returns nil if the number has more than 18 digits.
func divisorOf(n *number, text string) *divisor {
	if len(n.digits) > 18 || len(n.digits) == 0 {
		return nil
	}
	d := divisor{exp: n.exp, text: text}
	for _, c := range n.digits {
		d.digits = 10*d.digits + uint64(c-'0')
	}
	return &d
}

// divides reports whether n is an exact multiple.
func (d *divisor) divides(n *number) bool {
	if len(n.digits) == 0 {
		return true
	}
	shift := n.exp - d.exp
	if shift < 0 {
		// n has a finer last digit, which is not 0. It is a multiple only if d takes it
		// there, and it cannot: d·10^-shift ends with zeros, n's digits do not.
		return false
	}
	rest := uint64(0)
	for _, c := range n.digits {
		rest = mulMod(rest, 10, d.digits)
		rest = (rest + uint64(c-'0')%d.digits) % d.digits
	}
	return mulMod(rest, powMod(10, uint64(shift), d.digits), d.digits) == 0
}

func mulMod(a, b, m uint64) uint64 {
	hi, lo := bits.Mul64(a%m, b%m)
	return bits.Rem64(hi, lo, m)
}

func powMod(base, exp, m uint64) uint64 {
	power := 1 % m
	for base %= m; exp > 0; exp >>= 1 {
		if exp&1 == 1 {
			power = mulMod(power, base, m)
		}
		base = mulMod(base, base, m)
	}
	return power
}
