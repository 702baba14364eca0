package jsonplan

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Form describes the JSON of the type as text: the members by name, which of them may be
// missing, their kinds, and how they nest. Types of equal form read each other's encodings,
// see [Plan.DecodeWhole]. The form does not depend on the compiler, the processor or the
// order of the fields.
func (p *Plan) Form() string { return string(p.form(nil, nil)) }

// Fingerprint is a hash of the form. It has 31 bits and the highest bit set, so it is not zero,
// and it differs from the small numbers that people choose. It does without hash/fnv, which every guest would contain.
func (p *Plan) Fingerprint() uint32 {
	h := uint32(2166136261) // FNV-1a
	for _, c := range p.form(nil, nil) {
		h = (h ^ uint32(c)) * 16777619
	}
	return h | 1<<31
}

// form appends the form of p. The types in open enclose it, the outermost first.
func (p *Plan) form(b []byte, open []*Plan) []byte {
	if i := slices.Index(open, p); i >= 0 {
		return strconv.AppendInt(append(b, '^'), int64(len(open)-i), 10) // the type this many levels up
	}
	open = append(open, p)
	t := p.typ
	if isText(t) {
		// The name of the type only, as the text may be anything. Not its package: a main
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
