package describe

import "strings"

// portable reports whether a pattern means the same to this host, which reads RE2, and to readers of the
// document, which read ECMAScript with the flag u. It knows the common part of both and says no to anything
// else.
func portable(pattern string) bool {
	p := patternReader{rest: pattern}
	for len(p.rest) > 0 {
		if !p.one() {
			return false
		}
	}
	return p.open == 0
}

type patternReader struct {
	rest   string
	open   int  // groups
	repeat bool // what is before can be repeated
}

// plain are the characters, beside letters, digits and space, that stand for themselves.
const plain = "_-,:;!@#%&'\"<>=~`/"

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// one reads one part of a pattern.
func (p *patternReader) one() bool {
	c := p.rest[0]
	p.rest = p.rest[1:]
	switch {
	case letter(c), c == ' ', strings.IndexByte(plain, c) >= 0, c >= 0x80, c == '.':
		for c >= 0x80 && len(p.rest) > 0 && p.rest[0]&0xc0 == 0x80 { // the rest of the character
			p.rest = p.rest[1:]
		}
		p.repeat = true
	case c == '^', c == '$', c == '|':
		p.repeat = false
	case c == '(':
		if strings.HasPrefix(p.rest, "?") {
			if !strings.HasPrefix(p.rest, "?:") {
				return false
			}
			p.rest = p.rest[2:]
		}
		p.open++
		p.repeat = false
	case c == ')':
		p.open--
		p.repeat = true
		return p.open >= 0
	case c == '*', c == '+', c == '?':
		return p.repeated()
	case c == '{':
		digits := strings.TrimLeft(p.rest, "0123456789")
		if len(digits) == len(p.rest) {
			return false
		}
		digits = strings.TrimLeft(strings.TrimPrefix(digits, ","), "0123456789")
		if !strings.HasPrefix(digits, "}") {
			return false
		}
		p.rest = digits[1:]
		return p.repeated()
	case c == '\\':
		p.repeat = true
		return p.escape("dDwW.\\/()[]{}^$|*+?nrt")
	case c == '[':
		p.repeat = true
		return p.class()
	default:
		return false
	}
	return true
}

// repeated ends a repetition, which may be lazy.
func (p *patternReader) repeated() bool {
	ok := p.repeat
	p.repeat = false
	p.rest = strings.TrimPrefix(p.rest, "?")
	return ok
}

// escape reads the character after a backslash.
func (p *patternReader) escape(known string) bool {
	if p.rest == "" || strings.IndexByte(known, p.rest[0]) < 0 {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// ranges reports whether a range of characters follows, within a class.
func (p *patternReader) ranges() bool {
	return strings.HasPrefix(p.rest, "-") && !strings.HasPrefix(p.rest, "-]")
}

// class reads the rest of a class of characters, after the bracket.
func (p *patternReader) class() bool {
	p.rest = strings.TrimPrefix(p.rest, "^")
	for first := true; len(p.rest) > 0; first = false {
		c := p.rest[0]
		p.rest = p.rest[1:]
		switch {
		case c == ']':
			return !first
		case c == '\\':
			if !p.escape("dDwW.\\/[]^-*+?(){}|$nrt") || p.ranges() {
				return false
			}
		case c == '-':
			if !strings.HasPrefix(p.rest, "]") {
				return false
			}
		case letter(c):
			if p.ranges() {
				if len(p.rest) < 2 || !letter(p.rest[1]) {
					return false
				}
				p.rest = p.rest[2:]
			}
			if p.ranges() {
				return false
			}
		case c == ' ', strings.IndexByte("_,:;!@#%'\"<>=~`/.+*?(){}|$", c) >= 0:
			if p.ranges() {
				return false
			}
		default:
			return false
		}
	}
	return false
}
