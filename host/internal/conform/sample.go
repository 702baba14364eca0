package conform

import (
	"strings"

	schemas "github.com/bulkhead-wasm/bulkhead/host/internal/schema"
)

// bodies returns the bodies to try for a command or query: the caller's, one made from the schema, and the
// empty object.
func (k *kit) bodies(name, schema string) [][]byte { return k.bodiesOf(name, schema, 0) }

// bodiesOf is bodies with a variant of the body that is made from the schema.
func (k *kit) bodiesOf(name, schema string, variant int) [][]byte {
	var out [][]byte
	for _, b := range k.o.Samples[name] {
		out = append(out, b)
	}
	if b, ok := schemas.Sample(schema, variant); ok {
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
