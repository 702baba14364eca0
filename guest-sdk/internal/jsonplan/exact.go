package jsonplan

import (
	"bytes"
	"reflect"
	"strings"
)

// Exactness compares a value with what decoding its encoding gives.
type Exactness uint8

const (
	// Unlike: it may be another value, or refer to other memory. Slices, maps and pointers
	// share memory with the value that was encoded, and their decoding does not; a type with
	// a text form may write anything; and a field may not be written at all.
	Unlike Exactness = iota
	// ExactText: the same value, if [Replaced] finds nothing in the encoding.
	ExactText
	// Exact: always the same value.
	Exact
)

// Exactness is the exactness that holds for all values of the type that can be encoded.
func (p *Plan) Exactness() Exactness { return exactness(p.typ) }

func exactness(t reflect.Type) Exactness {
	if isText(t) {
		return Unlike
	}
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64: // written with enough digits, and with the sign of zero
		return Exact
	case reflect.String:
		return ExactText
	case reflect.Array:
		return exactness(t.Elem())
	case reflect.Struct:
		return exactFields(t, map[string]bool{})
	}
	return Unlike
}

// exactFields is the lowest exactness of a struct's fields. names are the names so far: of two
// fields with one name, at least one is not written.
func exactFields(t reflect.Type, names map[string]bool) Exactness {
	lowest := Exact
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Name != "_" {
			lowest = min(lowest, exactField(f, names))
		}
	}
	return lowest
}

func exactField(f reflect.StructField, names map[string]bool) Exactness {
	tag := f.Tag.Get("json")
	name, options, _ := strings.Cut(tag, ",")
	switch {
	case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct && !isText(f.Type):
		return exactFields(f.Type, names)
	case tag == "-" || !f.IsExported():
		if f.Type.Size() == 0 {
			return Exact // there is nothing to write
		}
		return Unlike
	case name == "":
		name = f.Name
	}
	if names[name] {
		return Unlike
	}
	names[name] = true
	var member field
	if member.omit(f.Type, options); member.skip == nil {
		return exactness(f.Type)
	}
	// A member that is left out is decoded as zero. Its value may be something else: minus
	// zero, or a value for which a method IsZero says true.
	switch f.Type.Kind() {
	case reflect.Float32, reflect.Float64, reflect.Array, reflect.Struct:
		return Unlike
	}
	if has[isZeroer](f.Type) {
		return Unlike
	}
	return exactness(f.Type)
}

// Replaced reports whether [Plan.Append] has replaced bytes that were not UTF-8, so that b says
// something else than the value.
func Replaced(b []byte) bool {
	for {
		i := bytes.Index(b, []byte(replaced))
		if i < 0 {
			return false
		}
		// An escaped backslash followed by "ufffd" differs only in the number of backslashes.
		before := 0
		for before < i && b[i-1-before] == '\\' {
			before++
		}
		if before%2 == 0 {
			return true
		}
		b = b[i+len(replaced):]
	}
}
