package schema

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// reason is the kind of a violation.
type reason uint8

const (
	reasonType reason = iota + 1
	reasonWhole
	reasonNever
	reasonUnknown
	reasonMissing
	reasonEnum
	reasonLow
	reasonHigh
	reasonMultiple
	reasonShort
	reasonLong
	reasonPattern
	reasonFewMembers
	reasonManyMembers
	reasonFewElements
	reasonManyElements
	reasonFewContained
	reasonManyContained
	reasonTwice
	reasonNot
	reasonNone
	reasonSeveral
)

// violation is a place in the data that does not fit. Its text is made only when it is needed.
type violation struct {
	reason reason
	node   *node // what it does not fit
	at     int   // where the value begins
	depth  int   // of path
	path   []step
	member int     // in node.object, of what is missing
	list   []*node // the alternatives, none of which fits
}

// fail records why a schema does not fit, and where, unless the failure may be harmless. It returns
// the results of a failed check.
func (c *check) fail(n *node, why reason, at int) (int, bool) {
	if c.quiet == 0 {
		path := append(c.last.path[:0], c.path...)
		c.last = violation{reason: why, node: n, at: at, depth: len(path), path: path}
	}
	return 0, false
}

// failure returns the error for the last violation.
func (c *check) failure() error {
	v := &c.last
	pointer := c.pointer(v.path)
	if v.reason == reasonMissing {
		pointer = joined(pointer, v.node.object.members[v.member].name)
	}
	return &service.Error{Kind: service.KindInvalid, Message: c.words(v), Pointer: &pointer}
}

// maxPointer bounds a JSON Pointer, in bytes. A longer one is cut to the innermost ancestor that
// fits.
const maxPointer = 1 << 10

func (c *check) pointer(path []step) string {
	text := ""
	for _, s := range path {
		longer := ""
		if s.from == s.to {
			longer = text + "/" + strconv.Itoa(s.index)
		} else if s.to-s.from <= 6*maxPointer {
			longer = joined(text, string(c.plain(c.b[s.from:s.to])))
		}
		if longer == "" || len(longer) > maxPointer {
			break
		}
		text = longer
	}
	return text
}

func joined(pointer, name string) string {
	return pointer + "/" + escaping.Replace(name)
}

var escaping = strings.NewReplacer("~", "~0", "/", "~1")

// words describes a violation in a sentence: what was wrong and what was expected.
func (c *check) words(v *violation) string {
	n, what := v.node, c.schema.what
	switch v.reason {
	case reasonUnknown:
		return c.unknown(v)
	case reasonMissing:
		m := &n.object.members[v.member]
		return fmt.Sprintf("%s lacks the member %s%s, which the %s requires",
			c.place(v.path), quote(m.name), m.node.expected(), what)
	case reasonType, reasonWhole:
		is := typeName(c.b[v.at])
		if v.reason == reasonWhole || is == "a number" {
			is = "the number " + c.excerpt(v.at)
		}
		return fmt.Sprintf("%s is %s; it has to be %s", c.place(v.path), is, n.types)
	case reasonNone:
		return c.none(v)
	}
	return c.place(v.path) + " " + c.broken(v)
}

// unknown describes a member or element that its schema does not allow.
func (c *check) unknown(v *violation) string {
	s := v.path[len(v.path)-1]
	inside := c.place(v.path[:len(v.path)-1])
	if s.from == s.to {
		return fmt.Sprintf("%s has an element %d, for which the %s has no use", inside, s.index, c.schema.what)
	}
	name := string(c.plain(c.b[s.from:s.to]))
	text := fmt.Sprintf("%s has the member %s, which the %s does not know", inside, quote(name), c.schema.what)
	var known []string
	if v.node.object != nil {
		for i := range v.node.object.members {
			m := v.node.object.members[i].name
			if strings.EqualFold(m, name) {
				return text + "; did you mean " + quote(m) + "?"
			}
			known = append(known, quote(m))
		}
	}
	if len(known) == 0 {
		return text
	}
	return text + "; it knows " + listed(known)
}

// none describes a value that fits no alternative. If each alternative requires another type, it
// lists the types.
func (c *check) none(v *violation) string {
	var wanted types
	for _, n := range v.list {
		if n == nil || n.types == 0 || n.types&typeOf(c.b[v.at]) != 0 {
			return fmt.Sprintf("%s fits none of the %d alternatives that the %s has for it",
				c.place(v.path), len(v.list), c.schema.what)
		}
		wanted |= n.types
	}
	return fmt.Sprintf("%s is %s; it has to be %s", c.place(v.path), typeName(c.b[v.at]), wanted)
}

