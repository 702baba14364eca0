package jsonplan

import (
	"bytes"
	"reflect"
	"strings"
)

// Exactness says what decoding the encoding of a value gives.
type Exactness uint8

const (
	// Unlike: maybe another value, or one that refers to other memory. Slices, maps and
	// pointers are shared with what the value was made of, and their decoding is not; a
	// type with a text form says what it likes; and a field may not be written at all.
	Unlike Exactness = iota
	// ExactText: the same value, if [Replaced] does not find anything in the encoding.
	ExactText
	// Exact: always the same value.
	Exact
)

// Exactness is what it is for all values of the type that can be encoded.
func (p *Plan) Exactness() Exactness { return exactness(p.typ) }

func exactness(t reflect.Type) Exactness {
	if isText(t) {
		return Unlike
	}
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64: // as many digits as it takes, and the sign of zero
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

// exactFields is the least exactness of a struct's fields. Of two with one name, one at
// least is not written.
func exactFields(t reflect.Type, names map[string]bool) Exactness {
	least := Exact
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Name != "_" {
			least = min(least, exactField(f, names))
		}
	}
	return least
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
	// What is left out is decoded as zero. It may be something else: minus zero, or what a
	// method IsZero says.
	switch f.Type.Kind() {
	case reflect.Float32, reflect.Float64, reflect.Array, reflect.Struct:
		return Unlike
	}
	if has[isZeroer](f.Type) {
		return Unlike
	}
	return exactness(f.Type)
}

// Replaced reports whether a string in what [Plan.Append] has written was not UTF-8, so
// that it says something else.
func Replaced(b []byte) bool {
	for {
		i := bytes.Index(b, []byte(replaced))
		if i < 0 {
			return false
		}
		// An escaped backslash and "ufffd" look alike but for the number of backslashes.
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
