package conform

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// sampleOf makes up a value that fits a JSON Schema, as far as its common words
// go. For a schema it cannot follow the value may not fit; the kit then gets
// rejections, which are answers too.
func sampleOf(schema string) (json.RawMessage, bool) {
	var root any
	if schema == "" || json.Unmarshal([]byte(schema), &root) != nil {
		return nil, false
	}
	s := sampler{root: root}
	b, err := json.Marshal(s.value(root, 0))
	return b, err == nil
}

type sampler struct{ root any }

func (s sampler) value(schema any, depth int) any {
	const deepest = 12 // of schemas that contain themselves
	m, ok := schema.(map[string]any)
	if !ok || depth > deepest {
		return nil
	}
	for _, word := range []string{"const", "default"} {
		if v, ok := m[word]; ok {
			return v
		}
	}
	for _, word := range []string{"examples", "enum"} {
		if list, ok := m[word].([]any); ok && len(list) > 0 {
			return list[0]
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
		return n
	case "string":
		n := 1.0
		if low, ok := m["minLength"].(float64); ok && low > n && low < 4096 {
			n = low
		}
		return strings.Repeat("a", int(n))
	case "boolean":
		return true
	}
	return nil
}

// resolve follows a reference within the document.
func (s sampler) resolve(ref string) any {
	at := s.root
	path, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return nil
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

func typeOf(m map[string]any) string {
	switch t := m["type"].(type) {
	case string:
		return t
	case []any: // several: the first that is not null
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

// bodies are the bodies tried for a command or query: the caller's, the one made
// up, and the empty object.
func (k *kit) bodies(name, schema string) [][]byte {
	var out [][]byte
	for _, b := range k.o.Samples[name] {
		out = append(out, b)
	}
	if b, ok := sampleOf(schema); ok {
		out = append(out, b)
	}
	return append(out, []byte(`{}`))
}

// garbage are bodies that fit no type, or hardly any.
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
