package schema

import (
	"math"
	"runtime"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/jsoncheck"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// check is one walk over the data of one command or query. It is reused.
type check struct {
	schema *Schema
	walk   jsoncheck.Walker
	b      []byte // walk.Text
	rest   func() error

	steps, pause, maxSteps int           // done so far; when to let others run next; when to give up
	took                   time.Duration // estimated time before rest was first called
	rested                 bool          // rest was called
	// ends the walk regardless of alternatives: malformed data, too many steps, or the error of rest
	stop    error
	depth   int // of calls
	quiet   int // number of enclosing schemas whose failure does not fail the check
	path    []step
	last    violation // the violation of the last schema that failed
	seen    []uint64  // sets of members, those of inner objects on top
	scratch []byte
}

// step is one step of a path into the data: the token of a member's name, or the index of an
// element.
type step struct{ from, to, index int }

// kept bounds the scratch memory that is kept for the next check.
const kept = 16 << 10

func newCheck() *check {
	c := &check{}
	c.walk.Rest = func() { c.spend(yield.Step) }
	return c
}

// free makes the check available for reuse.
func (c *check) free() {
	if cap(c.scratch) > kept {
		c.scratch = nil
	}
	c.schema, c.b, c.walk.Text, c.rest, c.stop, c.last = nil, nil, nil, nil, nil, violation{path: c.last.path[:0]}
	c.took = 0
	checks.Put(c)
}

func (c *check) run(s *Schema, data []byte, rest func() error) error {
	c.schema, c.b, c.walk.Text, c.rest = s, data, data, rest
	c.steps, c.pause, c.depth, c.quiet, c.stop, c.rested = 0, firstRest, 0, 0, nil, false
	c.path, c.seen = c.path[:0], c.seen[:0]
	c.maxSteps = freeSteps + perByte*len(data)
	if perByte*len(data)/perByte != len(data) {
		c.maxSteps = math.MaxInt
	}
	end, ok := c.value(s.root, 0, nil)
	c.measured()
	switch {
	case c.stop != nil:
		return c.stop
	case !ok:
		return c.failure()
	case c.walk.Space(end) != len(data):
		c.malformed()
		return c.stop
	}
	return nil
}

// firstRest is the number of steps after which others may run for the first time.
const firstRest = 2_000

// spend counts work, in steps of about a nanosecond, and lets others run from time to time.
func (c *check) spend(steps int) {
	if c.steps += steps; c.steps >= c.pause {
		c.let()
	}
}

// toil announces work that may take the given nanoseconds, and lets others run first if that is
// due. It does not count the work, because it seldom takes that long.
func (c *check) toil(ns int) {
	if c.pause -= ns; c.steps >= c.pause {
		c.let()
	}
}

// measured marks the first call of rest: from here on the caller can measure the time itself.
func (c *check) measured() {
	if !c.rested {
		c.rested = true
		c.took += time.Duration(c.steps)
	}
}

func (c *check) let() {
	c.measured()
	c.pause = c.steps + yield.Step
	switch {
	case c.stop != nil:
	case c.steps > c.maxSteps:
		c.stop = service.Errorf(service.KindTooLarge, "the data would take more than %d steps to be checked against "+
			"the schema of the %s; send less at a time, or have its schema name fewer alternatives", c.maxSteps,
			c.schema.what)
	case c.rest != nil:
		c.stop = c.rest()
	default:
		runtime.Gosched()
	}
}

// stopped reports whether the walk is over, whatever the data is.
func (c *check) stopped() bool { return c.stop != nil }

// malformed ends the walk because the data is not JSON.
func (c *check) malformed() (int, bool) {
	if c.stop == nil {
		why := "the data is not JSON"
		if err := jsoncheck.Check(c.b); err != nil {
			why += ": " + err.Error()
		}
		c.halt(why)
	}
	return 0, false
}

// halt ends the walk because of something that no data may have.
func (c *check) halt(message string) {
	if c.stop == nil {
		pointer := c.pointer(c.path)
		c.stop = &service.Error{Kind: service.KindInvalid, Message: message, Pointer: &pointer}
	}
}

// The cost of examining a value, and a member, in addition to its bytes, in steps.
const (
	lookSteps   = 16
	memberSteps = 8
)

// value checks the value at an offset, which may be preceded by white space, and returns the offset
// after it. looked, if not nil, records which of its members or elements the schema examined. If
// the value does not fit, last says why, and the offset is meaningless.
func (c *check) value(n *node, at int, looked *marks) (end int, ok bool) {
	if n == nil {
		return c.skip(at)
	}
	if at = c.walk.Space(at); at >= len(c.b) {
		return c.malformed()
	}
	if c.depth++; c.depth > maxCalls || len(c.path) > maxNesting {
		c.halt("the data is nested deeper than its schema is followed")
	}
	c.spend(lookSteps)
	if c.stopped() {
		return 0, false
	}
	if n.never {
		return c.fail(n, reasonNever, at)
	}
	own := looked
	if own == nil && n.marks() {
		own = &marks{}
	}
	if end, ok = c.itself(n, at, own); !ok {
		return 0, false
	}
	c.spend(end - at)
	if n.enum != nil && !c.among(n.enum, at, end) {
		return c.fail(n, reasonEnum, at)
	}
	if n.applies() && !c.inPlace(n, at, own) {
		return 0, false
	}
	if n.marks() && !c.left(n, at, own) {
		return 0, false
	}
	c.depth--
	return end, !c.stopped()
}

// skip walks over a value without checking it.
func (c *check) skip(at int) (end int, ok bool) {
	if end, ok = c.walk.Value(at); !ok {
		return c.malformed()
	}
	c.spend(end - at)
	return end, !c.stopped()
}

// itself checks what n requires of the type and content of the value.
func (c *check) itself(n *node, at int, looked *marks) (end int, ok bool) {
	switch c.b[at] {
	case '{':
		if !n.takes(isObject) {
			return c.fail(n, reasonType, at)
		}
		if n.object == nil && looked == nil {
			return c.skip(at)
		}
		return c.members(n, at, looked)
	case '[':
		if !n.takes(isArray) {
			return c.fail(n, reasonType, at)
		}
		if n.array == nil {
			return c.skip(at)
		}
		return c.elements(n, at, looked)
	case '"':
		if !n.takes(isString) {
			return c.fail(n, reasonType, at)
		}
		return c.string(n, at)
	case 't', 'f':
		return c.word(n, at, isBoolean)
	case 'n':
		return c.word(n, at, isNull)
	}
	return c.numberAt(n, at)
}

func (c *check) word(n *node, at int, t types) (end int, ok bool) {
	if end, ok = c.skip(at); ok && !n.takes(t) {
		return c.fail(n, reasonType, at)
	}
	return end, ok
}

// takes reports whether a value of a type can fit.
func (n *node) takes(t types) bool { return n.types == 0 || n.types&t != 0 }

func (c *check) string(n *node, at int) (end int, ok bool) {
	if end, ok = c.walk.String(at); !ok {
		return c.malformed()
	}
	t := n.text
	if t == nil {
		return end, true
	}
	token := c.b[at:end]
	if t.min > 0 && c.characters(token, t.min) < t.min {
		return c.fail(n, reasonShort, at)
	}
	if t.max >= 0 && c.characters(token, t.max+1) > t.max {
		return c.fail(n, reasonLong, at)
	}
	if t.pattern != nil && !c.matches(t.pattern, token) {
		return c.fail(n, reasonPattern, at)
	}
	return end, true
}

func (c *check) numberAt(n *node, at int) (end int, ok bool) {
	if end, ok = c.walk.Number(at); !ok {
		return c.malformed()
	}
	if !n.takes(isNumber | isInteger) {
		return c.fail(n, reasonType, at)
	}
	integral := !n.takes(isNumber) // only integers are allowed
	if n.number == nil && (!integral || integer(c.b[at:end])) {
		return end, true
	}
	x, ok := c.parse(at, end)
	switch r := n.number; {
	case !ok:
		return 0, false
	case integral && !x.whole():
		return c.fail(n, reasonWhole, at)
	case r == nil:
	case r.minimum != nil && x.compare(r.minimum) < 0, r.above != nil && x.compare(r.above) <= 0:
		return c.fail(n, reasonLow, at)
	case r.maximum != nil && x.compare(r.maximum) > 0, r.below != nil && x.compare(r.below) >= 0:
		return c.fail(n, reasonHigh, at)
	case r.multiple != nil && !r.multiple.divides(&x):
		return c.fail(n, reasonMultiple, at)
	}
	return end, true
}

// parse reads a number. One that is too long for that ends the walk.
func (c *check) parse(at, end int) (x number, ok bool) {
	if end-at > maxNumber {
		c.halt("a number has more than 1000 characters")
		return x, false
	}
	x, c.scratch = parseNumber(c.b[at:end], c.scratch)
	return x, true
}

// integer reports whether a number is written as an integer.
func integer(token []byte) bool {
	for _, b := range token {
		if b == '.' || b == 'e' || b == 'E' {
			return false
		}
	}
	return true
}

// inPlace checks the subschemas that apply to the same value.
func (c *check) inPlace(n *node, at int, looked *marks) bool {
	for _, x := range n.all {
		if !c.also(x, at, looked) {
			return false
		}
	}
	if len(n.any) > 0 && !c.alternatives(n, n.any, at, looked, false) {
		return false
	}
	if len(n.one) > 0 && !c.alternatives(n, n.one, at, looked, true) {
		return false
	}
	if n.not != nil && c.quietly(n.not, at, nil) {
		c.fail(n, reasonNot, at)
		return false
	}
	if n.cond != nil {
		branch := n.els
		if c.quietly(n.cond, at, looked) {
			branch = n.then
		}
		return branch == nil || c.also(branch, at, looked)
	}
	return !c.stopped()
}

// also checks one subschema for the same value. What it examined counts only if the value fits.
func (c *check) also(n *node, at int, looked *marks) bool {
	if looked == nil {
		_, ok := c.value(n, at, nil)
		return ok
	}
	var own marks
	_, ok := c.value(n, at, &own)
	if ok {
		looked.add(&own)
	}
	return ok
}

// quietly is also, for a subschema that need not fit.
func (c *check) quietly(n *node, at int, looked *marks) bool {
	depth, path, seen := c.depth, len(c.path), len(c.seen)
	c.quiet++
	ok := c.also(n, at, looked)
	c.quiet--
	c.depth, c.path, c.seen = depth, c.path[:path], c.seen[:seen]
	return ok
}

// alternatives checks that at least one, or exactly one, of several schemas fits. If none does, the
// violation that is reported is the one farthest into the data.
func (c *check) alternatives(n *node, list []*node, at int, looked *marks, exactly bool) bool {
	depth, path, seen := c.depth, len(c.path), len(c.seen)
	fitting := 0
	var best violation
	for _, x := range list {
		ok := c.also(x, at, looked)
		c.depth, c.path, c.seen = depth, c.path[:path], c.seen[:seen]
		switch {
		case c.stopped():
			return false
		case ok:
			fitting++
			if fitting > 1 && exactly {
				c.fail(n, reasonSeveral, at)
				return false
			}
			if !exactly && looked == nil {
				return true
			}
		case c.quiet == 0 && c.last.depth > max(best.depth, path):
			best = c.last
			best.path = append([]step(nil), c.last.path...)
		}
	}
	if fitting > 0 {
		return true
	}
	if best.reason != 0 {
		c.last = best
		return false
	}
	c.fail(n, reasonNone, at)
	c.last.list = list
	return false
}
