package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
)

// operation is an operation of the OpenAPI document.
type operation struct {
	method, path string
	params       []parameter // in the query
	bodyType     string      // empty: no body
	example      string      // of its body
	own          bool        // the host reads the body; a service's has no schema
	answers      []string    // media types of its answer
}

type parameter struct {
	Ref    string `json:"$ref"`
	Name   string
	In     string
	Schema struct{ Type string }
}

// operations reads them from the document. So a new operation is tested against the gate, and must declare
// what it accepts.
func operations(t *testing.T) (all []operation) {
	t.Helper()
	var doc struct {
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Parameters map[string]parameter }
	}
	if err := json.Unmarshal(api.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths {
		for method, text := range item {
			if method == "parameters" {
				continue
			}
			var op struct {
				Parameters  []parameter
				RequestBody struct {
					Content map[string]struct{ Schema, Example json.RawMessage }
				}
				Responses map[string]struct{ Content map[string]json.RawMessage }
			}
			if err := json.Unmarshal(text, &op); err != nil {
				t.Fatal(err)
			}
			o := operation{method: strings.ToUpper(method), path: path,
				answers: slices.Sorted(maps.Keys(op.Responses["200"].Content))}
			for _, p := range op.Parameters {
				if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
					p = doc.Components.Parameters[name]
				}
				if p.In == "query" {
					o.params = append(o.params, p)
				}
			}
			content := op.RequestBody.Content
			switch body, isJSON := content[api.ContentJSON]; {
			case isJSON:
				o.bodyType, o.example, o.own = api.ContentJSON, string(body.Example), string(body.Schema) != "{}"
				if body.Example == nil {
					t.Fatalf("%s %s has no example of its body", method, path)
				}
			case len(content) == 1:
				o.bodyType, o.example = api.ContentWasm, "\x00asm good"
				if _, ok := content[api.ContentWasm]; !ok {
					t.Fatalf("%s %s takes %v, which is not tested", method, path, content)
				}
			case len(content) > 1:
				t.Fatalf("%s %s takes %v, which is not tested", method, path, content)
			}
			all = append(all, o)
		}
	}
	return all
}

// url is the operation's URL on the fake host.
func (o *operation) url(query string) string {
	path := strings.NewReplacer("{service}", "bank", "{key}", "alice", "{type}", "add", "{digest}", "sha256:02"+
		strings.Repeat("00", 31)).Replace(o.path)
	if query != "" {
		path += "?" + query
	}
	return path
}

// memberName finds the members of JSON without colons in strings.
var memberName = regexp.MustCompile(`"([a-z_0-9]+)"\s*:`)

// mutants are JSON objects that mean different things to different parsers, or to their authors.
func mutants(object string, own bool) map[string]string {
	all := map[string]string{
		"two values":       object + "{}",
		"a mark before":    "\ufeff" + object,
		"no UTF-8":         strings.Replace(object, "{", "{\"n\":\"\xff\",", 1),
		"no UTF-8 in name": strings.Replace(object, "{", "{\"\xc3\":1,", 1),
		"half a pair":      strings.Replace(object, "{", `{"n":"\ud800",`, 1),
		"half a pair, end": strings.Replace(object, "{", `{"n":"\udc00a",`, 1),
	}
	if own {
		all["null"], all["an array"], all["a number"] = "null", "["+object+"]", "7"
	}
	for _, at := range memberName.FindAllStringSubmatchIndex(object, -1) {
		name, before, after := object[at[2]:at[3]], object[:at[0]], object[at[1]:]
		all["twice "+name] = before + `"` + name + `":null,` + object[at[0]:]
		all["twice, escaped "+name] = before + fmt.Sprintf(`"\u%04x%s":null,`, name[0], name[1:]) + object[at[0]:]
		if own {
			all["in capitals "+name] = before + `"` + strings.ToUpper(name) + `":` + after
			all["with a capital "+name] = before + `"` + strings.ToUpper(name[:1]) + name[1:] + `":` + after
			all["both cases "+name] = before + `"` + strings.ToUpper(name) + `":null,` + object[at[0]:]
			all["unknown beside "+name] = before + `"no_such_member":null,` + object[at[0]:]
		}
	}
	return all
}

