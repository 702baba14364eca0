package describe

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/schema"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// documentOf makes a document and decodes it.
func documentOf(t testing.TB, m *abi.Manifest) *schema.Object {
	t.Helper()
	text, err := OpenAPI("bank", m, nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := schema.Parse(string(text), 1<<20, 1<<10)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v.(*schema.Object)
}

// at is what a JSON Pointer leads to, as JSON; "" is nothing.
func at(o *schema.Object, pointer string) string {
	v, ok := schema.Pointed(o, pointer)
	if !ok {
		return ""
	}
	return string(schema.AppendJSON(nil, v))
}

// bankLike is a manifest as a Go module has it.
var bankLike = abi.Manifest{ABI: 1, Service: "bank", Version: "1.2", SDK: "bulkhead-go/1",
	Commands: []abi.CommandType{{Name: "deposit",
		Input: `{"type":"object","properties":{"amount":{"type":"integer","minimum":1,"examples":[100]}},"required":["amount"],` +
			`"additionalProperties":false,"description":"Puts money in."}`,
		Reply: `{"type":"object","properties":{"balance":{"type":"integer"}}}`}, {Name: "close"}, {Name: ".."}},
	Queries: []abi.QueryType{{Name: "tree", Input: `{"type":"object","properties":{}}`,
		Reply: `{"$anchor":"t1","type":"object","properties":{"leaf":{"type":"string"},"children":{"type":["array","null"],` +
			`"items":{"anyOf":[{"$ref":"#t1"},{"type":"null"}]}}}}`}},
	Events: []abi.EventType{{Name: "old", UpcastTo: "deposited"}, {Name: "deposited", Aliases: []string{"Deposited"},
		Schema: `{"type":"object","properties":{"amount":{"type":"integer"}}}`}},
}

func TestOpenAPI(t *testing.T) {
	d := documentOf(t, &bankLike)
	const base, schemas = "/paths/~1v1~1services~1bank~1entities~1{key}~1", "/components/schemas/"
	for pointer, want := range map[string]string{
		"/openapi":       `"3.1.0"`,
		"/info/title":    `"bank"`,
		"/info/version":  `"1.2"`,
		"/servers/0/url": `"../../.."`,
		base + "commands~1deposit/post/operationId":                                            `"command.deposit"`,
		base + "commands~1deposit/post/description":                                            `"Puts money in."`,
		base + "commands~1deposit/post/requestBody/required":                                   `true`,
		base + "commands~1deposit/post/requestBody/content/application~1json/example":          `{"amount":100}`,
		base + "commands~1deposit/post/requestBody/content/application~1json/schema":           `{"$ref":"#/components/schemas/command.deposit.input"}`,
		base + "commands~1deposit/post/responses/200/content/application~1json/schema/allOf/0": `{"$ref":"#/components/schemas/Reply"}`,
		base + "commands~1deposit/post/responses/200/content/application~1json/example/reply":  `{"balance":1}`,
		base + "commands~1deposit/post/responses/default":                                      `{"$ref":"#/components/responses/Problem"}`,
		base + "commands~1close/post/requestBody/required":                                     `false`,
		base + "commands~1close/post/requestBody/content/application~1json/schema":             `{}`,
		base + "commands~1..":                  ``,
		base + "queries~1tree/get/operationId": `"query.tree"`,
		base + "queries~1tree/get/parameters/0/content/application~1json/schema":                                `{"$ref":"#/components/schemas/query.tree.input"}`,
		base + "queries~1tree/post/operationId":                                                                 `"query.tree.post"`,
		schemas + "query.tree.reply/properties/children/items/anyOf/0":                                          `{"$ref":"#/components/schemas/query.tree.reply"}`,
		schemas + "query.tree.reply/$anchor":                                                                    ``,
		schemas + "Event/allOf/1/anyOf/1/properties/type":                                                       `{"enum":["deposited","Deposited"]}`,
		schemas + "Event/allOf/1/anyOf/1/properties/data":                                                       `{"$ref":"#/components/schemas/event.deposited"}`,
		schemas + "Problem/properties/kind/type":                                                                `"string"`,
		"/paths/~1v1~1services~1bank~1events/get/responses/200/content/application~1json/example/events/0/type": `"deposited"`,
		"/components/securitySchemes/token/scheme":                                                              `"bearer"`,
		"/components/parameters/Service":                                                                        ``,
	} {
		if got := at(d, pointer); got != want {
			t.Errorf("%s is %s, want %s", pointer, got, want)
		}
	}
	wellFormed(t, d)
}

// The servers entry leads to the host, also where it is mounted below a path.
func TestTheServerIsRelative(t *testing.T) {
	for from, want := range map[string]string{
		"http://h:8080/v1/services/bank/openapi.json":   "http://h:8080/",
		"https://h/bulkhead/v1/services/b/openapi.json": "https://h/bulkhead/",
	} {
		u, _ := url.Parse(from)
		if got, err := u.Parse(serverURL); err != nil || got.String() != want {
			t.Errorf("%s leads to %v, want %s: %v", from, got, want, err)
		}
	}
}

// wellFormed checks that all references lead somewhere, that the schemas can be compiled, and that examples fit.
func wellFormed(t testing.TB, d *schema.Object) {
	t.Helper()
	components, _ := schema.Pointed(d, "/components/schemas")
	for _, key := range components.(*schema.Object).Names {
		if strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
			t.Errorf("%q is no key of a component", key)
		}
	}
	ids := map[string]bool{}
	var walk func(v any, path string)
	walk = func(v any, path string) {
		switch v := v.(type) {
		case *schema.Object:
			if ref, ok := get[string](v, "$ref"); ok {
				pointer, inside := strings.CutPrefix(ref, "#/")
				if _, found := schema.Pointed(d, "/"+pointer); !found || !inside {
					t.Errorf("%s: %s leads nowhere", path, ref)
				}
			}
			if id, ok := get[string](v, "operationId"); ok && strings.HasPrefix(path, "/paths/") {
				if ids[id] {
					t.Errorf("%s: operationId %s is there twice", path, id)
				}
				ids[id] = true
			}
			example, given := v.Get("example")
			s, _ := get[*schema.Object](v, "schema")
			if given && s != nil && strings.HasPrefix(path, "/paths/") {
				fits(t, d, s, example, path)
			}
			for _, name := range v.Names {
				x, _ := v.Get(name)
				walk(x, path+"/"+name)
			}
		case []any:
			for i, x := range v {
				walk(x, fmt.Sprint(path, "/", i))
			}
		}
	}
	walk(d, "")
}

