//go:build !wasip1

package jsonplan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Fits checks a value against a schema of a plan, as a host does before a module runs. It knows the keywords
// that plans write, and no others. It is for tests: in a module it does nothing.
func Fits(schema string, value []byte) error {
	s, err := parsed([]byte(schema))
	if err != nil {
		return fmt.Errorf("the schema: %w", err)
	}
	v, err := parsed(value)
	if err != nil {
		return ErrSyntax
	}
	f := fitter{anchors: map[string]any{}}
	f.collect(s)
	return f.value(s, v, "")
}

// unreadable says why a pattern is not a regular expression, or returns "".
func unreadable(pattern string) string {
	if _, err := regexp.Compile(pattern); err != nil {
		return "is not a regular expression: " + err.Error()
	}
	return ""
}

// parsed decodes JSON, with numbers as they are written.
func parsed(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, ErrSyntax
	}
	return v, nil
}

// fitter checks values against the parts of one schema.
type fitter struct{ anchors map[string]any }

func (f *fitter) collect(v any) {
	switch v := v.(type) {
	case map[string]any:
		if name, ok := v["$anchor"].(string); ok {
			f.anchors["#"+name] = v
		}
		for _, x := range v {
			f.collect(x)
		}
	case []any:
		for _, x := range v {
			f.collect(x)
		}
	}
}

// value checks a value at a place, which is a JSON Pointer.
func (f *fitter) value(schema, v any, at string) error {
	if ref, ok := kept[string](schema, "$ref"); ok {
		if err := f.value(f.anchors[ref], v, at); err != nil {
			return err
		}
	}
	all, _ := kept[[]any](schema, "allOf")
	for _, s := range all {
		if err := f.value(s, v, at); err != nil {
			return err
		}
	}
	if err := f.alternatives(schema, v, at); err != nil {
		return err
	}
	if problem := f.alone(schema, v); problem != "" {
		return fmt.Errorf("%s %s", wherein(at), problem)
	}
	switch v := v.(type) {
	case map[string]any:
		return f.object(schema, v, at)
	case []any:
		return f.list(schema, v, at)
	}
	return nil
}

func wherein(at string) string {
	if at == "" {
		return "the data"
	}
	return at
}

// kept is a member of a schema, if it is there and of that type.
func kept[T any](schema any, name string) (v T, ok bool) {
	m, _ := schema.(map[string]any)
	v, ok = m[name].(T)
	return v, ok
}

func (f *fitter) alternatives(schema, v any, at string) error {
	list, ok := kept[[]any](schema, "anyOf")
	if !ok {
		return nil
	}
	var first error
	for _, s := range list {
		err := f.value(s, v, at)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// alone checks a value without what is in it.
func (f *fitter) alone(schema, v any) (problem string) {
	if problem = mistyped(schema, v); problem != "" {
		return problem
	}
	if list, ok := kept[[]any](schema, "enum"); ok &&
		!slices.ContainsFunc(list, func(x any) bool { return reflect.DeepEqual(x, v) || same(x, v) }) {
		return fmt.Sprintf("is none of %v", list)
	}
	switch v := v.(type) {
	case json.Number:
		return misnumbered(schema, v)
	case string:
		return mistexted(schema, v)
	case []any:
		return miscounted(schema, len(v), "minItems", "maxItems", "elements")
	case map[string]any:
		return miscounted(schema, len(v), "minProperties", "maxProperties", "members")
	}
	return ""
}

func mistyped(schema, v any) string {
	types, several := kept[[]any](schema, "type")
	if !several {
		one, ok := kept[string](schema, "type")
		if !ok {
			return ""
		}
		types = []any{one}
	}
	is := typeOf(v)
	for _, t := range types {
		if t == is || t == "number" && is == "integer" {
			return ""
		}
	}
	return fmt.Sprintf("is of type %s, not %v", is, types)
}

func typeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case json.Number:
		if x := exact(v); x == nil || !x.IsInt() {
			return "number"
		}
		return "integer"
	}
	return "object"
}