// Everything that an operation does not accept is refused, and nothing is done.
func TestTheGate(t *testing.T) {
	for _, o := range operations(t) {
		t.Run(o.method+" "+o.path, func(t *testing.T) {
			s := start(t, Options{})
			refused := func(what string, g got, status int, kind string) {
				t.Helper()
				var p api.Problem
				if err := json.Unmarshal(g.body, &p); err != nil || g.status != status || p.Kind != kind {
					t.Errorf("%s: %d %s", what, g.status, g.body)
				}
				if n := s.fake.calls.Swap(0); n != 0 {
					t.Errorf("%s: the host was asked to do something", what)
				}
			}
			invalid := func(what string, g got) { t.Helper(); refused(what, g, 400, "invalid") }
			unsupported := func(what string, g got) { t.Helper(); refused(what, g, 415, "unsupported") }
			as := func(query, body string, headers ...string) got {
				t.Helper()
				if o.bodyType != "" && !slices.Contains(headers, "Content-Type") {
					headers = append(headers, "Content-Type", o.bodyType)
				}
				return s.do(o.method, o.url(query), body, headers...)
			}

			var names []string
			for _, p := range o.params {
				names = append(names, p.Name)
			}
			for _, query := range append([]string{"no_such_parameter=1", "no_such_parameter", "=1", "%00=1"},
				capitals(names)...) {
				g := as(query, o.example)
				invalid(query, g)
				for _, name := range names {
					if !bytes.Contains(g.body, []byte(name)) {
						t.Errorf("%s: the answer does not name %s", query, name)
					}
				}
			}
			invalid("a malformed query", as("a=%zz", o.example))
			for _, p := range o.params {
				invalid(p.Name+" is no UTF-8", as(p.Name+"=%ff", o.example))
				if p.Schema.Type != "array" {
					invalid(p.Name+" twice", as(p.Name+"=1&"+p.Name+"=1", o.example))
				}
			}
			for _, name := range onceHeaders {
				invalid(name+" twice", as("", o.example, name, "1", name, "1"))
			}
			for _, encoding := range []string{"gzip", "br", "identity, gzip", "x\u202e"} {
				unsupported(encoding, as("", o.example, "Content-Encoding", encoding))
			}
			if len(o.answers) > 0 {
				for _, accept := range []string{"image/png", "application/json;q=0,image/*", "*/*;q=0",
					"application/xml, application/problem+json"} {
					refused(accept, as("", o.example, "Accept", accept), 406, "unsupported")
				}
			}
			if o.bodyType == "" {
				invalid("a body", as("", `{"dry_run":true}`))
				invalid("a body in chunks", s.doBody(o.method, o.url(""), io.MultiReader(strings.NewReader("{}"))))
			} else {
				for _, charset := range []string{"iso-8859-1", "utf-16", "", `"utf-7"`} {
					unsupported(charset, as("", o.example, "Content-Type", o.bodyType+"; charset="+charset))
				}
				for _, other := range []string{"application/cloudevents+json", "application/cloudevents-batch+json",
					"application/problem+json", "text/json", "text/plain", "json",
					"application/json; charset=utf-8; charset=utf-16"} {
					unsupported(other, as("", o.example, "Content-Type", other))
				}
			}
			if o.bodyType == api.ContentJSON {
				for what, text := range mutants(o.example, o.own) {
					invalid(what+": "+text, as("", text))
					invalid(what+" without a type", as("", text, "Content-Type", "application/x-www-form-urlencoded"))
				}
			}

			// What it accepts is accepted.
			headers := []string{"Content-Encoding", "identity"}
			if len(o.answers) > 0 {
				headers = append(headers, "Accept", "image/png, "+o.answers[0]+";q=0.1")
			}
			if o.bodyType == api.ContentJSON {
				headers = append(headers, "Content-Type", "application/json; charset=UTF-8")
			}
			if g := as("", o.example, headers...); g.status == 400 || g.status == 415 ||
				(o.bodyType != "" || o.method == "DELETE") && g.status/100 != 2 {
				t.Errorf("%d %s", g.status, g.body)
			}
			if o.bodyType != "" && s.fake.calls.Load() == 0 {
				t.Error("the host was asked to do nothing")
			}
		})
	}
}

