package schema

import "github.com/bulkhead-wasm/bulkhead/host/service"

// marks records which members or elements of a value a schema has examined, by their index.
type marks struct {
	bits []uint64
	all  bool
}

func (m *marks) set(i int) {
	for len(m.bits) <= i/64 {
		m.bits = append(m.bits, 0)
	}
	m.bits[i/64] |= 1 << (i % 64)
}

func (m *marks) has(i int) bool {
	return m.all || i/64 < len(m.bits) && m.bits[i/64]>>(i%64)&1 == 1
}

func (m *marks) add(other *marks) {
	m.all = m.all || other.all
	for len(m.bits) < len(other.bits) {
		m.bits = append(m.bits, 0)
	}
	for i, b := range other.bits {
		m.bits[i] |= b
	}
}

// each walks over the members of the object, or the elements of the array, at an offset. It calls f
// with the index, the bounds of the name's token (of a member), and the offset of the value; f
// returns the offset after the value.
func (c *check) each(at int, f func(i, nameAt, nameEnd, value int) (end int, ok bool)) (end int, ok bool) {
	closing, object := byte(']'), c.b[at] == '{'
	if object {
		closing = '}'
	}
	if at = c.walk.Space(at + 1); at < len(c.b) && c.b[at] == closing {
		return at + 1, true
	}
	for i := 0; ; i++ {
		nameAt, nameEnd := at, at
		if object {
			if at >= len(c.b) || c.b[at] != '"' {
				return c.malformed()
			}
			if nameEnd, ok = c.walk.String(at); !ok {
				return c.malformed()
			}
			if at = c.walk.Space(nameEnd); at >= len(c.b) || c.b[at] != ':' {
				return c.malformed()
			}
			at = c.walk.Space(at + 1)
		}
		c.spend(memberSteps)
		c.path = append(c.path, step{nameAt, nameEnd, i})
		if at, ok = f(i, nameAt, nameEnd, at); !ok {
			return 0, false
		}
		c.path = c.path[:len(c.path)-1]
		if at = c.walk.Space(at); at >= len(c.b) {
			return c.malformed()
		}
		switch c.b[at] {
		case closing:
			return at + 1, true
		case ',':
			at = c.walk.Space(at + 1)
		default:
			return c.malformed()
		}
	}
}

var noMembers = &objectRules{max: -1}

// members checks an object.
func (c *check) members(n *node, at int, looked *marks) (end int, ok bool) {
	o := n.object
	if o == nil {
		o = noMembers
	}
	seen := len(c.seen) // the set begins here
	for range (len(o.members) + 63) / 64 {
		c.seen = append(c.seen, 0)
	}
	count := 0
	end, ok = c.each(at, func(i, nameAt, nameEnd, value int) (int, bool) {
		count++
		return c.member(n, o, seen, i, nameAt, nameEnd, value, looked)
	})
	if !ok {
		return 0, false
	}
	has := func(i int) bool { return c.seen[seen+i/64]>>(i%64)&1 == 1 }
	if o.needs {
		for i := range o.members {
			if o.members[i].required && !has(i) {
				return c.missing(n, i, at)
			}
		}
	}
	switch {
	case count < o.min:
		return c.fail(n, reasonFewMembers, at)
	case o.max >= 0 && count > o.max:
		return c.fail(n, reasonManyMembers, at)
	}
	for i := range o.dependent {
		d := &o.dependent[i]
		if !has(d.member) {
			continue
		}
		for _, need := range d.needs {
			if !has(need) {
				return c.missing(n, need, at)
			}
		}
		if d.given && !c.also(d.node, at, looked) {
			return 0, false
		}
	}
	c.seen = c.seen[:seen]
	return end, true
}

// member checks one member of an object.
func (c *check) member(n *node, o *objectRules, seen, i, nameAt, nameEnd, value int, looked *marks) (end int, ok bool) {
	name := c.plain(c.b[nameAt:nameEnd])
	k := o.find(name)
	if o.names != nil {
		if _, ok := c.value(o.names, nameAt, nil); !ok {
			return 0, false
		}
	}
	covered, walked := false, false
	if k >= 0 {
		if word := &c.seen[seen+k/64]; *word>>(k%64)&1 == 1 {
			c.halt(c.place(c.path) + " is there twice")
			return 0, false
		} else {
			*word |= 1 << (k % 64)
		}
		if m := &o.members[k]; m.declared {
			covered, walked = true, true
			if end, ok = c.value(m.node, value, nil); !ok {
				return 0, false
			}
		}
	}
	for p := range o.patterns {
		if !c.matches(o.patterns[p].pattern, c.b[nameAt:nameEnd]) {
			continue
		}
		covered, walked = true, true
		if end, ok = c.value(o.patterns[p].node, value, nil); !ok {
			return 0, false
		}
	}
	if !covered && o.restGiven {
		if o.rest != nil && o.rest.never {
			return c.fail(n, reasonUnknown, value)
		}
		covered = true
	}
	if covered && looked != nil {
		looked.set(i)
	}
	if walked {
		return end, !c.stopped()
	}
	return c.value(o.rest, value, nil)
}

// missing fails for a required member that is absent. The violation points to where it would be.
func (c *check) missing(n *node, member, at int) (int, bool) {
	c.fail(n, reasonMissing, at)
	c.last.member = member
	return 0, false
}

// elements checks an array.
func (c *check) elements(n *node, at int, looked *marks) (end int, ok bool) {
	a := n.array
	count, contained := 0, 0
	var others map[hash]int
	if a.unique {
		others = map[hash]int{}
	}
	end, ok = c.each(at, func(i, _, _, value int) (int, bool) {
		count++
		node := a.rest
		if i < len(a.first) {
			node = a.first[i]
		}
		if looked != nil && (i < len(a.first) || a.restGiven) {
			looked.set(i)
		}
		end, ok := c.value(node, value, nil)
		if !ok {
			return 0, false
		}
		if a.contained && c.quietly(a.contains, value, nil) {
			contained++
			if looked != nil && a.containsCounts {
				looked.set(i)
			}
		}
		if a.unique {
			if len(others) == maxUnique {
				c.stop = service.Errorf(service.KindTooLarge,
					"an array of which each element has to be another has more than %d of them", maxUnique)
				return 0, false
			}
			h, ok := c.hash(value)
			if !ok {
				return 0, false
			}
			if _, twice := others[h]; twice {
				return c.fail(n, reasonTwice, value)
			}
			others[h] = i
		}
		return end, !c.stopped()
	})
	switch {
	case !ok:
		return 0, false
	case count < a.min:
		return c.fail(n, reasonFewElements, at)
	case a.max >= 0 && count > a.max:
		return c.fail(n, reasonManyElements, at)
	case a.contained && contained < a.minContains:
		return c.fail(n, reasonFewContained, at)
	case a.contained && a.maxContains >= 0 && contained > a.maxContains:
		return c.fail(n, reasonManyContained, at)
	}
	return end, true
}

// left checks the members or elements that no schema of the value has examined, and marks all as
// examined.
func (c *check) left(n *node, at int, looked *marks) bool {
	var rest *leftover
	switch c.b[at] {
	case '{':
		rest = n.otherMembers
	case '[':
		rest = n.otherElements
	}
	if rest == nil {
		return true
	}
	_, ok := c.each(at, func(i, _, _, value int) (int, bool) {
		if looked.has(i) {
			return c.skip(value)
		}
		if rest.node != nil && rest.node.never {
			return c.fail(n, reasonUnknown, value)
		}
		return c.value(rest.node, value, nil)
	})
	looked.all = true
	return ok
}
