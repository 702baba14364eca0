package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A client gets the form of an answer that it prefers.
func TestQuality(t *testing.T) {
	for accept, want := range map[string]string{
		"":                                     "1 json",
		"*/*":                                  "1 json",
		"text/event-stream":                    "1 sse",
		"text/*":                               "1 sse",
		"text/event-stream, */*":               "1 sse",
		"text/event-stream;q=0.5, */*":         "0.5 json",
		"application/json, text/event-stream":  "1 sse",
		"application/json;q=0, */*;q=0.2":      "0.2 sse",
		"text/event-stream;q=0, text/*":        "0 json",
		"text/event-stream;q=0.0":              "0 json",
		"text/event-stream;q=x":                "1 sse",
		"text/event-stream;q=NaN":              "1 sse",
		"/, ;, text/event-stream ;q=0.3 , a/b": "0.3 sse",
		"application/*":                        "0 json",
		"application/cloudevents-batch+json":   "0 batch",
		"application/json;q=0, application/*":  "0 batch",
		"application/json, application/cloudevents-batch+json;q=0.9":          "0 json",
		"application/cloudevents-batch+json, text/event-stream":               "1 sse",
		"application/cloudevents-batch+json, text/event-stream;q=0.5":         "0.5 batch",
		"application/cloudevents-batch+json;q=0.5, */*;q=0.4":                 "0.4 batch",
		"application/cloudevents-batch+json; charset=utf-8, application/json": "0 batch",
	} {
		r := &http.Request{Header: http.Header{}}
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		q, _ := quality(r, api.ContentSSE)
		form := map[string]string{api.ContentJSON: "json", api.ContentSSE: "sse",
			api.ContentBatch: "batch"}[preferred(r, api.ContentSSE, api.ContentBatch)]
		if got := fmt.Sprintf("%g %s", q, form); got != want {
			t.Errorf("%s: %s, want %s", accept, got, want)
		}
	}
}

// sse opens a stream of server-sent events. It returns a function that reads the next message with data.
func (s *site) sse(path string, headers ...string) (next func() (id, event string, data []byte)) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	s.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", s.server.URL()+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Accept", api.ContentSSE)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { resp.Body.Close() })
	documented(s.T, req, resp)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != api.ContentSSE {
		s.Fatalf("%s: %d %v", path, resp.StatusCode, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	return func() (id, event string, data []byte) {
		s.Helper()
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch {
			case name == "id":
				id = value
			case name == "event":
				event = value
			case name == "data":
				data = []byte(value)
			case name == "" && data != nil:
				return id, event, data
			}
		}
		s.Fatalf("the stream ended: %v", lines.Err())
		return "", "", nil
	}
}

// One entity is streamed like its service, and resumed by the service's cursors.
func TestStreamOfAnEntity(t *testing.T) {
	s := start(t, Options{})
	s.add(7) // k0, k1, k2, k0, ...
	const path = "/v1/services/bank/entities/k0/events"
	versionOf := func(data []byte) (v service.Version) {
		e, err := api.DecodeCloudEvent(data)
		if err != nil || e.Subject != "k0" {
			t.Fatalf("%s: %v", data, err)
		}
		return service.Version(e.EntityVersion)
	}
	var ids []string
	next := s.sse(path)
	for want := range service.Version(3) {
		id, _, data := next()
		if got := versionOf(data); got != want+1 {
			t.Errorf("version %d, want %d", got, want+1)
		}
		ids = append(ids, id)
	}
	s.add(1)
	if _, _, data := next(); versionOf(data) != 4 {
		t.Errorf("then %s", data)
	}
	for i, id := range ids {
		if _, _, data := s.sse(path+"?after=1", "Last-Event-ID", id)(); versionOf(data) != service.Version(i+2) {
			t.Errorf("after the id %s comes %s", id, data)
		}
		if _, _, data := s.sse(fmt.Sprintf("%s?after=%d", path, i+1))(); versionOf(data) != service.Version(i+2) {
			t.Errorf("after version %d comes %s", i+1, data)
		}
	}
	s.problem(s.do("GET", path, "", "Accept", api.ContentSSE, "Last-Event-ID", "garbage"), 400, "bad_cursor")
	s.problem(s.do("GET", path+"?limit=2", "", "Accept", api.ContentSSE), 400, "invalid")
	s.problem(s.do("GET", "/v1/services/bank/events?limit=2", "", "Accept", api.ContentSSE), 400, "invalid")
	s.problem(s.do("GET", "/v1/services/none/entities/k0/events", "", "Accept", api.ContentSSE), 404, "not_found")

	if err := s.fake.Delete(t.Context(), "bank"); err != nil {
		t.Fatal(err)
	}
	// EventSource itself fires an event named error.
	if _, event, data := next(); event != "problem" || !bytes.Contains(data, []byte(`"kind":"not_found"`)) {
		t.Errorf("the last word is %q: %s", event, data)
	}
}

