package jsonplan

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Form is what the JSON of the type looks like, as text: its members by name, which of
// them may be missing, what they are, and how they nest. Types of equal form read each
// other's encodings, as [Plan.DecodeWhole] does. It is the same in every build, whatever
// the compiler, the processor and the order of the fields.
func (p *Plan) Form() string { return string(p.form(nil, nil)) }

// Fingerprint is a hash of the form, of 31 bits and the highest one set, so that it is
// neither zero nor a number that people choose.
func (p *Plan) Fingerprint() uint32 {
	h := uint32(2166136261) // FNV-1a
	for _, c := range p.form(nil, nil) {
		h = (h ^ uint32(c)) * 16777619
	}
	return h | 1<<31
}

// form appends the form of p, which stands within open, the outermost first.
func (p *Plan) form(b []byte, open []*Plan) []byte {
	if i := slices.Index(open, p); i >= 0 {
		return strconv.AppendInt(append(b, '^'), int64(len(open)-i), 10) // so many levels up
	}
	open = append(open, p)
	t := p.typ
	if isText(t) {
		// Its name, as nothing else is known of the text. Not where it comes from: a main
		// package has another path when it is tested.
		name, _, _ := strings.Cut(t.Name(), "[")
		return append(append(b, "text "...), name...)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return p.elem.form(append(b, '*'), open)
	case reflect.Slice:
		if p.elem == nil {
			return append(b, "bytes"...)
		}
		return append(p.elem.form(append(b, '['), open), ']')
	case reflect.Array:
		b = strconv.AppendInt(append(b, '['), int64(t.Len()), 10)
		return append(p.elem.form(append(b, ' '), open), ']')
	case reflect.Map:
		return append(p.elem.form(append(b, "map["...), open), ']')
	case reflect.Struct:
		return p.formOfMembers(b, open)
	case reflect.Int, reflect.Int64: // a guest's int has 64 bits
		return append(b, "int64"...)
	case reflect.Uint, reflect.Uint64, reflect.Uintptr:
		return append(b, "uint64"...)
	}
	return append(b, t.Kind().String()...)
}

func (p *Plan) formOfMembers(b []byte, open []*Plan) []byte {
	order := make([]*field, len(p.fields))
	for i := range p.fields {
		order[i] = &p.fields[i]
	}
	slices.SortFunc(order, func(a, b *field) int { return strings.Compare(a.name, b.name) })
	b = append(b, '{')
	for _, f := range order {
		b = append(b, f.prefix...)
		if f.skip != nil {
			b = append(b, '?')
		}
		b = append(f.plan.form(b, open), ';')
	}
	return append(b, '}')
}
