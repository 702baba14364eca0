package jsoncheck

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Fault is the kind of error in a text.
type Fault uint8

// The faults that [Check] finds, and the last two that only [Decode] does.
const (
	Malformed Fault = iota + 1 // it is not JSON
	Behind                     // there is something after the JSON value
	TooDeep                    // arrays and objects are nested too deeply
	NotUTF8                    // a byte of it is not UTF-8
	HalfPair                   // an escape is half of a surrogate pair, and stands for no character
	Twice                      // an object has two members of one name
	TooMany                    // the open objects have too many members to be compared
	Unknown                    // a member that the value has no field for
	Unfit                      // a member, or the whole value, has another type
)

// Error says what is wrong with a text. Its message is for the author of the text.
type Error struct {
	Fault Fault
	At    int    // offset in bytes; not set for Unknown and Unfit
	What  string // the character, escape or name concerned; what is unfit
}

// Error implements error.
func (e *Error) Error() string {
	switch e.Fault {
	case Behind:
		return fmt.Sprintf("there is text after the JSON, at byte %d", e.At)
	case TooDeep:
		return fmt.Sprintf("arrays and objects are nested deeper than %d, at byte %d", maxNesting, e.At)
	case NotUTF8:
		return fmt.Sprintf("it is not UTF-8: the byte %s at %d", e.What, e.At)
	case HalfPair:
		return fmt.Sprintf("the escape %s at byte %d is half of a surrogate pair and stands for no character", e.What,
			e.At)
	case Twice:
		return fmt.Sprintf("there are two members %s, the second one at byte %d", e.What, e.At)
	case TooMany:
		return fmt.Sprintf("there are more than %d members in objects within each other, at byte %d", maxNames, e.At)
	case Unknown:
		return "there is no member " + e.What
	case Unfit:
		return e.What
	}
	if e.What == "" && e.At == 0 {
		return "it is empty, where JSON is expected"
	}
	if e.What == "" {
		return "the JSON ends too early"
	}
	return fmt.Sprintf("it is not JSON: invalid character %s at byte %d", e.What, e.At)
}

// character returns the first character of a text in quotes, or its first byte if it is not UTF-8.
func character(b []byte) string {
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && n == 1 {
		return fmt.Sprintf("0x%02x", b[0])
	}
	return strconv.QuoteRuneToASCII(r)
}

// shown returns a quoted name, shortened if it is long.
func shown(name []byte) string {
	const maxShown = 100
	if len(name) <= maxShown {
		return string(name)
	}
	n := maxShown
	for !utf8.RuneStart(name[n]) {
		n--
	}
	return string(name[:n]) + `…"`
}