// fits checks an example with the schemas of the document. The bounds of the host's checks do not hold for a
// document, so it is done with the schemas that the example needs.
func fits(t testing.TB, d, s *schema.Object, example any, path string) {
	t.Helper()
	needed, queue := &schema.Object{}, []any{s}
	for len(queue) > 0 {
		v := queue[0]
		queue = queue[1:]
		switch v := v.(type) {
		case *schema.Object:
			if ref, ok := get[string](v, "$ref"); ok {
				name := strings.TrimPrefix(ref, schemaRef)
				if _, ok := needed.Get(name); !ok {
					part, _ := schema.Pointed(d, ref[1:])
					needed.Set(name, part)
					queue = append(queue, part)
				}
			}
			for _, name := range v.Names {
				x, _ := v.Get(name)
				queue = append(queue, x)
			}
		case []any:
			queue = append(queue, v...)
		}
	}
	whole := objectOf("allOf", []any{s}, "components", objectOf("schemas", needed))
	compiled, err := schema.New("command x", string(schema.AppendJSON(nil, whole)))
	if err != nil {
		if !strings.Contains(err.Error(), "more than") && !strings.Contains(err.Error(), "it has ") {
			t.Errorf("%s: the schema cannot be compiled: %v", path, err)
		}
		return
	}
	if compiled == nil {
		return
	}
	if _, err := compiled.Check(schema.AppendJSON(nil, example), nil); err != nil {
		t.Errorf("%s: the example %s does not fit: %v", path, schema.AppendJSON(nil, example), err)
	}
}

