//go:build node

package hosttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/describe"
	"github.com/bulkhead-wasm/bulkhead/host/internal/schema"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/plugins/bank"
	"github.com/bulkhead-wasm/bulkhead/plugins/counter"
	"github.com/bulkhead-wasm/bulkhead/plugins/orders"
)

// every is data with every tag and every kind of type.
type every struct {
	_        struct{}            `doc:"Everything at once."`
	Name     string              `json:"name" doc:"Who \"it\" is: <b>\\</b>" minLength:"2" maxLength:"9" pattern:"^[a-z]+$" example:"ada"`
	Mail     *string             `json:"mail" format:"email" deprecated:"true"`
	Size     string              `json:"size" enum:"s,m,l"`
	Grades   []int8              `json:"grades" enum:"1,-2" minItems:"1" maxItems:"3" uniqueItems:"true"`
	Share    float64             `json:"share" exclusiveMinimum:"0" exclusiveMaximum:"1.5" multipleOf:"0.25"`
	Count    uint64              `json:"count" minimum:"3" maximum:"18446744073709551615"`
	Labels   map[string]string   `json:"labels" minProperties:"1" maxProperties:"2" maxLength:"3"`
	Pair     [2]int              `json:"pair" minimum:"5"`
	Wait     time.Duration       `json:"wait" doc:"How long." minimum:"0"`
	At       time.Time           `json:"at"`
	From     netip.Addr          `json:"from"`
	Net      netip.Prefix        `json:"net,omitzero" format:"cidr"`
	Key      []byte              `json:"key"`
	Fold     string              `json:"fold,omitempty" pattern:"(?i)^x" default:"X1"`
	Children map[string]*every   `json:"children" doc:"More of the same."`
	Deep     []map[string][]bool `json:"deep,omitempty" example:"[{\"a\":[true]}]"`
}

func (e every) Apply(*every) {}

// kinds is a service of them.
var kinds = guest.New[every]("kinds").Events(guest.Named[every](every{}, "happened", "occurred"))

func init() {
	guest.Command(kinds, "do", func(tx *guest.Tx[every], e every) (every, error) { tx.Emit(e); return e, nil })
	guest.Command(kinds, "nothing", func(*guest.Tx[every], struct{}) (struct{}, error) { return struct{}{}, nil })
	guest.Command(kinds, "many", func(*guest.Tx[every], []every) (*every, error) { return nil, nil })
	guest.Query(kinds, "ask", func(_ *guest.View[every], e every) (map[string]every, error) { return nil, nil })
	guest.Query(kinds, "text", func(_ *guest.View[every], s string) (string, error) { return s, nil })
}

// hostile are schemas as no SDK would write them.
var hostile = []string{
	`{"$id":"https://a.example/x","$ref":"y#/$defs/b","$defs":{"y":{"$id":"y","$defs":{"b":{"type":"null"}}}}}`,
	`{"$schema":"http://json-schema.org/draft-07/schema#","definitions":{"a":{"$id":"#here","type":"string"}},` +
		`"properties":{"x":{"$ref":"#here"}},"dependencies":{"x":["y"],"y":{"minProperties":1}}}`,
	`{"$schema":"http://json-schema.org/draft-06/schema","items":[true,{"$ref":"#/items/1"}],"additionalItems":false}`,
	`{"properties":{"$ref":{"type":"string"},"a":{"const":{"$ref":"#/z"}},"__proto__":{"enum":[1]},"~/%":{"$ref":"#/$defs/~0~1%25"}},` +
		`"$defs":{"~/%":{"minimum":1e400,"multipleOf":1e-400,"maximum":1e300}}}`,
	`{"patternProperties":{"\\pL":{},"^(?i)a":false,"a{,2}":true,"^[a-z]$":{}},"additionalProperties":false,"pattern":"\\A[[:alpha:]]\\z"}`,
	`{"enum":[],"format":"nobody knows","discriminator":{},"xml":7,"example":{"$ref":"nowhere"},"nullable":1}`,
	`{"$anchor":"Problem","type":"object","properties":{"Problem":{"$ref":"#Problem"},"Event":{"$ref":"#"}},"examples":[{"Event":{}}]}`,
	`{"description":"</script><img src=x onerror=alert(1)> \u202e \u0000 ` + "`" + `","title":"\u2028","default":"\ud83d\ude00"}`,
	`{"if":{"required":["a"]},"then":{"unevaluatedProperties":false,"properties":{"a":true}},"else":false}`,
	`false`, `{"not":true}`, `{"$ref":"#/nowhere"}`, `{"type":"no such type"}`, `{"$ref":"https://evil.example/"}`,
}

// value is one that the caller knows to fit a component, or not to fit it.
type value struct {
	Schema string          `json:"schema"`
	Value  json.RawMessage `json:"value"`
	Fits   bool            `json:"fits"`
}

// toCheck is what .ci/js/openapi.mjs reads.
type toCheck struct {
	Name     string          `json:"name"`
	Document json.RawMessage `json:"document"`
	Values   []value         `json:"values"`
	Broken   string          `json:"broken,omitempty"` // part of what has to be found
}