func capitals(names []string) (all []string) {
	for _, name := range names {
		all = append(all, strings.ToUpper(name)+"=1", strings.ToUpper(name[:1])+name[1:]+"=1")
	}
	return all
}

// The data of a service may be a map whose keys differ only in case: the host does not know whether they are
// members of a structure. Equal keys are refused, as parsers differ in their meaning.
func TestKeysOfDataMayDifferInCase(t *testing.T) {
	s := start(t, Options{})
	if g := s.do("POST", commands+"add", `{"by":{"a":1,"A":2}}`); g.status != 200 {
		t.Errorf("%d %s", g.status, g.body)
	}
	for _, data := range []string{`{"by":{"a":1,"a":2}}`, `{"by":{"a":1,"\u0061":2}}`} {
		s.problem(s.do("POST", commands+"add", data), 400, "invalid")
	}
}

// The document and the routes name the same parameters.
func TestOpenAPIListsTheParameters(t *testing.T) {
	documented := map[string]operation{}
	for _, o := range operations(t) {
		documented[o.method+" "+o.path] = o
	}
	for _, r := range new(Server).routes() {
		o := documented[r.method+" "+r.path]
		var names, known []string
		for _, p := range o.params {
			names = append(names, p.Name)
			if (p.Schema.Type == "array") != slices.Contains(listParams, p.Name) {
				t.Errorf("%s %s: whether %s is a list is said in one place and not in the other", r.method, r.path,
					p.Name)
			}
		}
		known = append(known, r.takes.params...)
		slices.Sort(names)
		slices.Sort(known)
		if !slices.Equal(names, known) {
			t.Errorf("%s %s: documented %v, known %v", r.method, r.path, names, known)
		}
		want := noBody
		switch {
		case o.bodyType == api.ContentWasm:
			want = moduleBody
		case o.own:
			want = jsonBody
		case o.bodyType != "":
			want = dataBody
		}
		forms := slices.Clone(r.takes.answers)
		if forms == nil {
			forms = justJSON
		}
		slices.Sort(forms)
		if !slices.Equal(forms, o.answers) && len(forms)+len(o.answers) > 0 {
			t.Errorf("%s %s: it answers with %v, documented are %v", r.method, r.path, forms, o.answers)
		}
		if r.takes.body != want {
			t.Errorf("%s %s: its body is %d, documented as %d", r.method, r.path, r.takes.body, want)
		}
	}
}

// Messages pass the same checks.
func TestTheGateOfTheStream(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas struct {
				ClientMessage struct{ Examples []json.RawMessage }
			}
		}
	}
	if err := json.Unmarshal(api.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	examples := doc.Components.Schemas.ClientMessage.Examples
	if len(examples) < 6 {
		t.Fatalf("%d examples", len(examples))
	}
	s := start(t, Options{})
	ws := s.raw("/v1/stream", api.ProtocolStream)
	for _, example := range examples {
		// The members of a service's data are its own, but the data must keep the rules for all JSON.
		outer := strings.Replace(string(example), `{"actor": "teller-3"}`, "{}", 1)
		if i := strings.Index(outer, `{"amount": 100}`); i >= 0 {
			outer = strings.Replace(outer, `{"amount": 100}`, `1`, 1)
			for what, text := range mutants(`{"amount": 100}`, false) {
				if what == "two values" || strings.HasPrefix(what, "no UTF-8") {
					continue // the message ends there, and so would the connection
				}
				refusedMessage(t, s, ws, what, strings.Replace(string(example), `{"amount": 100}`, text, 1))
			}
		}
		for what, text := range mutants(outer, true) {
			if !strings.HasPrefix(what, "no UTF-8") {
				refusedMessage(t, s, ws, what, text)
			}
		}
	}
	for _, metadata := range []string{`{"a":"1","A":"2"}`, `{"s":"1","ſ":"2"}`, `{"a":"1","\u0061":"2"}`, `{"a":"\ud800"}`, `{"":"1"}`, `{"a":1}`, `[]`, `"a"`} {
		refusedMessage(t, s, ws, "metadata", `{"op":"command","id":"1","service":"bank","key":"a","type":"add","metadata":`+metadata+`}`)
	}
	for _, list := range []string{`"types":[]`, `"keys":[]`} {
		refusedMessage(t, s, ws, "an empty filter", `{"op":"subscribe","id":"1","service":"bank",`+list+`}`)
	}
	large := `{"op":"command","id":"1","service":"bank","key":"a","type":"add","data":"` + strings.Repeat("x", 80<<10) + `",`
	for _, more := range []string{`"data":1`, `"DATA":1`, `"d\u0061ta":1`, `"data_base64":"AA=="`, `"metadata":{"a":"\ud800"}`, `"no_such_member":1`} {
		refusedMessage(t, s, ws, "beside large data", large+more+"}")
	}
	say(t, ws, "%s", large[:len(large)-1]+"}")
	if m := hear(t, ws); m.Op != api.OpReply || s.fake.calls.Load() != 1 {
		t.Errorf("%+v", m)
	}
}

