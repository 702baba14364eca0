package schema

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestSamples(t *testing.T) {
	for schema, want := range map[string]string{
		`{"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"string","minLength":3}}}`: `{"b":1,` +
			`"a":"aaa"}`,
		`{"$ref":"#/$defs/x","$defs":{"x":{"type":"array","items":{"enum":["one","two"]}}}}`: `["one"]`,
		`{"type":["null","boolean"]}`:            `true`,
		`{"type":"number","exclusiveMinimum":5}`: `6`,
		`{"anyOf":[{"const":7}]}`:                `7`,
		`{"$ref":"#"}`:                           `null`,
		`{"$ref":"http://elsewhere"}`:            `null`,
		`true`:                                   `null`,
		`{"type":"object","properties":[1],"required":"x"}`: `{}`,
	} {
		got, ok := Sample(schema, 0)
		if !ok || string(got) != want {
			t.Errorf("%s: got %s, want %s", schema, got, want)
		}
	}
	for _, schema := range []string{"", "{"} {
		if got, ok := Sample(schema, 0); ok {
			t.Errorf("%q: got %s", schema, got)
		}
	}
}

// Samples of schemas with the usual keywords fit them.
func TestSamplesFit(t *testing.T) {
	for _, text := range []string{
		`{"type":"object","properties":{"a":{"type":"integer","minimum":3,"maximum":3},"b":{"type":"string","maxLength":0}},` +
			`"required":["a","b"],"additionalProperties":false}`,
		`{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":0.5}`,
		`{"type":"number","minimum":0.3,"multipleOf":0.25}`,
		`{"type":"integer","exclusiveMaximum":-4}`,
		`{"type":"array","items":{"type":"integer"},"minItems":3,"uniqueItems":true}`,
		`{"type":"array","prefixItems":[{"const":1},{"type":"string"}],"items":false}`,
		`{"type":["object","null"],"additionalProperties":{"type":"string"},"minProperties":2}`,
		`{"$anchor":"t1","type":"object","properties":{"next":{"anyOf":[{"$ref":"#t1"},{"type":"null"}]}}}`,
		`{"type":"string","examples":["b"],"default":"a"}`,
		`{"enum":["x",null]}`,
	} {
		s, err := New("command x", text)
		if err != nil {
			t.Fatal(err)
		}
		for variant := range 4 {
			value, ok := Sample(text, variant)
			if !ok {
				t.Fatalf("%s has no sample", text)
			}
			if _, err := s.Check(value, nil); err != nil {
				t.Errorf("%s: %s: %v", text, value, err)
			}
		}
	}
	if got, _ := Sample(`{"type":"string","examples":["b"],"default":"a"}`, 0); string(got) != `"b"` {
		t.Errorf("an author's example goes before the default: %s", got)
	}
}

// A sample is JSON and bounded, whatever the schema is.
func FuzzSample(f *testing.F) {
	for _, seed := range []string{
		`{"$ref":"#/$defs/a","$defs":{"a":{"type":"object","properties":{"` + strings.Repeat("x", 999) +
			`":{"$ref":"#/$defs/a"},"y":{"$ref":"#/$defs/a"}}}}}`,
		`{"$anchor":"a","anyOf":[{"$ref":"#a"}]}`,
		`{"type":"array","minItems":1e9,"items":{"type":"array","minItems":16,"items":{"type":"array","minItems":16}}}`,
		`{"type":"number","multipleOf":1e-300,"minimum":1e300,"exclusiveMaximum":-1e300}`,
		`{"type":"string","minLength":4096,"format":"email"}`, `{"const":1e400}`, `{"$ref":"#/%zz"}`, `{"$ref":"#/a/01"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for variant := range 2 {
			value, ok := Sample(text, variant)
			if ok && !json.Valid(value) {
				t.Errorf("%q: %q is not JSON", text, value)
			}
			if len(value) > 64*maxSampled*4+6*maxSampleBytes+maxSampled*4*maxSampleText {
				t.Errorf("%q: %d bytes", text, len(value))
			}
		}
	})
}
