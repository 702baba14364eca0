package jsonplan

import (
	"reflect"
	"strings"
	"unsafe"
)

// field is a member of a struct. The members of embedded structs are members of the outer one.
type field struct {
	name   string
	prefix string // the name as it is written, with the colon: `"name":`
	offset uintptr
	plan   *Plan
	// optional: the tag has omitempty or omitzero, so the member may be missing. skip reports
	// whether a value is not written; nil if every value is written.
	optional bool
	skip     func(p unsafe.Pointer) bool

	depth  int // how deep the field's struct is embedded
	tagged bool

	notes, limits []keyword // of its tags

	head, mask, tail uint64 // see setWords
}

func (m *Maker) planStruct(p *Plan) string {
	fields, problem := m.fields(p.typ, 0, 0)
	if problem != "" {
		return problem
	}
	fields = dominant(fields)
	for i := range fields {
		fields[i].setWords()
	}
	p.fields = fields
	for i := range fields {
		if len(fields[i].notes) > 0 {
			m.noted = append(m.noted, p)
			break
		}
	}
	for i := range p.typ.NumField() {
		if blank := p.typ.Field(i); blank.Name == "_" {
			if problem := p.blank(blank.Tag); problem != "" {
				return "field " + p.typ.String() + "._: " + problem
			}
		}
	}
	var mandatory [modes]uint64 // bit i: field i is required in this mode; the first 64 fields only
	for i := range min(len(fields), 64) {
		for mode := range modes {
			if fields[i].required(mode) {
				mandatory[mode] |= 1 << i
			}
		}
	}
	p.append = func(b []byte, v unsafe.Pointer, depth int) ([]byte, error) {
		if depth >= maxDepth {
			return b, ErrDepth
		}
		b = append(b, '{')
		first := true
		var err error
		for i := range fields {
			f := &fields[i]
			at := unsafe.Add(v, f.offset)
			if f.skip != nil && f.skip(at) {
				continue
			}
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(b, f.prefix...)
			if b, err = f.plan.append(b, at, depth+1); err != nil {
				return b, within(err, -1, f.name)
			}
		}
		return append(b, '}'), nil
	}
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		var seen marks
		var more bool
		var err error
		if i, b := d.i, d.b; i < len(b)-1 && b[i] == '{' && b[i+1] == '"' && d.depth < maxDepth {
			d.i, d.depth, more = i+1, d.depth+1, true // what open does, without the calls
		} else if d.peek() == 'n' && d.left() { // left peeks, too, but is a call
			return nil
		} else {
			more, err = d.open('{', '}')
		}
		next := 0 // most members come in the order of the fields, and without spaces
		for more && err == nil {
			i := next
			if i >= len(fields) || !d.starts(&fields[i]) {
				name, err := d.name()
				if err != nil {
					return err
				}
				for i = 0; i < len(fields) && fields[i].name != string(name); {
					i++
				}
				if i == len(fields) && d.mode != lenient {
					return within(ErrUnknown, -1, string(name))
				}
			}
			if i < len(fields) {
				f := &fields[i]
				next = i + 1
				if d.mode != lenient {
					if bit := uint64(1) << (i & 63); i < 64 && seen.low&bit == 0 {
						seen.low |= bit // inlined: add would be a call
					} else if !seen.add(i) {
						return within(ErrTwice, -1, f.name)
					}
				}
				at := unsafe.Add(v, f.offset)
				x, ok := int64(0), false
				if f.plan.wide { // a call of its decode would double the time
					x, ok = d.short()
				}
				if ok {
					*(*int64)(at) = x
				} else if err := f.plan.decode(d, at); err != nil {
					return within(err, -1, f.name)
				}
			} else if err := d.skip(); err != nil {
				return err
			}
			if i, b := d.i, d.b; i < len(b) && b[i] == ',' {
				d.i = i + 1
			} else if i < len(b) && b[i] == '}' {
				d.i, d.depth, more = i+1, d.depth-1, false
			} else {
				more, err = d.more('}')
			}
		}
		if d.mode != lenient && err == nil && (^seen.low&mandatory[d.mode] != 0 || len(fields) > 64) {
			err = missing(fields, &seen, d.mode)
		}
		return err
	}
	p.schema = func(s *schema, _ []keyword) {
		s.raw(`{"type":"object","properties":{`)
		for i := range fields {
			if i > 0 {
				s.raw(",")
			}
			f := &fields[i]
			s.raw(f.prefix)
			s.plan(f.plan, f.notes, f.limits)
		}
		s.raw("}")
		if s.input {
			s.closed(fields)
		}
	}
	return ""
}

// required reports whether a decoder insists on the member.
func (f *field) required(mode mode) bool {
	switch mode {
	case asInput:
		return !f.optional && f.plan.typ.Kind() != reflect.Pointer
	case asWhole:
		return f.skip == nil
	}
	return false
}

// missing returns an error that names the first required member that was not seen.
func missing(fields []field, seen *marks, mode mode) error {
	for i := range fields {
		if f := &fields[i]; !seen.has(i) && f.required(mode) {
			return within(ErrMissing, -1, f.name)
		}
	}
	return nil
}