// Schemas of other dialects, and with references of all kinds, become schemas of the document.
func TestSchemasAreRewritten(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"$id":"https://a.example/x","$ref":"y#/$defs/b","$defs":{"y":{"$id":"y","$defs":{"b":{"type":"null"}}}}}`,
			`{"k":{"$ref":"#/components/schemas/k.1"},"k.1":{"type":"null"}}`},
		{`{"$schema":"http://json-schema.org/draft-07/schema#","definitions":{"a":{"$id":"#here","type":"string"}},` +
			`"properties":{"x":{"$ref":"#here","title":"not read"}},"dependencies":{"x":["y"],"y":{"minProperties":1}}}`,
			`{"k":{"properties":{"x":{"$ref":"#/components/schemas/k.1"}},"dependentRequired":{"x":["y"]},` +
				`"dependentSchemas":{"y":{"minProperties":1}}},"k.1":{"type":"string"}}`},
		{`{"$schema":"https://json-schema.org/draft/2019-09/schema","items":[{"type":"null"}],"additionalItems":false}`,
			`{"k":{"prefixItems":[{"type":"null"}],"items":{"not":{}}}}`},
		{`{"$ref":"#/$defs/no","$defs":{"no":false}}`, `{"k":{"allOf":[{"not":{}}]}}`},
		{`{"$ref":"#/else where/%25~1","else where":{"%/":{"const":1}}}`,
			`{"k":{"$ref":"#/components/schemas/k.1"},"k.1":{"const":1}}`},
		{`{"pattern":"(?i)a","description":"x","patternProperties":{"\\pL":{}},"additionalProperties":false}`,
			"{\"k\":{\"description\":\"x\\n\\nIt also has to match `(?i)a`, as RE2 reads it.\"," +
				"\"patternProperties\":{}}}"},
		{`{"enum":[],"x-y":1,"discriminator":{},"format":"f"}`, `{"k":{"format":"f","allOf":[{"not":{}}]}}`},
		{`{"minimum":1e400,"multipleOf":1e-400,"const":{"$ref":"#/x"},"examples":[1e400],"maximum":2}`, `{"k":{"maximum":2}}`},
		{`{"allOf":[{"$ref":"#/properties/a"}],"properties":{"a":{"type":"array","items":{"$ref":"#/properties/a"}}}}`,
			`{"k":{"allOf":[{"$ref":"#/components/schemas/k.1"}],"properties":{"a":{"$ref":"#/components/schemas/k.1"}}},` +
				`"k.1":{"type":"array","items":{"$ref":"#/components/schemas/k.1"}}}`},
	} {
		if _, err := schema.New("command x", c.in); err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		keys, all, err := rewrite("k", c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		o := &schema.Object{}
		for _, k := range keys {
			o.Set(k, all[k])
		}
		if got := string(schema.AppendJSON(nil, o)); got != c.want {
			t.Errorf("%s\n gives %s\n want  %s", c.in, got, c.want)
		}
	}
}

func TestPortablePatterns(t *testing.T) {
	for pattern, want := range map[string]bool{
		`^[a-z]+$`: true, `^[A-Za-z0-9._-]{1,128}$`: true, `a|b(c|d)*?`: true, `\d+\.\d{2}`: true, `[^"\]]`: true, ``: true, `é+`: true,
		`(?:ab)?`: true, `x{2,}`: true, `[\w.-]`: true,
		`(?i)a`: false, `\pL`: false, `[[:alpha:]]`: false, `\A`: false, `a{,2}`: false, `{`: false, `a}`: false, `]`: false,
		`^*`: false, `[\w-.]`: false, `(?P<n>a)`: false, `\-`: false, `[a-\d]`: false, `\s`: false, `(`: false, `a)`: false,
		`[a&&b]`: false, `\`: false, `[`: false, `[]a]`: false, `a**`: false, `[a-b-c]`: false,
	} {
		if portable(pattern) != want {
			t.Errorf("%s: %v", pattern, !want)
		}
	}
}

func TestAHugeServiceIsRefused(t *testing.T) {
	m := abi.Manifest{ABI: 1}
	for i := range abi.MaxTypes {
		m.Commands = append(m.Commands, abi.CommandType{Name: fmt.Sprint("c", i)})
	}
	if _, err := OpenAPI("x", &m, nil); service.KindOf(err) != service.KindTooLarge {
		t.Error(err)
	}
	m.Commands = m.Commands[:1]
	m.Commands[0].Input = `{"type":"null"}`
	stop := errors.New("stop")
	if _, err := OpenAPI("x", &m, func() error { return stop }); err != stop {
		t.Error(err)
	}
}

// A schema that cannot be used is replaced, and does no harm to the rest.
func TestUnusableSchemas(t *testing.T) {
	m := abi.Manifest{ABI: 1, Events: []abi.EventType{{Name: "e", Schema: `{"$ref":"#/nowhere"}`}, {Name: "f", Schema: `{"type":7}`},
		{Name: "g", Schema: `{"allOf":[{"$ref":"#"}]}`}, {Name: "h", Schema: `{"$dynamicRef":"#x"}`}}}
	d := documentOf(t, &m)
	for _, name := range []string{"e", "f", "g", "h"} {
		if got := at(d, "/components/schemas/event."+name); !strings.HasPrefix(got,
			`{"description":"The module's own schema cannot be used: `) {
			t.Errorf("%s is %s", name, got)
		}
	}
	wellFormed(t, d)
	// The same for schemas that are too much work together.
	large := `{"type":"string","description":"` + strings.Repeat("x", 60<<10) + `"}`
	for i := range 6 {
		m.Queries = append(m.Queries, abi.QueryType{Name: fmt.Sprint("q", i), Input: large})
	}
	d = documentOf(t, &m)
	first, last := at(d, "/components/schemas/query.q0.input/type"), at(d, "/components/schemas/query.q5.input")
	if first != `"string"` || !strings.Contains(last, "256 KiB") {
		t.Errorf("%s, %s", first, last)
	}
	m.Queries = nil
	m.Encoding = "application/cbor"
	m.Commands = []abi.CommandType{{Name: "c", Input: `{"type":"string"}`}}
	d = documentOf(t, &m)
	if got := at(d, "/paths/~1v1~1services~1bank~1entities~1{key}~1commands~1c/post/requestBody/content"); got !=
		`{"application/cbor":{"schema":{}}}` {
		t.Error(got)
	}
	wellFormed(t, d)
}