// A client that has an answer learns whether it is still the same, whatever it cost this time.
func TestTagsOfQueries(t *testing.T) {
	s := start(t, Options{})
	const path = "/v1/services/bank/entities/alice/queries/"
	g := s.do("GET", path+"look", "")
	tag := g.header.Get("ETag")
	if g.status != 200 || !strings.HasPrefix(tag, `W/"0-`) || g.header.Get("Cache-Control") != "private, no-cache" {
		t.Fatalf("%d %v", g.status, g.header)
	}
	for _, same := range []string{tag, strings.TrimPrefix(tag, "W/"), `"x", ` + tag, `W/"a,b" ,,` + tag, "*"} {
		if g := s.do("GET", path+"look", "", "If-None-Match", same); g.status != 304 || len(g.body) != 0 ||
			g.header.Get("ETag") != tag || g.header.Get("Content-Type") != "" {
			t.Errorf("%s: %d %v %s", same, g.status, g.header, g.body)
		}
	}
	for _, other := range []string{`W/"0"`, `"0"`, strings.Trim(tag, `W/"`), tag[:len(tag)-1], `x ` + tag, ""} {
		if g := s.do("GET", path+"look", "", "If-None-Match", other); g.status != 200 {
			t.Errorf("%s: %d", other, g.status)
		}
	}
	// Another version, and another text at the same version, are another answer.
	if queryTag(1, []byte("a")) == queryTag(2, []byte("a")) || queryTag(1, []byte("a")) == queryTag(1, []byte("b")) {
		t.Error("tags do not differ")
	}
	if g := s.do("POST", path+"look", "", "If-None-Match", "*"); g.status != 200 || g.header.Get("ETag") != "" {
		t.Errorf("POST: %d %v", g.status, g.header)
	}
	s.problem(s.do("GET", path+"reject", "", "If-None-Match", "*"), 422, "rejected")
}

func FuzzMatches(f *testing.F) {
	for _, s := range []string{`W/"1-a"`, `"1-a"`, `"x" , W/"1-a"`, `*`, `"`, `W/`, `""`, `"1-a`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if matches([]string{header}, `W/"1-a"`) && strings.TrimSpace(header) != "*" && !strings.Contains(header, `"1-a"`) {
			t.Fatalf("%q", header)
		}
	})
}

// A version conflict reports the entity's version, over both interfaces.
func TestConflictsSayTheVersion(t *testing.T) {
	s := start(t, Options{})
	at := service.Version(7)
	p := api.ProblemOf(&service.Error{Kind: service.KindVersionConflict, Version: &at}, "1")
	text, err := json.Marshal(p)
	if err != nil || !bytes.Contains(text, []byte(`"version":7`)) || *p.Err().Version != 7 {
		t.Errorf("%s: %v", text, err)
	}
	var none service.Version
	text, _ = json.Marshal(api.ProblemOf(&service.Error{Kind: service.KindVersionConflict, Version: &none}, "1"))
	if !bytes.Contains(text, []byte(`"version":0`)) {
		t.Errorf("%s", text)
	}
	p = s.problem(s.do("POST", commands+"conflict", "1"), 412, "version_conflict")
	if p.Version == nil || *p.Version != 7 {
		t.Errorf("%+v", p)
	}
	ws := s.raw("/v1/stream", api.ProtocolStream)
	say(t, ws, `{"op":"command","id":"1","service":"bank","key":"a","type":"conflict"}`)
	if m := hear(t, ws); m.Problem == nil || m.Problem.Version == nil || *m.Problem.Version != 7 {
		t.Errorf("%+v", m)
	}
}

// OPTIONS lists the methods of a path. It needs no token and changes nothing. It accepts the parameters of
// the path's operations, and no body. The preflight of a browser has all parameters of the page's request.
func TestOptions(t *testing.T) {
	s := start(t, Options{Token: secret})
	for _, o := range operations(t) {
		for _, name := range []string{"x", "TYPES"} {
			s.problem(s.do("OPTIONS", o.url(name+"=1"), ""), 400, "invalid")
			g := s.do("OPTIONS", o.url(name+"=1"), "", "Origin", "https://friend.example",
				"Access-Control-Request-Method", o.method)
			if g.status != 204 {
				t.Errorf("%s asked first: %d", o.path, g.status)
			}
		}
		s.problem(s.do("OPTIONS", o.url(""), "{}"), 400, "invalid")
		query := ""
		for _, p := range o.params {
			query += p.Name + "=1&"
		}
		g := s.do("OPTIONS", o.url(query), "")
		allow := strings.Split(g.header.Get("Allow"), ", ")
		if g.status != 204 || len(g.body) != 0 || !slices.Contains(allow, o.method) ||
			!slices.Contains(allow, "OPTIONS") || slices.Contains(allow, "GET") != slices.Contains(allow, "HEAD") ||
			slices.Contains(allow, "PATCH") {
			t.Errorf("%s: %d %v", o.path, g.status, g.header)
		}
	}
	s.problem(s.do("OPTIONS", "/nothing", ""), 404, "not_found")
	s.problem(s.do("OPTIONS", "/v1/services/bank/events?from=1&from=2", ""), 400, "invalid")
	if n := s.fake.calls.Load(); n != 0 {
		t.Errorf("%d calls", n)
	}
	if p := s.problem(s.do("GET", "/v1/services/", "", "Authorization", "Bearer "+secret), 404,
		"not_found"); !strings.Contains(p.Detail, "slash") {
		t.Error(p.Detail)
	}
}