// The metadata header passes the same checks.
func TestMetadataHeader(t *testing.T) {
	s := start(t, Options{})
	for _, metadata := range []string{`{"a":"1","A":"2"}`, `{"s":"1","ſ":"2"}`, `{"a":"1","a":"2"}`, `{"a":"1","\u0061":"2"}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", "{\"\xff\":\"a\"}", `{"a":1}`, `{"a":null}`, `{"a":"1"} x`} {
		s.problem(s.do("POST", commands+"add", "1", api.HeaderMetadata, metadata), 400, "invalid")
	}
	trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	s.problem(s.do("POST", commands+"add", "1", api.HeaderMetadata, `{"Traceparent":"x"}`, api.HeaderTraceparent, trace), 400, "invalid")
	if n := s.fake.calls.Load(); n != 0 {
		t.Errorf("%d commands came through", n)
	}
	if g := s.do("POST", commands+"add", "1", api.HeaderTraceparent, trace, api.HeaderTracestate,
		"a=\xff"); g.status != 200 {
		t.Errorf("%d %s", g.status, g.body)
	}
	if _, kept := s.fake.seen[0].Metadata.Get("tracestate"); kept {
		t.Error("a tracestate that is no text was kept")
	}
	for i, c := range []struct {
		parents       []string
		parent, state string // that are kept
	}{
		{[]string{trace, strings.Replace(trace, "0af7", "0af8", 1)}, "", ""}, // ambiguous
		{[]string{trace}, trace, "a=1,b=2"},
	} {
		headers := []string{api.HeaderTracestate, "a=1", api.HeaderTracestate, "b=2"}
		for _, parent := range c.parents {
			headers = append(headers, api.HeaderTraceparent, parent)
		}
		g := s.do("POST", commands+"add", "1", headers...)
		m := s.fake.seen[i+1].Metadata
		parent, _ := m.Get("traceparent")
		state, _ := m.Get("tracestate")
		if g.status != 200 || string(parent) != c.parent || string(state) != c.state {
			t.Errorf("%q: %d, traceparent %q, tracestate %q", c.parents, g.status, parent, state)
		}
	}
}

// refusedMessage sends a message that must be refused without any call of the host.
func refusedMessage(t *testing.T, s *site, ws *websocket.Conn, what, text string) {
	t.Helper()
	say(t, ws, "%s", text)
	if m := hear(t, ws); m.Op != api.OpError || m.Problem == nil || m.Problem.Kind != "invalid" ||
		s.fake.calls.Load() != 0 {
		t.Errorf("%s: %.200s: %+v", what, text, m)
	}
}

func TestGateKeepsHeadersOnce(t *testing.T) {
	for _, name := range onceHeaders {
		if http.CanonicalHeaderKey(name) != name {
			t.Errorf("%s is not how the header is kept", name)
		}
	}
}