// TestJavaScriptToolsReadDocuments holds the OpenAPI documents of the host and of services to what Redocly and Ajv,
// which make test-js installs, require.
func TestJavaScriptToolsReadDocuments(t *testing.T) {
	kindsManifest := manifestOf(t, guesttest.Native(kinds))
	all := []toCheck{{Name: "host", Document: api.OpenAPI()},
		{Name: "bank", Document: documentOf(t, manifestOf(t, guesttest.Native(bank.Service)))},
		{Name: "orders", Document: documentOf(t, manifestOf(t, guesttest.Native(orders.Service)))},
		{Name: "counter", Document: documentOf(t, manifestOf(t, guesttest.Native(counter.Service)))},
		{Name: "kinds", Document: documentOf(t, kindsManifest), Values: valuesOf(t, kindsManifest)},
		{Name: "hostile", Document: documentOf(t, hostileManifest(t))},
	}
	broken := func(find, old, replacement string) {
		text := strings.Replace(string(all[1].Document), old, replacement, 1)
		if text == string(all[1].Document) {
			t.Fatalf("%s is not in the document", old)
		}
		all = append(all, toCheck{Name: "broken: " + find, Document: []byte(text), Broken: find})
	}
	broken("no-unresolved-refs", `"#/components/responses/Problem"`, `"#/components/responses/Nobody"`)
	broken("struct", `"openapi":"3.1.0",`, `"openapi":"3.1.0","surplus":1,`)
	broken("does not fit", `"example":{"amount":100}`, `"example":{"amount":"much"}`)
	broken("no-invalid-media-type-examples", `"example":{"amount":100}`, `"example":{"amount":"much"}`)
	broken("command.deposit.input: ", `"type":"integer","description":"in the smallest`, `"type":"integral","description":"in the smallest`)

	var in bytes.Buffer
	for _, one := range all {
		if err := json.NewEncoder(&in).Encode(one); err != nil {
			t.Fatal(one.Name, err)
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", filepath.Join(root, ".ci/js/openapi.mjs"), filepath.Join(root, "build/js"))
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if want := fmt.Sprintf("%d documents, ", len(all)); err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%v, said %q, want %q", err, out, want)
	}
}

// manifestOf asks a service for its manifest.
func manifestOf(t *testing.T, d guesttest.Driver) *abi.Manifest {
	t.Helper()
	out, err := d.Exchange(abi.AppendDescribe(nil))
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := abi.DecodeResponse(out)
	if err != nil {
		t.Fatal(err)
	}
	body, err := abi.DecodeBody(&r)
	if err != nil {
		t.Fatal(err)
	}
	m, err := service.ParseManifest(bytes.Clone(body))
	if err != nil {
		t.Fatal(err)
	}
	return &m
}

func hostileManifest(t *testing.T) *abi.Manifest {
	m := &abi.Manifest{ABI: 1, Service: "hostile", Version: "\u202e<b>", SDK: "](javascript:alert(1))"}
	for i, text := range hostile {
		if !json.Valid([]byte(text)) {
			t.Fatal(text)
		}
		name := []string{".", "a.input", "c", "-", "Problem", "a"}[i%6] + fmt.Sprint(i)
		m.Commands = append(m.Commands, abi.CommandType{Name: name, Input: text, Reply: text})
		m.Queries = append(m.Queries, abi.QueryType{Name: name, Input: text})
		m.Events = append(m.Events, abi.EventType{Name: name, Schema: text})
	}
	m.Commands = append(m.Commands, abi.CommandType{Name: "."}, abi.CommandType{Name: ".."})
	return m
}

func documentOf(t *testing.T, m *abi.Manifest) []byte {
	t.Helper()
	text, err := describe.OpenAPI(service.Name(m.Service), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// valuesOf are data of the command do, of which the host says whether they fit; Ajv has to agree.
func valuesOf(t *testing.T, m *abi.Manifest) (values []value) {
	t.Helper()
	in, err := schema.New("command do", m.Commands[0].Input)
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]string{"name": `"ada"`, "mail": `"a@b.example"`, "size": `"m"`, "grades": `[1]`, "share": `0.75`, "count": `3`,
		"labels": `{"a":"b"}`, "pair": `[5,6]`, "wait": `1`, "at": `"2026-01-02T03:04:05Z"`, "from": `"192.0.2.1"`, "key": `"AA=="`,
		"children": `null`}
	add := func(name, text string) {
		data := map[string]json.RawMessage{}
		for n, v := range good {
			data[n] = json.RawMessage(v)
		}
		if name != "" {
			data[name] = json.RawMessage(text)
		}
		whole, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		_, err = in.Check(whole, nil)
		values = append(values, value{"command.do.input", whole, err == nil})
	}
	add("", "")
	for name, texts := range map[string][]string{
		"name": {`"a"`, `"ad"`, `"abcdefghij"`, `"Ada"`, `1`, `null`}, "mail": {`null`, `1`}, "size": {`"xl"`, `"s"`},
		"grades": {`[]`, `[1,1]`, `[3]`, `[1,-2]`, `null`}, "share": {`0`, `1.5`, `0.3`, `1.25`}, "count": {`2`, `3.0`, `3.5`},
		"labels": {`{}`, `{"a":"abcd"}`, `{"a":"","b":"","c":""}`}, "pair": {`[5]`, `[4,5]`, `[5,5,5]`}, "wait": {`-1`, `0`},
		"fold": {`"x"`}, "other": {`1`}, "children": {`{"a":{}}`, `{"a":null}`}, "deep": {`[{"a":[true]}]`, `[{"a":[1]}]`},
	} {
		for _, text := range texts {
			add(name, text)
		}
	}
	fit := 0
	for _, v := range values {
		if v.Fits {
			fit++
		}
	}
	if fit < 10 || len(values)-fit < 20 {
		t.Fatalf("%d of %d values fit", fit, len(values))
	}
	return values
}