// marks is a set of small numbers.
type marks struct {
	low  uint64
	more map[int]bool // numbers from 64
}

// add adds i, and reports whether it was not in the set.
func (m *marks) add(i int) bool {
	if m.has(i) {
		return false
	}
	if i < 64 {
		m.low |= 1 << i
		return true
	}
	if m.more == nil {
		m.more = map[int]bool{}
	}
	m.more[i] = true
	return true
}

func (m *marks) has(i int) bool {
	if i < 64 {
		return m.low&(1<<i) != 0
	}
	return m.more[i]
}

// fields lists the members of a struct type at an offset, with those of embedded structs.
func (m *Maker) fields(t reflect.Type, offset uintptr, depth int) (all []field, problem string) {
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, hasTag := sf.Tag.Lookup("json")
		name, options, _ := strings.Cut(tag, ",")
		if tag == "-" {
			continue
		}
		if sf.Anonymous && name == "" && sf.Type.Kind() == reflect.Struct && !isText(sf.Type) {
			if wordsIn(sf.Tag, new([len(words)]string)) != 0 {
				return nil, "field " + t.String() + "." + sf.Name + " is embedded, so its tags describe no member"
			}
			inner, problem := m.fields(sf.Type, offset+sf.Offset, depth+1)
			if problem != "" {
				return nil, problem
			}
			all = append(all, inner...)
			continue
		}
		if sf.Anonymous && name == "" && sf.Type.Kind() == reflect.Pointer {
			return nil, t.String() + " embeds the pointer " + sf.Type.String() +
				"; embed what it points to, or give it a name"
		}
		if !sf.IsExported() {
			continue
		}
		plan, problem := m.plan(sf.Type)
		if problem != "" {
			return nil, "field " + t.String() + "." + sf.Name + ": " + problem
		}
		if strings.Contains(","+options+",", ",string,") {
			return nil, "field " + t.String() + "." + sf.Name + `: the json option "string" is not supported`
		}
		tagged := hasTag && name != ""
		if !tagged {
			name = sf.Name
		}
		all = append(all, field{
			name: name, prefix: string(append(appendString(nil, name), ':')), offset: offset + sf.Offset,
			plan: plan, depth: depth, tagged: tagged,
		})
		f := &all[len(all)-1]
		f.omit(sf.Type, options)
		if problem := m.describe(f, sf.Tag); problem != "" {
			return nil, "field " + t.String() + "." + sf.Name + ": " + problem
		}
	}
	return all, ""
}

// dominant resolves equal names as Go does: the least deeply embedded field wins, then the
// tagged one. If two are equal in both, none is kept.
func dominant(all []field) []field {
	var kept []field
	for i, f := range all {
		wins := true
		for j, g := range all {
			if i == j || f.name != g.name {
				continue
			}
			if g.depth < f.depth || g.depth == f.depth && (g.tagged || !f.tagged) {
				wins = g.depth == f.depth && f.tagged && !g.tagged
				if !wins {
					break
				}
			}
		}
		if wins {
			kept = append(kept, f)
		}
	}
	return kept
}

// Lost names a field of t, at any depth, that JSON would lose because it is not exported. A
// field with the tag "-" is left out on purpose, and does not count. It returns "" if there
// is no such field.
func Lost(t reflect.Type) string { return lost(t, map[reflect.Type]bool{}) }

func lost(t reflect.Type, seen map[reflect.Type]bool) string {
	if seen[t] || isText(t) {
		return ""
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return lost(t.Elem(), seen)
	case reflect.Struct:
	default:
		return ""
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		// The exported fields of an embedded struct are the outer struct's own.
		embedded := f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct
		switch {
		case tag == "-" || f.Name == "_" || f.Type.Size() == 0: // left out on purpose, or holds nothing
		case !f.IsExported() && !embedded:
			return t.String() + "." + f.Name
		default:
			if name := lost(f.Type, seen); name != "" {
				return name
			}
		}
	}
	return ""
}

// setWords sets what starts compares. head is the first eight bytes of prefix; mask selects
// the bytes that a shorter prefix has; tail is the last eight bytes of a longer one. In a
// guest, comparing byte by byte takes as long as reading a small number.
func (f *field) setWords() {
	if n := len(f.prefix); n < 8 {
		f.mask = 1<<(8*n) - 1
		f.head = le64([]byte(f.prefix + "\x00\x00\x00\x00\x00\x00\x00\x00"))
	} else {
		f.mask = ^uint64(0)
		f.head, f.tail = le64([]byte(f.prefix)), le64([]byte(f.prefix[n-8:]))
	}
}

// starts reads the name of f and the colon if the input continues with exactly these bytes,
// and reports whether it did.
func (d *decoder) starts(f *field) bool {
	n := len(f.prefix)
	b := d.b[d.i:]
	switch {
	case len(b) < 8 || n > 16:
		return d.prefix(f.prefix)
	case (le64(b)^f.head)&f.mask != 0:
		return false
	case n > 8 && (len(b) < n || le64(b[n-8:]) != f.tail):
		return false
	}
	d.i += n
	return true
}

func le64(b []byte) uint64 {
	_ = b[7]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}