// broken describes what is wrong with the value at an offset, as the end of a sentence.
func (c *check) broken(v *violation) string {
	n := v.node
	switch v.reason {
	case reasonNever:
		return fmt.Sprintf("has to be left out: the %s has no use for it", c.schema.what)
	case reasonEnum:
		if len(n.enum.texts) == 1 {
			return "has to be " + n.enum.texts[0]
		}
		return "has to be one of " + listed(n.enum.texts)
	case reasonLow:
		if n.number.minimum != nil {
			return fmt.Sprintf("is %s; it has to be %s or more", c.excerpt(v.at), n.number.minimum)
		}
		return fmt.Sprintf("is %s; it has to be more than %s", c.excerpt(v.at), n.number.above)
	case reasonHigh:
		if n.number.maximum != nil {
			return fmt.Sprintf("is %s; it has to be %s or less", c.excerpt(v.at), n.number.maximum)
		}
		return fmt.Sprintf("is %s; it has to be less than %s", c.excerpt(v.at), n.number.below)
	case reasonMultiple:
		return fmt.Sprintf("is %s; it has to be a multiple of %s", c.excerpt(v.at), n.number.multiple.text)
	case reasonShort:
		return fmt.Sprintf("has fewer than %d characters", n.text.min)
	case reasonLong:
		return fmt.Sprintf("has more than %d characters", n.text.max)
	case reasonPattern:
		return "does not match the pattern " + quote(n.text.pattern.String())
	case reasonFewMembers:
		return fmt.Sprintf("has fewer than %d members", n.object.min)
	case reasonManyMembers:
		return fmt.Sprintf("has more than %d members", n.object.max)
	case reasonFewElements:
		return fmt.Sprintf("has fewer than %d elements", n.array.min)
	case reasonManyElements:
		return fmt.Sprintf("has more than %d elements", n.array.max)
	case reasonFewContained:
		return fmt.Sprintf("has fewer than %d elements of the kind that the %s wants",
			n.array.minContains, c.schema.what)
	case reasonManyContained:
		return fmt.Sprintf("has more than %d elements of the kind that the %s bounds",
			n.array.maxContains, c.schema.what)
	case reasonTwice:
		return "is there already; each element has to be another"
	case reasonNot:
		return fmt.Sprintf("is what the %s excludes (%s/not of its schema)", c.schema.what, n.place)
	case reasonSeveral:
		return fmt.Sprintf("fits more than one of the alternatives that the %s has for it; it has to be clear "+
			"which is meant",
			c.schema.what)
	}
	return "does not fit"
}

// place returns the beginning of a sentence, which names a place in the data.
func (c *check) place(path []step) string {
	if pointer := c.pointer(path); pointer != "" {
		return "the data at " + cut(pointer)
	}
	return "the data"
}

// excerpt returns the beginning of the number at an offset.
func (c *check) excerpt(at int) string {
	end, _ := c.walk.Number(at)
	return cut(string(c.b[at:end]))
}

// expected describes in parentheses what a member has to be, or is empty if that is not simple.
func (n *node) expected() string {
	if n == nil || n.types == 0 {
		return ""
	}
	return " (" + n.types.String() + ")"
}

var typeNames = []string{"null", "a boolean", "a number", "an integer", "a string", "an array", "an object"}

// String lists the types.
func (t types) String() string {
	var names []string
	for i, name := range typeNames {
		if t&(1<<i) != 0 && !(1<<i == int(isInteger) && t&isNumber != 0) {
			names = append(names, name)
		}
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// typeOf returns the type of a value by its first byte.
func typeOf(b byte) types {
	switch b {
	case '{':
		return isObject
	case '[':
		return isArray
	case '"':
		return isString
	case 't', 'f':
		return isBoolean
	case 'n':
		return isNull
	}
	return isNumber | isInteger
}

func typeName(b byte) string { return typeOf(b).String() }

// String returns the number in the usual notation if that is short.
func (n *number) String() string {
	sign := ""
	if n.negative {
		sign = "-"
	}
	switch d := string(n.digits); {
	case d == "":
		return "0"
	case n.exp == 0:
		return sign + d
	case n.exp > 0 && n.exp < 20:
		return sign + d + strings.Repeat("0", int(n.exp))
	case n.exp < 0 && -n.exp < int64(len(d)):
		point := len(d) + int(n.exp)
		return sign + d[:point] + "." + d[point:]
	case n.exp < 0 && n.exp > -20:
		return sign + "0." + strings.Repeat("0", int(-n.exp)-len(d)) + d
	default:
		return fmt.Sprintf("%s%se%d", sign, d, n.exp)
	}
}

// maxListed bounds how many names an error lists, maxWord how long each is.
const (
	maxListed = 10
	maxWord   = 100
)

func listed(names []string) string {
	var b strings.Builder
	for i, name := range names {
		if i == maxListed {
			fmt.Fprintf(&b, " and %d more", len(names)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(cut(name))
	}
	return b.String()
}

func quote(s string) string { return strconv.Quote(cut(s)) }

// cut shortens a text, at a character's boundary.
func cut(s string) string { return cutTo(s, maxWord) }

func cutTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