func TestFields(t *testing.T) {
	list := func(text string) string {
		fields, about, more := Fields(text)
		out := about
		for _, f := range fields {
			out += fmt.Sprintf("\n%s: %s", f.Path, f.Type)
			if f.Required {
				out += "!"
			}
			if f.Limits != "" {
				out += " [" + f.Limits + "]"
			}
			if f.About != "" {
				out += " " + f.About
			}
		}
		if more {
			out += "\n…"
		}
		return out
	}
	for text, want := range map[string]string{
		bankLike.Commands[0].Input:          "Puts money in.\namount: integer! [at least 1] (such as 100)",
		bankLike.Queries[0].Reply:           "\nleaf: string\nchildren: [as the data|null]|null",
		`{"type":"object","properties":{}}`: "",
		`true`:                              "", ``: "", `{}`: "", `no`: "\n…",
		`{"type":"string","format":"date-time","description":"When."}`: "When.\n: date-time! When.",
		`{"type":"object","properties":{"a":{"type":"object","properties":{"b":{"enum":["x","y z",1,null]}},"required":["b"]},` +
			`"l":{"type":"array","items":{"type":"string","pattern":"^a","maxLength":3},"minItems":1,"maxItems":2,"uniqueItems":true},` +
			`"m":{"type":"object","additionalProperties":{"type":"object","properties":{"n":{"const":2}}}},` +
			`"f":{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1,"multipleOf":0.5,"default":0.5,"deprecated":true}}}`: "\n" +
			"a: object\na.b: value! [x|\"y z\"|1|null]\n" +
			"l: [string] [1 to 2 elements, all different]\nl[]: string [at most 3 characters, like ^a]\n" +
			"m: {…: object}\nm.*.n: value [= 2]\n" +
			"f: number [above 0, below 1, a multiple of 0.5] (deprecated) (default 0.5)",
	} {
		if got := list(text); got != want {
			t.Errorf("%s\n gives %q\n want  %q", text, got, want)
		}
	}
	var many strings.Builder
	for i := range 300 {
		fmt.Fprintf(&many, `,"x%d":{}`, i)
	}
	if fields, _, more := Fields(`{"properties":{` + many.String()[1:] + `}}`); len(fields) != maxFields || !more {
		t.Error(len(fields), more)
	}
}

// Whatever the schemas of a module are, there is a document: it is JSON, its references lead somewhere, its
// schemas can be compiled and its examples fit; and a list of fields.
func FuzzDescribe(f *testing.F) {
	for _, seed := range []string{bankLike.Commands[0].Input, bankLike.Queries[0].Reply, `{"$ref":"#"}`,
		`{"$id":"a","$ref":"b","$defs":{"b":{"$id":"b","$ref":"a"}}}`, `{"$defs":{"":{"$anchor":"x"}},"$ref":"#x"}`,
		`{"properties":{"$ref":{"type":"string"},"a":{"const":{"$ref":"#/z"}}}}`, `{"enum":[1e400,"\u202e"]}`,
		`{"$schema":"http://json-schema.org/draft-06/schema","items":[true,{"$ref":"#/items/1"}],"additionalItems":{"not":false}}`,
		`{"if":{"$ref":"#/then"},"then":{"type":"object","patternProperties":{"^a$":false,"\\s":true}},"else":false}`,
		`{"$id":"http://x/%zz","$ref":"#/a~01/0"}`, `{"unevaluatedProperties":{"$ref":"#/$defs/é"},"$defs":{"é":true}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		Fields(text)
		if !json.Valid([]byte(text)) || text == "null" {
			return // a manifest is JSON
		}
		m := abi.Manifest{ABI: 1, Commands: []abi.CommandType{{Name: "c", Input: text, Reply: text}},
			Queries: []abi.QueryType{{Name: "q", Input: text}}, Events: []abi.EventType{{Name: "e", Schema: text}}}
		b, err := OpenAPI("x", &m, nil)
		if err != nil {
			if service.KindOf(err) != service.KindTooLarge {
				t.Errorf("%s: %v", text, err)
			}
			return
		}
		if len(b) > MaxDocument {
			t.Errorf("%d bytes", len(b))
		}
		d, err := schema.Parse(string(b), 1<<22, 1<<10)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		wellFormed(t, d.(*schema.Object))
	})
}
