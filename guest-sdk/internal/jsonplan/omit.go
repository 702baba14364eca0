package jsonplan

import (
	"reflect"
	"strings"
	"unsafe"
)

// omit sets what the options of a tag say about leaving out a member of type t.
func (f *field) omit(t reflect.Type, options string) {
	has := func(option string) bool { return strings.Contains(","+options+",", ","+option+",") }
	var empty, zero func(unsafe.Pointer) bool
	if has("omitempty") {
		f.optional, empty = true, isEmpty(t)
	}
	if has("omitzero") {
		f.optional, zero = true, isZero(t)
	}
	switch {
	case empty == nil:
		f.skip = zero
	case zero == nil:
		f.skip = empty
	default:
		f.skip = func(v unsafe.Pointer) bool { return empty(v) || zero(v) }
	}
}

// isEmpty is the test of omitempty, as in encoding/json. It is nil for types that have no
// empty value.
func isEmpty(t reflect.Type) func(unsafe.Pointer) bool {
	size := t.Size()
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return func(v unsafe.Pointer) bool { return loadInt(v, size) == 0 }
	case reflect.Float32:
		return func(v unsafe.Pointer) bool { return *(*float32)(v) == 0 }
	case reflect.Float64:
		return func(v unsafe.Pointer) bool { return *(*float64)(v) == 0 }
	case reflect.String:
		return func(v unsafe.Pointer) bool { return *(*string)(v) == "" }
	case reflect.Pointer:
		return func(v unsafe.Pointer) bool { return *(*unsafe.Pointer)(v) == nil }
	case reflect.Slice:
		return func(v unsafe.Pointer) bool { return (*sliceHeader)(v).len == 0 }
	case reflect.Map:
		return func(v unsafe.Pointer) bool { return reflect.NewAt(t, v).Elem().Len() == 0 }
	case reflect.Array:
		if t.Len() == 0 {
			return func(unsafe.Pointer) bool { return true }
		}
	}
	return nil
}

type isZeroer interface{ IsZero() bool }

// isZero is the test of omitzero, as in encoding/json: the method IsZero if there is one, or
// else whether the value is the type's zero value.
func isZero(t reflect.Type) func(unsafe.Pointer) bool {
	switch {
	case t.Kind() == reflect.Pointer && t.Implements(reflect.TypeFor[isZeroer]()):
		return func(v unsafe.Pointer) bool {
			return *(*unsafe.Pointer)(v) == nil || reflect.NewAt(t, v).Elem().Interface().(isZeroer).IsZero()
		}
	case t.Kind() != reflect.Pointer && has[isZeroer](t):
		return func(v unsafe.Pointer) bool { return reflect.NewAt(t, v).Interface().(isZeroer).IsZero() }
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Map, reflect.Array, reflect.Struct:
		return func(v unsafe.Pointer) bool { return reflect.NewAt(t, v).Elem().IsZero() }
	}
	return isEmpty(t) // the other types are empty only if they are zero
}
