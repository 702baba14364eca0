package schema

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// Sample makes a value that fits a schema, as far as it knows the schema's keywords; [Schema.Check]
// says whether it does. Its members are in the order of the schema. Values of different variants, from
// 0, differ if the schema allows it. ok is false if the text is not a schema within the bounds of this
// package.
func Sample(text string, variant int) (value []byte, ok bool) {
	if text == "" || len(text) > MaxBytes {
		return nil, false
	}
	root, err := Parse(text, MaxValues, MaxDepth)
	if err != nil {
		return nil, false
	}
	s := sampler{refs: Refs{Root: root}, variant: variant, left: maxSampled, bytes: maxSampleBytes}
	return AppendJSON(nil, s.value(root, 0)), true
}

// Bounds of a sample: levels, as schemas may contain themselves; values; bytes of names and of values that the
// schema has; characters of a text; elements of an array.
const (
	maxSampleDepth = 12
	maxSampled     = 1_000
	maxSampleBytes = MaxBytes
	maxSampleText  = 4_096
	maxSampleList  = 16
)

type sampler struct {
	refs    Refs
	variant int
	left    int // values that may still be made
	bytes   int // of given values and of names, likewise
}

func (s *sampler) value(schema any, depth int) any {
	m, ok := schema.(*Object)
	if s.left--; !ok || depth > maxSampleDepth || s.left < 0 || s.bytes < 0 {
		return nil
	}
	if v, ok := s.given(m); ok {
		if s.bytes -= len(AppendJSON(nil, v)); s.bytes < 0 {
			return nil
		}
		return v
	}
	if ref, ok := get[string](m, "$ref"); ok {
		part, _ := s.refs.Follow(ref)
		return s.value(part, depth+1)
	}
	for _, word := range []string{"anyOf", "oneOf", "allOf"} {
		if list, ok := get[[]any](m, word); ok && len(list) > 0 {
			return s.alternative(list, depth)
		}
	}
	switch typeIn(m) {
	case "object":
		return s.object(m, depth)
	case "array":
		return s.list(m, depth)
	case "integer", "number":
		return s.number(m)
	case "string":
		return s.text(m)
	case "boolean":
		return s.variant%2 == 0
	}
	return nil
}

// given is a value that the schema itself has.
func (s *sampler) given(m *Object) (any, bool) {
	if v, ok := m.Get("const"); ok {
		return v, true
	}
	for _, word := range []string{"examples", "enum"} {
		if list, ok := get[[]any](m, word); ok && len(list) > 0 {
			return list[s.variant%len(list)], true
		}
	}
	return m.Get("default")
}

// alternative is a value of one of several schemas: of the first, or near the greatest depth, where a
// schema may contain itself, null if that is one of them.
func (s *sampler) alternative(list []any, depth int) any {
	const deep = 3 // levels that a sample of a recursive schema has
	if depth > deep {
		for _, one := range list {
			if m, ok := one.(*Object); ok && m.values["type"] == "null" {
				return nil
			}
		}
	}
	return s.value(list[0], depth+1)
}

func (s *sampler) object(m *Object, depth int) any {
	out := &Object{}
	props, _ := get[*Object](m, "properties")
	if props != nil {
		for _, name := range props.Names {
			if s.bytes -= len(name); s.bytes < 0 {
				return nil
			}
			out.Set(name, s.value(props.values[name], depth+1))
		}
	}
	rest, _ := get[*Object](m, "additionalProperties")
	low := count64(m, "minProperties")
	for i := len(out.Names); rest != nil && i < min(max(low, 1), maxSampleList); i++ {
		out.Set("key"+strconv.Itoa(i+1), s.value(rest, depth+1))
	}
	return out
}

func (s *sampler) list(m *Object, depth int) any {
	const deep = 6
	n := min(max(count64(m, "minItems"), 1), maxSampleList)
	if high, ok := get[json.Number](m, "maxItems"); ok && high == "0" || depth > deep && count64(m, "minItems") == 0 {
		n = 0
	}
	list := []any{}
	first, _ := get[[]any](m, "prefixItems")
	items, _ := m.Get("items")
	variant := s.variant
	defer func() { s.variant = variant }()
	for i := range max(n, len(first)) {
		if i < len(first) {
			list = append(list, s.value(first[i], depth+1))
			continue
		}
		list = append(list, s.value(items, depth+1))
		s.variant++ // elements may have to be unique
	}
	return list
}

