package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSchemasInShort(t *testing.T) {
	for schema, want := range map[string]string{
		`{"type":"object","properties":{}}`:                                                                                      `{}`,
		`{"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"string"}}}`:                                          `{a: string, b: integer}`,
		`{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"array","items":{"type":"number"}}},"required":["a"]}`: `{a: string, b?: [number]}`,
		`{"type":"object","additionalProperties":{"type":"object","properties":{"at":{"type":"string","format":"date-time"}}}}`:  `{…: {at: date-time}}`,
		`{"type":"object","properties":{"x":{}},"required":[],"additionalProperties":false}`:                                     `{x?: any}`,
		`{"type":["string","null"]}`:                            `string|null`,
		`{"enum":["a",1]}`:                                      `"a"|1`,
		`{"type":"array"}`:                                      `array`,
		`{"oneOf":[{"type":"string"}]}`:                         `{"oneOf":[{"type":"string"}]}`,
		`{"type":"object","properties":1}`:                      `{"type":"object","properties":1}`,
		`{"type":"string","title":"A","description":"b\u001b"}`: `string  A  b\x1b`,
		`no JSON`: `no JSON`,
		"{\"type\":\"object\",\"properties\":{\"\u202ex\":{\"type\":\"string\"}}}": `{\u202ex: string}`,
	} {
		if got := schemaText([]byte(schema)); got != want {
			t.Errorf("%s is shown as %s, want %s", schema, got, want)
		}
	}
	deep := strings.Repeat(`{"type":"array","items":`, 100) + `{}` + strings.Repeat(`}`, 100)
	if got := schemaText([]byte(deep)); got != deep {
		t.Errorf("a deep schema is shown as %s", got)
	}
}

// Any schema of a module is shown in one line, and is harmless.
func FuzzSchemaText(f *testing.F) {
	for _, seed := range []string{`{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}`, `{"enum":["\u001b"]}`, `{"type":["a\n"]}`, `{"type":"string","format":"\u202e"}`, "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, schema string) {
		if got := schemaText([]byte(schema)); !utf8.ValidString(got) {
			t.Errorf("%q is shown as %q", schema, got)
		} else {
			harmless(t, "the schema", got)
		}
	})
}