// exact is a number, or nil if it is too large or too small to be expanded.
func exact(n json.Number) *big.Rat {
	const maxExponent = 400
	mantissa, exponent, _ := strings.Cut(strings.ToLower(string(n)), "e")
	if e, err := strconv.Atoi(exponent); exponent != "" && (err != nil || e > maxExponent || e < -maxExponent) {
		return nil
	}
	if len(mantissa) > 2*maxExponent {
		return nil
	}
	x, _ := new(big.Rat).SetString(string(n))
	return x
}

// same compares numbers that are written in different ways.
func same(a, b any) bool {
	x, ok := a.(json.Number)
	y, also := b.(json.Number)
	if !ok || !also {
		return false
	}
	p, q := exact(x), exact(y)
	return p != nil && q != nil && p.Cmp(q) == 0
}

func misnumbered(schema any, n json.Number) string {
	x := exact(n)
	if x == nil {
		return "is a number that is not checked here"
	}
	for _, bound := range []struct {
		name, words string
		wrong       func(order int) bool
	}{
		{"minimum", "less than", func(o int) bool { return o < 0 }},
		{"maximum", "more than", func(o int) bool { return o > 0 }},
		{"exclusiveMinimum", "not above", func(o int) bool { return o <= 0 }},
		{"exclusiveMaximum", "not below", func(o int) bool { return o >= 0 }},
	} {
		limit, ok := kept[json.Number](schema, bound.name)
		if ok && bound.wrong(x.Cmp(exact(limit))) {
			return fmt.Sprintf("is %s, %s %s", n, bound.words, limit)
		}
	}
	by, ok := kept[json.Number](schema, "multipleOf")
	if ok && !new(big.Rat).Quo(x, exact(by)).IsInt() {
		return fmt.Sprintf("is %s, not a multiple of %s", n, by)
	}
	return ""
}

func mistexted(schema any, text string) string {
	if problem := miscounted(schema, utf8.RuneCountInString(text), "minLength", "maxLength", "characters"); problem !=
		"" {
		return problem
	}
	pattern, ok := kept[string](schema, "pattern")
	if !ok {
		return ""
	}
	r, err := regexp.Compile(pattern)
	if err != nil {
		return err.Error()
	}
	if !r.MatchString(text) {
		return fmt.Sprintf("is %q, which does not match %s", text, pattern)
	}
	return ""
}

func miscounted(schema any, n int, low, high, what string) string {
	bound := func(name string) (int, bool) {
		text, ok := kept[json.Number](schema, name)
		limit, err := strconv.Atoi(string(text))
		return limit, ok && err == nil
	}
	if limit, ok := bound(low); ok && n < limit {
		return fmt.Sprintf("has %d %s, less than %d", n, what, limit)
	}
	if limit, ok := bound(high); ok && n > limit {
		return fmt.Sprintf("has %d %s, more than %d", n, what, limit)
	}
	return ""
}

func (f *fitter) object(schema any, v map[string]any, at string) error {
	required, _ := kept[[]any](schema, "required")
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			return fmt.Errorf("%s/%s is missing", at, name)
		}
	}
	known, _ := kept[map[string]any](schema, "properties")
	for _, name := range slices.Sorted(maps.Keys(v)) {
		x := v[name]
		s, ok := known[name]
		if !ok {
			if s, ok = kept[any](schema, "additionalProperties"); !ok {
				continue
			}
			if s == false {
				return fmt.Errorf("%s/%s is unknown", at, name)
			}
		}
		if err := f.value(s, x, at+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

func (f *fitter) list(schema any, v []any, at string) error {
	if unique, _ := kept[bool](schema, "uniqueItems"); unique {
		for i := range v {
			for j := range i {
				if reflect.DeepEqual(v[i], v[j]) || same(v[i], v[j]) {
					return errors.New(wherein(at) + " has an element twice")
				}
			}
		}
	}
	items, ok := kept[any](schema, "items")
	if !ok {
		return nil
	}
	for i, x := range v {
		if err := f.value(items, x, at+"/"+strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return nil
}
