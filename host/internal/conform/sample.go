package conform

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// sampleOf makes a value that fits a JSON Schema, as far as it knows the schema's keywords. If it does not
// know them all, the value may not fit, and the answer may be a rejection, which is an answer too. Values of
// different variants, from 0, differ if the schema allows it: a guest that fails to copy a value would not
// be found if the same value were written over it.
func sampleOf(schema string, variant int) (json.RawMessage, bool) {
	var root any
	if schema == "" || json.Unmarshal([]byte(schema), &root) != nil {
		return nil, false
	}
	s := sampler{root: root, variant: variant}
	b, err := json.Marshal(s.value(root, 0))
	return b, err == nil
}

type sampler struct {
	root    any
	variant int
}

func (s sampler) value(schema any, depth int) any {
	const maxDepth = 12 // levels, of schemas that contain themselves
	m, ok := schema.(map[string]any)
	if !ok || depth > maxDepth {
		return nil
	}
	for _, word := range []string{"const", "default"} {
		if v, ok := m[word]; ok {
			return v
		}
	}
	for _, word := range []string{"examples", "enum"} {
		if list, ok := m[word].([]any); ok && len(list) > 0 {
			return list[s.variant%len(list)]
		}
	}
	if ref, ok := m["$ref"].(string); ok {
		return s.value(s.resolve(ref), depth+1)
	}
	for _, word := range []string{"anyOf", "oneOf", "allOf"} {
		if list, ok := m[word].([]any); ok && len(list) > 0 {
			return s.value(list[0], depth+1)
		}
	}
	switch typeOf(m) {
	case "object":
		out := map[string]any{}
		props, _ := m["properties"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(props)) {
			out[name] = s.value(props[name], depth+1)
		}
		return out
	case "array":
		return []any{s.value(m["items"], depth+1)}
	case "integer", "number":
		n := 1.0
		if low, ok := m["minimum"].(float64); ok && low > n {
			n = low
		}
		if low, ok := m["exclusiveMinimum"].(float64); ok && low >= n {
			n = low + 1
		}
		more := float64(s.variant % 7) // not ever larger values, as large withdrawals would always be refused
		if high, ok := m["maximum"].(float64); !ok || n+more <= high {
			n += more
		}
		return n
	case "string":
		return s.text(m)
	case "boolean":
		return s.variant%2 == 0
	}
	return nil
}

func (s sampler) text(m map[string]any) string {
	switch {
	case m["format"] == "date-time":
		return time.Date(2026, 1, 2, 3, 4, 5+s.variant, 0, time.UTC).Format(time.RFC3339)
	case m["contentEncoding"] == "base64":
		return base64.StdEncoding.EncodeToString([]byte{0, 0xff, byte(s.variant)})
	}
	n := 1.0
	if low, ok := m["minLength"].(float64); ok && low > n && low < 4096 {
		n = low
	}
	// A few letters, not all of one byte.
	letters := []string{"a", "b", "é", "c", "世", "d"}
	return strings.Repeat(letters[s.variant%len(letters)], int(n))
}

// resolve follows a reference within the document.
func (s sampler) resolve(ref string) any {
	at := s.root
	path, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return nil
	}
	if path != "" && path[0] != '/' {
		return anchored(s.root, path)
	}
	for _, step := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		if step == "" {
			continue
		}
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(step)]
	}
	return at
}

// anchored finds the part of a schema that has a name.
func anchored(schema any, name string) any {
	switch v := schema.(type) {
	case map[string]any:
		if v["$anchor"] == name {
			return v
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if found := anchored(v[key], name); found != nil {
				return found
			}
		}
	case []any:
		for _, part := range v {
			if found := anchored(part, name); found != nil {
				return found
			}
		}
	}
	return nil
}

func typeOf(m map[string]any) string {
	switch t := m["type"].(type) {
	case string:
		return t
	case []any: // several types: the first that is not null
		for _, x := range t {
			if name, ok := x.(string); ok && name != "null" {
				return name
			}
		}
	}
	if _, ok := m["properties"]; ok {
		return "object"
	}
	return ""
}

// bodies returns the bodies to try for a command or query: the caller's, one made from the schema, and the
// empty object.
func (k *kit) bodies(name, schema string) [][]byte { return k.bodiesOf(name, schema, 0) }

// bodiesOf is bodies with a variant of the body that is made from the schema.
func (k *kit) bodiesOf(name, schema string, variant int) [][]byte {
	var out [][]byte
	for _, b := range k.o.Samples[name] {
		out = append(out, b)
	}
	if b, ok := sampleOf(schema, variant); ok {
		out = append(out, b)
	}
	return append(out, []byte(`{}`))
}

// garbage returns bodies that fit no type, or hardly any.
func garbage() [][]byte {
	return [][]byte{
		nil,
		[]byte("{"),
		[]byte("null"),
		[]byte(`"text"`),
		[]byte("[]"),
		[]byte("-1e999"),
		[]byte("\x00\xff\xfe\x80"),
		[]byte(`{"":{"":[[[[]]]]}}`),
		[]byte(`{} {}`),
		[]byte(`{"a":"\ud800"}`),
		[]byte(strings.Repeat("[", 100_000)),
		[]byte(`{"n":` + strings.Repeat("9", 400) + `}`),
	}
}
