package jsoncheck

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"iter"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// Decode reads one JSON value that passes [Check] into v, a pointer, like encoding/json does. It is
// stricter: a member must have its exact name, unknown members are refused, and so is null for a
// whole object. The error is an *[Error], or one of v's own types.
func Decode(b []byte, v any) error { return decode(b, v, false) }

// DecodeKnown is Decode for texts that later versions may extend: unknown members are ignored,
// unless their names differ from a known one only in case.
func DecodeKnown(b []byte, v any) error { return decode(b, v, true) }

func decode(b []byte, v any, ignore bool) error {
	if err := Check(b); err != nil {
		return err
	}
	value, t := b[skipSpace(b, 0):], reflect.TypeOf(v).Elem()
	if value[0] == 'n' && (t.Kind() == reflect.Struct || t.Kind() == reflect.Map) {
		return &Error{Fault: Unfit, What: "it is null; it should be a JSON object"}
	}
	if name := unknown(value, t, ignore); name != "" {
		return &Error{Fault: Unknown, What: name}
	}
	err := json.Unmarshal(b, v)
	var wrong *json.UnmarshalTypeError
	switch {
	case !errors.As(err, &wrong):
		return err
	case wrong.Field == "":
		return &Error{Fault: Unfit, What: "it is " + article(wrong.Value) + "; it should be " +
			strings.Replace(wanted(wrong.Type), "an object", "a JSON object", 1)}
	}
	return &Error{Fault: Unfit, What: wrong.Field + " is " + article(wrong.Value) + "; it takes " + wanted(wrong.Type)}
}

// article turns encoding/json's description of a value into a phrase. It is given "string" or
// "number -2".
func article(value string) string {
	switch value {
	case "object", "array":
		return "an " + value
	case "bool":
		return "true or false"
	}
	if number, ok := strings.CutPrefix(value, "number "); ok {
		return number
	}
	return "a " + value
}

// wanted describes the values that a type accepts.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return "a whole number from 0 on"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a string in base64"
		}
		return "an array"
	}
	return "an object"
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// unknown returns, quoted, the name of a member of b that a value of type t has no field for, or ""
// if there is none that must be refused. b has passed Check.
func unknown(b []byte, t reflect.Type, ignore bool) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if p := reflect.PointerTo(t); p.Implements(unmarshaler) || p.Implements(textUnmarshaler) {
		return "" // the type decodes itself
	}
	switch kind := t.Kind(); {
	case kind == reflect.Struct && b[0] == '{':
		known := membersOf(t)
		for name, value := range Members(b) {
			text := name[1 : len(name)-1]
			if bytes.IndexByte(text, '\\') >= 0 {
				text = appendPlain(nil, text)
			}
			of, ok := known[string(text)]
			if !ok {
				hint := otherwise(known, string(text))
				if ignore && hint == "" {
					continue
				}
				return shown(name) + hint
			}
			if strange := unknown(value, of, ignore); strange != "" {
				return strange
			}
		}
	case kind == reflect.Map && b[0] == '{':
		for _, value := range Members(b) {
			if strange := unknown(value, t.Elem(), ignore); strange != "" {
				return strange
			}
		}
	case kind == reflect.Slice && b[0] == '[':
		for value := range elements(b) {
			if strange := unknown(value, t.Elem(), ignore); strange != "" {
				return strange
			}
		}
	}
	return ""
}

// otherwise says how a name is written that differs in case only.
func otherwise(known map[string]reflect.Type, name string) string {
	for k := range known {
		if strings.EqualFold(k, name) {
			return "; it is written " + strconv.Quote(k)
		}
	}
	return ""
}

var memberCache sync.Map // of maps from names to types, by the type of a struct; there are few

// membersOf returns the members of a struct by their JSON names.
func membersOf(t reflect.Type) map[string]reflect.Type {
	if m, ok := memberCache.Load(t); ok {
		return m.(map[string]reflect.Type)
	}
	m := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || f.Anonymous && name == "" || !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		m[name] = f.Type
	}
	memberCache.Store(t, m)
	return m
}

// Members are the members of a JSON object that has passed [Check] and has no space around it, in
// order: the name as it is written, with its quotes, and the value.
func Members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for at := skipSpace(object, 1); object[at] != '}'; {
			from := at
			at = skipString(object, at)
			name := object[from:at]
			at = skipSpace(object, skipSpace(object, at)+1) // the colon
			from = at
			at = skipValue(object, at)
			if !yield(name, object[from:at]) {
				return
			}
			if at = skipSpace(object, at); object[at] == ',' {
				at = skipSpace(object, at+1)
			}
		}
	}
}

// elements are the elements of such an array.
func elements(array []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for at := skipSpace(array, 1); array[at] != ']'; {
			from := at
			at = skipValue(array, at)
			if !yield(array[from:at]) {
				return
			}
			if at = skipSpace(array, at); array[at] == ',' {
				at = skipSpace(array, at+1)
			}
		}
	}
}

// skipSpace, skipValue and skipString find the end of white space, of a value and of a string in
// JSON that is valid.
func skipSpace(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\n' || b[at] == '\r') {
		at++
	}
	return at
}

func skipValue(b []byte, at int) int {
	depth := 0
	for {
		switch c := b[at]; c {
		case '"':
			at = skipString(b, at)
		case '{', '[':
			depth++
			at++
		case '}', ']':
			depth--
			at++
		case ',', ':', ' ', '\t', '\n', '\r':
			at++
		default: // a number, true, false or null
			for at < len(b) && !endsScalar(b[at]) {
				at++
			}
		}
		if depth == 0 {
			return at
		}
	}
}

func endsScalar(c byte) bool {
	switch c {
	case ',', '}', ']', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}

func skipString(b []byte, at int) int {
	for at++; ; at++ {
		switch b[at] {
		case '"':
			return at + 1
		case '\\':
			at++
		}
	}
}