// count64 is a keyword that counts, or 0.
func count64(m *Object, word string) int {
	n, _ := get[json.Number](m, word)
	x, err := strconv.ParseUint(string(n), 10, 31)
	if err != nil {
		return 0
	}
	return int(x)
}

func (s *sampler) number(m *Object) any {
	float := func(word string) (float64, bool) {
		n, ok := get[json.Number](m, word)
		x, err := n.Float64()
		return x, ok && err == nil
	}
	n, step := 1.0, 1.0
	if by, ok := float("multipleOf"); ok && by > 0 {
		n, step = by, by
	}
	high, bounded := float("maximum")
	below, strictly := float("exclusiveMaximum")
	if bounded && n > high {
		n = high
	} else if strictly && n >= below {
		n = below - step
	}
	if low, ok := float("minimum"); ok && low > n {
		n = math.Ceil(low/step) * step
	}
	if low, ok := float("exclusiveMinimum"); ok && low >= n {
		n = math.Floor(low/step)*step + step
		if (bounded && n > high || strictly && n >= below) && typeIn(m) == "number" {
			n = (low + max(high, below)) / 2
		}
	}
	// Not ever larger values, as large withdrawals would always be refused.
	if more := float64(s.variant%7) * step; (!bounded || n+more <= high) && (!strictly || n+more < below) {
		n += more
	}
	if math.IsInf(n, 0) || math.IsNaN(n) {
		n = 1
	}
	return json.Number(strconv.FormatFloat(n, 'f', -1, 64))
}

// formats are texts of known formats.
var formats = map[string]string{
	"date": "2026-01-02", "time": "03:04:05Z", "duration": "PT1H",
	"email": "ada@example.org", "idn-email": "ada@example.org",
	"hostname": "example.org", "idn-hostname": "example.org",
	"ipv4": "192.0.2.1", "ipv6": "2001:db8::1", "ip": "192.0.2.1", "ip-port": "192.0.2.1:80", "cidr": "192.0.2.0/24",
	"uri": "https://example.org/", "iri": "https://example.org/", "uri-reference": "/", "iri-reference": "/",
	"uuid": "123e4567-e89b-12d3-a456-426614174000", "json-pointer": "/a", "regex": "a",
}

func (s *sampler) text(m *Object) any {
	format, _ := get[string](m, "format")
	encoding, _ := get[string](m, "contentEncoding")
	switch {
	case format == "date-time":
		return time.Date(2026, 1, 2, 3, 4, 5+s.variant, 0, time.UTC).Format(time.RFC3339)
	case encoding == "base64":
		return base64.StdEncoding.EncodeToString([]byte{0, 0xff, byte(s.variant)})
	case formats[format] != "":
		return formats[format]
	}
	n := max(count64(m, "minLength"), 1)
	if n > maxSampleText {
		n = 1
	}
	if high, ok := get[json.Number](m, "maxLength"); ok && high == "0" {
		n = 0
	}
	// A few letters, not all of one byte.
	letters := []string{"a", "b", "é", "c", "世", "d"}
	return strings.Repeat(letters[s.variant%len(letters)], n)
}

// typeIn is the type of values that a schema describes: the first that is not null.
func typeIn(m *Object) string {
	t, _ := m.Get("type")
	switch t := t.(type) {
	case string:
		return t
	case []any:
		for _, x := range t {
			if name, ok := x.(string); ok && name != "null" {
				return name
			}
		}
	}
	if _, ok := m.Get("properties"); ok {
		return "object"
	}
	return ""
}

// get is a member of a schema, if it is there and of that type.
func get[T any](m *Object, name string) (v T, ok bool) {
	x, _ := m.Get(name)
	v, ok = x.(T)
	return v, ok
}
