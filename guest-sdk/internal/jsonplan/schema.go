package jsonplan

import "strconv"

// Schema is the JSON Schema (draft 2020-12) of what the plan writes, and of what
// [Plan.Decode] reads: members may be missing, and unknown members are allowed. Recursive
// types are described by reference.
func (p *Plan) Schema() string { return p.describe(false) }

// InputSchema is the JSON Schema of what [Plan.DecodeInput] reads. Objects have the members
// of their structs and no others. A member is required unless it is a pointer or has the
// option omitempty or omitzero. DecodeInput does not check the limits that tags set.
func (p *Plan) InputSchema() string { return p.describe(true) }

func (p *Plan) describe(input bool) string {
	s := &schema{open: map[*Plan]int{}, input: input}
	s.plan(p, nil, nil)
	return string(s.b)
}

// schema writes a schema. A type that refers to itself gets an anchor, and its inner uses
// refer to the anchor.
type schema struct {
	b       []byte
	input   bool
	open    map[*Plan]int // types being written, with their anchor's number; 0 if they have none
	anchors int           // number of anchors in the document
}

func (s *schema) raw(text string) { s.b = append(s.b, text...) }
func (s *schema) int(n int)       { s.b = strconv.AppendInt(s.b, int64(n), 10) }

// closed writes which members an object must have, and that it may have no others.
func (s *schema) closed(fields []field) {
	first := `,"required":[`
	for i := range fields {
		if f := &fields[i]; f.required(asInput) {
			s.raw(first)
			s.raw(f.prefix[:len(f.prefix)-1]) // without the colon
			first = ","
		}
	}
	if first == "," {
		s.raw("]")
	}
	s.raw(`,"additionalProperties":false`)
}

// plan writes the schema of one type. notes and limits are what tags add to it; a limit that
// is not for this type is for the values in it.
func (s *schema) plan(p *Plan, notes, limits []keyword) {
	here, below := p.divide(limits)
	if n, ok := s.open[p]; ok {
		if n == 0 {
			s.anchors++
			n = s.anchors
			s.open[p] = n
		}
		s.raw(`{"$ref":"#t` + strconv.Itoa(n) + `"`)
		s.add(nil, notes, here)
		s.raw("}")
		return
	}
	s.open[p] = 0
	start := len(s.b)
	p.schema(s, below)
	n := s.open[p]
	delete(s.open, p)
	own := p.own
	if n > 0 {
		tail := string(s.b[start+1:])
		s.b = s.b[:start]
		apart := len(notes)+len(here) > 0 // they do not hold for what refers to the anchor
		if apart {
			s.raw(`{"allOf":[`)
		}
		s.raw(`{"$anchor":"t` + strconv.Itoa(n) + `",` + tail)
		if apart {
			s.add(nil, own)
			s.raw("}]")
			own = nil
		}
	}
	s.add(own, notes, here)
	s.raw("}")
}

// divide separates the limits of values of this type from those of the values in it.
func (p *Plan) divide(limits []keyword) (here, below []keyword) {
	if p.elem == nil {
		return limits, nil
	}
	for _, k := range limits {
		if shapeOf(p.typ)&k.on != 0 {
			here = append(here, k)
		} else {
			below = append(below, k)
		}
	}
	return here, below
}

// add adds keywords to the object that is being written. Those in own give way to others.
func (s *schema) add(own []keyword, more ...[]keyword) {
	for _, k := range own {
		replaced := false
		for _, list := range more {
			for _, other := range list {
				replaced = replaced || other.name == k.name
			}
		}
		if !replaced {
			s.keyword(k)
		}
	}
	for _, list := range more {
		for _, k := range list {
			s.keyword(k)
		}
	}
}

func (s *schema) keyword(k keyword) {
	s.raw(`,"`)
	s.raw(k.name)
	s.raw(`":`)
	s.raw(k.text)
}
