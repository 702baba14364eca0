package schema

import "regexp"

// types is a set of JSON types.
type types uint8

const (
	isNull types = 1 << iota
	isBoolean
	isNumber
	isInteger // of the numbers, those without a fraction
	isString
	isArray
	isObject
)

// node is a schema in the form that is checked. A nil node accepts anything.
type node struct {
	place string // in the schema's text, as a fragment

	never  bool // it accepts nothing
	types  types
	enum   *values
	number *numberRules
	text   *textRules
	array  *arrayRules
	object *objectRules

	// Subschemas for the same value.
	all, any, one   []*node
	not             *node
	cond, then, els *node

	// For members and elements that nothing above examined; nil accepts any.
	otherMembers, otherElements *leftover
}

// leftover is the schema for members or elements that no other subschema examined. A nil node
// accepts anything.
type leftover struct{ node *node }

// values is a list of allowed values, which are compared by their hashes.
type values struct {
	list  []hash
	texts []string // as JSON, for people
	short int      // bytes of the longest string among them, if no more is to be looked at
}

type numberRules struct {
	minimum, maximum, above, below *number
	multiple                       *divisor
}

type textRules struct {
	min, max int // characters; max -1 is no bound
	pattern  *pattern
}

// pattern is a regular expression and how much work it is.
type pattern struct {
	*regexp.Regexp
	instructions int
}

type arrayRules struct {
	min, max  int // elements; max -1 is no bound
	first     []*node
	rest      *node
	restGiven bool // rest applies to all elements after the first ones
	unique    bool

	contains                 *node
	contained                bool // contains is given
	minContains, maxContains int  // maxContains -1 is no bound
	containsCounts           bool // elements that contains matched count as examined
}

type objectRules struct {
	min, max  int // members; max -1 is no bound
	members   []member
	index     map[string]int // of members, if there are many
	needs     bool           // some are required
	patterns  []patternMember
	rest      *node
	restGiven bool // rest applies to all other members
	names     *node
	dependent []dependent
}

// member is a name that a schema mentions.
type member struct {
	name     string
	declared bool // it has a schema, which may be nil
	required bool
	node     *node
}

type patternMember struct {
	pattern *pattern
	node    *node
}

// dependent is what must hold if a member is present.
type dependent struct {
	member int // in members
	needs  []int
	node   *node
	given  bool // node is
}

const manyMembers = 8

// find returns the index of a member, or -1.
func (o *objectRules) find(name []byte) int {
	if o.index != nil {
		if i, ok := o.index[string(name)]; ok {
			return i
		}
		return -1
	}
	for i := range o.members {
		if o.members[i].name == string(name) {
			return i
		}
	}
	return -1
}

// trivial reports whether the node accepts anything.
func (n *node) trivial() bool {
	return !n.never && n.types == 0 && n.enum == nil && n.number == nil && n.text == nil &&
		n.array == nil && n.object == nil && !n.applies() && !n.marks()
}

// marks reports whether the node has to know which members or elements other schemas have examined.
func (n *node) marks() bool { return n.otherMembers != nil || n.otherElements != nil }

// applies reports whether there are subschemas for the same value.
func (n *node) applies() bool {
	return len(n.all) > 0 || len(n.any) > 0 || len(n.one) > 0 ||
		n.not != nil || n.cond != nil || n.then != nil || n.els != nil
}

// inPlace calls f with each subschema for the same value.
func (n *node) inPlace(f func(*node)) {
	for _, list := range [][]*node{n.all, n.any, n.one, {n.not, n.cond, n.then, n.els}} {
		for _, x := range list {
			if x != nil {
				f(x)
			}
		}
	}
	if n.object != nil {
		for _, d := range n.object.dependent {
			if d.node != nil {
				f(d.node)
			}
		}
	}
}
