package gateway

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

const commands = "/v1/services/bank/entities/alice/commands/"

func TestCommand(t *testing.T) {
	s := start(t, Options{})
	g := s.do("POST", commands+"add", `{"n":1}`, "Idempotency-Key", `"a\"b"`, "If-Match", `"0"`,
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate", "x=y",
		"Bulkhead-Metadata", `{"actor":"t\u00e9ller"}`, "Bulkhead-Deadline-Ms", "60000")
	r := decode[api.Reply](s, g)
	if r.Service != "bank" || r.Key != "alice" || r.CommandID != `a"b` || string(r.Reply) != `{"ok":true}` || r.Version != 1 || r.Position != 1 ||
		r.Cursor != cursorOf("bank", 1) || r.Events != 1 || r.Fuel != 7 || r.Repeated {
		t.Errorf("reply %+v", r)
	}
	if g.header.Get("ETag") != `"1"` {
		t.Errorf("ETag is %s", g.header.Get("ETag"))
	}
	c := s.fake.seen[0]
	if string(c.Data) != `{"n":1}` || c.Expected == nil || *c.Expected != 0 || c.Deadline.IsZero() {
		t.Errorf("command %+v", c)
	}
	for name, want := range map[string]string{"actor": "téller",
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "x=y"} {
		if v, _ := c.Metadata.Get(name); string(v) != want {
			t.Errorf("metadata %s is %q", name, v)
		}
	}
	// The default content type of command line clients is accepted as JSON; the host chooses an id.
	r = decode[api.Reply](s, s.do("POST", commands+"add", `1`, "Content-Type", "application/x-www-form-urlencoded", "Idempotency-Key", "bare"))
	if r.CommandID != "bare" {
		t.Errorf("id %q", r.CommandID)
	}
	if r = decode[api.Reply](s, s.do("POST", commands+"add", "")); len(r.CommandID) < 16 {
		t.Errorf("id %q", r.CommandID)
	}
	// Bytes that are not JSON cannot break out of the answer.
	r = decode[api.Reply](s, s.do("POST", commands+"binary", ""))
	if string(r.Data()) != "\xff\"}" || r.Reply != nil {
		t.Errorf("reply %+v", r)
	}
	// Data without a content type has the encoding of the service.
	for _, headers := range [][]string{nil, {"Content-Type", "application/x-www-form-urlencoded"}} {
		decode[api.Reply](s, s.do("POST", "/v1/services/blob/entities/other/commands/add", "no JSON", headers...))
	}
	s.problem(s.do("POST", "/v1/services/blob/entities/k/commands/add", "no JSON", "Content-Type", "application/json"),
		400, "invalid")
	s.problem(s.do("POST", "/v1/services/none/entities/k/commands/add", "no JSON"), 404, "not_found")
	r = decode[api.Reply](s, s.do("POST", "/v1/services/blob/entities/k/commands/add", "1", "Content-Type",
		"application/octet-stream"))
	if r.Version != 1 {
		t.Errorf("reply %+v", r)
	}
	if g := s.do("POST", commands+"add", "", "If-None-Match", "*"); g.status != http.StatusPreconditionFailed {
		t.Errorf("If-None-Match: %s", g.body)
	}
}

func TestKeysInPaths(t *testing.T) {
	s := start(t, Options{})
	long := strings.Repeat("k", abi.MaxKeySize)
	for path, want := range map[string]service.Key{
		"a%2Fb": "a/b", "a%2F..%2Fb": "a/../b", "%C3%A9": "é", "a%20b+c": "a b+c", "%25": "%", "%2e%2e%2e": "...",
		"a;b=c,d": "a;b=c,d", long: service.Key(long), "%3F%23": "?#", "commands": "commands",
	} {
		r := decode[api.Reply](s, s.do("POST", "/v1/services/bank/entities/"+path+"/commands/add", ""))
		if r.Key != want {
			t.Errorf("%s: key %q, want %q", path, r.Key, want)
		}
	}
	before := len(s.fake.seen)
	for _, path := range []string{"%2e%2e", "%2E", "..", ".", long + "k", "a%00b", "a%0ab", "%C2%85", "%ff", "%C3"} {
		s.problem(s.do("POST", "/v1/services/bank/entities/"+path+"/commands/add", ""), 400, "invalid")
	}
	for _, path := range []string{"/v1/services/bank/entities//commands/add", "/v1//services", "/v1/services//",
		"/v1/./services"} {
		s.problem(s.do("POST", path, ""), 400, "invalid")
	}
	for _, typ := range []string{"a%2Fb", "a%20b", "%00", strings.Repeat("t", 129), "%C3%A9"} {
		s.problem(s.do("POST", commands+typ, ""), 400, "invalid")
	}
	for _, name := range []string{"Bank", "a%2Fb", "9", strings.Repeat("s", 64)} {
		s.problem(s.do("POST", "/v1/services/"+name+"/entities/k/commands/add", ""), 400, "invalid")
	}
	if len(s.fake.seen) != before {
		t.Errorf("%d of the refused commands came through", len(s.fake.seen)-before)
	}
}

func TestCommandRefusals(t *testing.T) {
	s := start(t, Options{})
	big := strings.Repeat("x", abi.MaxMetadataSize)
	tests := []struct {
		name    string
		path    string
		body    string
		headers []string
		status  int
		kind    string
	}{
		{"no such service", "/v1/services/none/entities/k/commands/add", "", nil, 404, "not_found"},
		{"no such command", commands + "nothing", "", nil, 404, "unknown_type"},
		{"bad JSON", commands + "add", "{", nil, 400, "invalid"},
		{"two values", commands + "add", "1 2", nil, 400, "invalid"},
		{"other content type", commands + "add", "x", []string{"Content-Type", "text/plain"}, 415, "unsupported"},
		{"bad content type", commands + "add", "x", []string{"Content-Type", "/"}, 415, "unsupported"},
		{"too large", commands + "add", `"` + strings.Repeat("x", 1<<20) + `"`, nil, 413, "too_large"},
		{"wrong version", commands + "add", "", []string{"If-Match", `"7"`}, 412, "version_conflict"},
		{"weak version", commands + "add", "", []string{"If-Match", `W/"7"`}, 400, "invalid"},
		{"bare version", commands + "add", "", []string{"If-Match", `7`}, 400, "invalid"},
		{"two versions", commands + "add", "", []string{"If-Match", `"7"`, "If-Match", `"8"`}, 400, "invalid"},
		{"both conditions", commands + "add", "", []string{"If-Match", `"7"`, "If-None-Match", `*`}, 400, "invalid"},
		{"odd condition", commands + "add", "", []string{"If-None-Match", `"7"`}, 400, "invalid"},
		{"empty id", commands + "add", "", []string{"Idempotency-Key", `""`}, 400, "invalid"},
		{"open id", commands + "add", "", []string{"Idempotency-Key", `"abc`}, 400, "invalid"},
		{"id with space", commands + "add", "", []string{"Idempotency-Key", `"a b"`}, 400, "invalid"},
		{"two ids", commands + "add", "", []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, 400, "invalid"},
		{"deadline over", commands + "add", "", []string{"Bulkhead-Deadline-Ms", "0"}, 504, "deadline_exceeded"},
		{"deadline in the past", commands + "add", "", []string{"Bulkhead-Deadline-Ms", "-5"}, 504,
			"deadline_exceeded"},
		{"deadline no number", commands + "add", "", []string{"Bulkhead-Deadline-Ms", "1s"}, 400, "invalid"},
		{"metadata no object", commands + "add", "", []string{"Bulkhead-Metadata", "[]"}, 400, "invalid"},
		{"metadata no strings", commands + "add", "", []string{"Bulkhead-Metadata", `{"a":1}`}, 400, "invalid"},
		{"metadata twice", commands + "add", "", []string{"Bulkhead-Metadata", `{"a":"1","a":"2"}`}, 400, "invalid"},
		{"metadata too large", commands + "add", "", []string{"Bulkhead-Metadata", `{"a":"` + big + `"}`}, 413, "too_large"},
		{"trace twice", commands + "add", "", []string{"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Bulkhead-Metadata", `{"traceparent":"x"}`}, 400, "invalid"},
		{"rejected", commands + "reject", "", []string{"Idempotency-Key", "r1"}, 422, "rejected"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sub := *s
			sub.T = t
			p := sub.problem(sub.do("POST", tt.path, tt.body, tt.headers...), tt.status, tt.kind)
			if tt.kind == "rejected" && (p.Code != "insufficient_funds" || p.Detail != "the balance is 0" ||
				p.CommandID != "r1" || p.Service != "bank") {
				t.Errorf("problem %+v", p)
			}
		})
	}
	if head := s.fake.services["bank"].status.Head; head != 0 {
		t.Errorf("%d events were written", head)
	}
}

// Each kind arrives with its status, for commands and queries, and contains nothing that is not for clients;
// the log has it under the same id.
func TestEveryKind(t *testing.T) {
	s := start(t, Options{})
	for k := service.KindInternal; ; k++ {
		name := k.String()
		if k > 0 && name == "internal" {
			break
		}
		for _, path := range []string{commands + "fail-" + name, "/v1/services/bank/entities/alice/queries/fail-" +
			name} {
			p := s.problem(s.do("POST", path, ""), api.StatusOf(k), name)
			if k == service.KindInternal && (p.Detail != "" || p.Code != "" || p.Reasons != nil) {
				t.Errorf("an internal error says %+v", p)
			}
			if k != service.KindInternal && (p.Detail != "told to fail" || p.Code != "some_code" ||
				len(p.Reasons) != 1) {
				t.Errorf("%s: problem %+v", name, p)
			}
			if log := s.logged.String(); !strings.Contains(log, "request="+p.RequestID()) ||
				!strings.Contains(log, "secret stack") {
				t.Errorf("the log does not have request %s", p.RequestID())
			}
			if back := p.Err(); back.Kind != k || back.Message == "" {
				t.Errorf("%s comes back as %v", name, back)
			}
		}
	}
}

func TestQueries(t *testing.T) {
	s := start(t, Options{})
	s.do("POST", commands+"add", "")
	base := "/v1/services/bank/entities/alice/queries/look"
	for i, g := range []got{s.do("GET", base, ""), s.do("GET", base+"?data=%7B%7D", ""), s.do("POST", base, `{}`)} {
		r := decode[api.QueryReply](s, g)
		if string(r.Reply) != `{"ok":true}` || r.Version != 1 || strings.HasPrefix(g.header.Get("ETag"), `W/"1-`) != (i < 2) {
			t.Errorf("reply %+v, header %v", r, g.header)
		}
	}
	if d := s.fake.seen[2].Data; string(d) != "{}" {
		t.Errorf("data is %s", d)
	}
	s.problem(s.do("GET", base+"?data={", ""), 400, "invalid")
	s.problem(s.do("GET", base+"?data=1&data=2", ""), 400, "invalid")
	s.problem(s.do("GET", base+"?%zz", ""), 400, "invalid")
	s.problem(s.do("POST", base, "{"), 400, "invalid")
	s.problem(s.do("GET", base, "", "Bulkhead-Deadline-Ms", "0"), 504, "deadline_exceeded")
	s.problem(s.do("GET", "/v1/services/none/entities/a/queries/look", ""), 404, "not_found")
}

func TestServices(t *testing.T) {
	t.Parallel()
	s := start(t, Options{ModuleBytes: 1 << 20})
	m := decode[api.Module](s, s.do("POST", "/v1/modules", "\x00asm good", "Content-Type", "application/wasm"))
	if m.Size != 9 || m.Digest != service.DigestOf([]byte("\x00asm good")) || m.Manifest.Service != "bank" {
		t.Errorf("module %+v", m)
	}
	if p := s.problem(s.do("POST", "/v1/modules", "bad"), 422, "bad_module"); len(p.Reasons) != 2 {
		t.Errorf("problem %+v", p)
	}
	s.problem(s.do("POST", "/v1/modules", ""), 422, "bad_module")
	s.problem(s.do("POST", "/v1/modules", strings.Repeat("x", 1<<20+1)), 413, "too_large")
	// The limit also applies without a length.
	s.problem(s.doBody("POST", "/v1/modules",
		struct{ *strings.Reader }{strings.NewReader(strings.Repeat("x", 1<<20+1))}), 413, "too_large")
	s.problem(s.do("POST", "/v1/modules", "x", "Content-Type", "text/plain"), 415, "unsupported")

	all := decode[api.Services](s, s.do("GET", "/v1/services?manifest=true", ""))
	if len(all.Services) != 2 || all.Services[0].Spec.Service != "bank" ||
		all.Services[0].Manifest.Encoding != abi.EncodingJSON {
		t.Errorf("services %+v", all)
	}
	all = decode[api.Services](s, s.do("GET", "/v1/services", ""))
	if len(all.Services) != 2 || all.Services[1].Spec.Service != "blob" || all.Services[1].Manifest != nil {
		t.Errorf("services %+v", all)
	}
	s.problem(s.do("GET", "/v1/services?manifest=1", ""), 400, "invalid")
	one := decode[api.Service](s, s.do("GET", "/v1/services/bank", ""))
	if one.Cursor != cursorOf("bank", 0) || one.State != service.StateRunning {
		t.Errorf("service %+v", one)
	}
	s.problem(s.do("GET", "/v1/services/none", ""), 404, "not_found")

	body, _ := json.Marshal(api.Deployment{Module: m.Digest, Limits: service.Limits{Events: 5},
		Settings: service.Settings{Shards: 3}})
	one = decode[api.Service](s, s.do("PUT", "/v1/services/shop", string(body)))
	if one.Spec.Module != m.Digest || one.Spec.Limits.Events != 5 || one.Spec.Settings.Shards != 3 {
		t.Errorf("service %+v", one)
	}
	for bad, why := range map[string]string{
		"": "the deployment: it is empty, where JSON is expected", "{}": "names no module", `{"module":"sha256:00"}`: "is not sha256: and 64", string(body) + "x": "after the JSON",
		strings.Replace(string(body), "limits", "limts", 1):            `the deployment: there is no member "limts"`,
		strings.Replace(string(body), `"events":5`, `"events":"5"`, 1): "the deployment: limits.events is a string; it takes a whole number",
		"[]": "the deployment: it is an array; it should be a JSON object",
		"x":  "the deployment: it is not JSON: invalid character 'x'",
	} {
		if p := s.problem(s.do("PUT", "/v1/services/shop", bad), 400, "invalid"); !strings.Contains(p.Detail, why) {
			t.Errorf("%s: %q, want %q", bad, p.Detail, why)
		}
	}
	s.problem(s.do("PUT", "/v1/services/shop", "x", "Content-Type", "text/plain"), 415, "unsupported")

	one = decode[api.Service](s,
		s.do("POST", "/v1/services/shop/deployments?shards=4&memory_bytes=131072&omit_command_data=true&keep_nan=true",
			"\x00asm"))
	if one.Spec.Settings.Shards != 4 || !one.Spec.Settings.OmitCommandData || !one.Spec.Settings.KeepNaN ||
		one.Spec.Limits.MemoryBytes != 131072 {
		t.Errorf("service %+v", one)
	}
	for _, bad := range []string{"shards=x", "shads=1", "shards=1&shards=2", "shards=99999", "memory_bytes=1",
		"shards=true", "omit_command_data=1"} {
		s.problem(s.do("POST", "/v1/services/shop/deployments?"+bad, "\x00asm"), 400, "invalid")
	}
	if g := s.do("DELETE", "/v1/services/shop", ""); g.status != http.StatusNoContent || len(g.body) != 0 {
		t.Errorf("delete: %d %s", g.status, g.body)
	}
	s.problem(s.do("DELETE", "/v1/services/shop", ""), 404, "not_found")
}

func TestUploadProgress(t *testing.T) {
	s := start(t, Options{})
	for module, want := range map[string]string{
		"\x00asm good": `{"progress":{"stage":"verifying","done":1,"total":2}}` + "\n" + `{"module":{"digest":"sha256:`,
		"\x00asm bad":  `{"progress":{"stage":"verifying","done":1,"total":2}}` + "\n" + `{"problem":{"type":"urn:bulkhead:problem:bad-module"`,
	} {
		g := s.do("POST", "/v1/modules", module, "Accept", api.ContentLines)
		if g.status != 200 || g.header.Get("Content-Type") != api.ContentLines ||
			!strings.HasPrefix(string(g.body), want) || strings.Count(string(g.body), "\n") != 2 {
			t.Errorf("%q: %d %v\n%s", module, g.status, g.header, g.body)
		}
	}
}

func TestDeploymentProgress(t *testing.T) {
	s := start(t, Options{})
	lines := func() (all []api.DeployLine) {
		g := s.do("POST", "/v1/services/shop/deployments", "\x00asm", "Accept", "application/x-ndjson")
		if g.status != 200 || g.header.Get("Content-Type") != api.ContentLines {
			t.Fatalf("%d %v", g.status, g.header)
		}
		for scan := bufio.NewScanner(strings.NewReader(string(g.body))); scan.Scan(); {
			var l api.DeployLine
			if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
				t.Fatal(err)
			}
			all = append(all, l)
		}
		return all
	}
	all := lines()
	if len(all) != 2 || all[0].Progress == nil || all[0].Progress.Stage != "compile" || all[1].Service == nil ||
		all[1].Service.Spec.Service != "shop" {
		t.Errorf("lines %+v", all)
	}
	s.fake.deployErr = service.Errorf(service.KindConflicting, "does not fit")
	all = lines()
	if len(all) != 2 || all[1].Problem == nil || all[1].Problem.Kind != "conflict" {
		t.Errorf("lines %+v", all)
	}
	s.problem(s.do("POST", "/v1/services/shop/deployments", "\x00asm"), 409, "conflict")
}

func TestPages(t *testing.T) {
	s := start(t, Options{})
	for i := range 200 {
		s.do("POST", fmt.Sprintf("/v1/services/bank/entities/k%d/commands/%s", i%4, []string{"add", "other"}[i/100]),
			"")
	}
	read := func(query string) (positions []int, pages int) {
		for from := ""; ; pages++ {
			p := decode[api.Page](s, s.do("GET", "/v1/services/bank/events?"+query+"&from="+from, ""))
			for _, raw := range p.Events {
				e, err := api.DecodeEvent(raw)
				if err != nil {
					t.Fatal(err)
				}
				positions = append(positions, int(e.Position))
			}
			if from = p.Next; !p.More {
				return positions, pages + 1
			}
		}
	}
	if all, pages := read(""); len(all) != 200 || all[199] != 200 || pages != 2 {
		t.Errorf("%d events on %d pages", len(all), pages)
	}
	if all, pages := read("limit=7"); len(all) != 200 || pages != 29 {
		t.Errorf("%d events on %d pages", len(all), pages)
	}
	if all, _ := read("types=Other&keys=k1,k2"); len(all) != 50 || all[0] != 102 {
		t.Errorf("%d events: %v", len(all), all)
	}
	if all, _ := read("keys=k1&keys=none&limit=1000"); len(all) != 50 {
		t.Errorf("%d events", len(all))
	}
	p := decode[api.Page](s, s.do("GET", "/v1/services/bank/events?from=200", ""))
	if e, err := api.DecodeEvent(p.Events[0]); err != nil || len(p.Events) != 1 || e.Position != 200 {
		t.Errorf("from the position 200: %s, %v", p.Events, err)
	}
	p = decode[api.Page](s, s.do("GET", "/v1/services/bank/events?from=end", ""))
	if len(p.Events) != 0 || p.Next != cursorOf("bank", 200) || p.More {
		t.Errorf("page %+v", p)
	}
	for query, kind := range map[string]string{
		"limit=0": "invalid", "limit=1001": "invalid", "limit=x": "invalid", "from=nonsense": "bad_cursor",
		"from=0": "invalid", "from=2026-01-31": "invalid", "from=-1w": "invalid",
		"from=" + cursorOf("blob", 1):   "bad_cursor",
		"from=" + cursorOf("bank", 201): "bad_cursor", "keys=" + strings.Repeat("k,", 128) + "k": "invalid",
		"keys=%2e%2e": "invalid", "types=a%20b": "invalid", "types=": "invalid", "keys=": "invalid",
		"keys=%zz": "invalid", "from=a&from=b": "invalid",
	} {
		s.problem(s.do("GET", "/v1/services/bank/events?"+query, ""), 400, kind)
	}
	s.problem(s.do("GET", "/v1/services/none/events", ""), 404, "not_found")
	if all, _ := read("%74ypes=Other&%6beys=k1"); len(all) != 25 {
		t.Errorf("%d events", len(all))
	}
	// A misspelt filter is refused, not ignored.
	for _, path := range []string{"/v1/services/bank/events?type=Other",
		"/v1/services/bank/entities/k1/events?from=start", "/v1/services/bank/entities/k1/queries/look?date=1"} {
		s.problem(s.do("GET", path, ""), 400, "invalid")
	}

	e := decode[api.EntityPage](s, s.do("GET", "/v1/services/bank/entities/k1/events?limit=30", ""))
	if len(e.Events) != 30 || e.Next != cursorOf("bank", 118) || !e.More {
		t.Errorf("page of %d, next %s, more %t", len(e.Events), e.Next, e.More)
	}
	e = decode[api.EntityPage](s, s.do("GET", "/v1/services/bank/entities/k1/events?after=30", ""))
	if len(e.Events) != 20 || e.Next != cursorOf("bank", 198) || e.More {
		t.Errorf("page of %d, next %s, more %t", len(e.Events), e.Next, e.More)
	}
	if e.First != 1 {
		t.Errorf("the first is %d", e.First)
	}
	if gone := decode[api.EntityPage](s, s.do("GET", "/v1/services/bank/entities/k9/events", "")); gone.First != 4 ||
		len(gone.Events) != 0 {
		t.Errorf("where all events were deleted: %+v", gone)
	}
	e = decode[api.EntityPage](s, s.do("GET", "/v1/services/bank/entities/nobody/events", ""))
	if e.Events == nil || len(e.Events) != 0 || e.More {
		t.Errorf("page %+v", e)
	}
	s.problem(s.do("GET", "/v1/services/bank/entities/k1/events?after=-1", ""), 400, "bad_cursor")
	s.problem(s.do("GET", "/v1/services/none/entities/k1/events", ""), 404, "not_found")
}

// Large events make short pages, and no event between two pages is left out.
func TestPagesOfLargeEvents(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	const events, size = 70, 200 << 10
	s.fake.mu.Lock()
	for i := range events {
		s.fake.services["bank"].append("k", "Added", service.Version(i+1), `"`+strings.Repeat("x", size)+`"`)
	}
	s.fake.mu.Unlock()
	check := func(what string, page []json.RawMessage, seen int) int {
		t.Helper()
		total := 0
		for _, raw := range page {
			e, err := api.DecodeEvent(raw)
			if err != nil {
				t.Fatal(err)
			}
			if seen++; int(e.Position) != seen {
				t.Fatalf("%s: event %d after %d", what, e.Position, seen-1)
			}
			total += len(raw)
		}
		if total > pageBytes+size+1024 {
			t.Errorf("%s: a page of %d bytes", what, total)
		}
		return seen
	}
	seen, pages := 0, 0
	for from, more := "", true; more; pages++ {
		p := decode[api.Page](s, s.do("GET", "/v1/services/bank/events?limit=1000&from="+from, ""))
		seen = check("service", p.Events, seen)
		from, more = p.Next, p.More
	}
	if seen != events || pages < events*size/pageBytes {
		t.Errorf("service: %d events on %d pages", seen, pages)
	}
	seen, pages = 0, 0
	for after, more := "", true; more; pages++ {
		p := decode[api.EntityPage](s, s.do("GET", "/v1/services/bank/entities/k/events?limit=1000&after="+after, ""))
		seen = check("entity", p.Events, seen)
		after, more = p.Next, p.More
	}
	if seen != events || pages < events*size/pageBytes {
		t.Errorf("entity: %d events on %d pages", seen, pages)
	}
}

// Services that do not run are listed, to clients that may list services, and do not make the host unready.
func TestReadinessListsServices(t *testing.T) {
	const token = "0123456789abcdef"
	s := start(t, Options{Token: token})
	s.fake.mu.Lock()
	s.fake.services["bank"].status.State = service.StateStarting
	s.fake.services["blob"].status.State = service.StateFailed
	s.fake.mu.Unlock()
	g := s.do("GET", "/readyz", "", "Authorization", "Bearer "+token)
	if want := `{"status":"ready","services":{"failed":{"count":1,"names":["blob"]},"starting":{"count":1,"names":["bank"]}}}` + "\n"; g.status != 200 || string(g.body) != want {
		t.Errorf("%d %s, want %s", g.status, g.body, want)
	}
	g = s.do("GET", "/readyz", "")
	if want := `{"status":"ready","services":{"failed":{"count":1},"starting":{"count":1}}}` + "\n"; g.status != 200 || string(g.body) != want {
		t.Errorf("without the token: %d %s, want %s", g.status, g.body, want)
	}
}

// Before a service has started, its encoding is unknown unless it was recorded. So nothing that may be valid
// is refused as unsupported.
func TestDataForAServiceThatStarts(t *testing.T) {
	s := start(t, Options{})
	status := &s.fake.services["blob"].status
	encoding := status.Manifest.Encoding
	s.fake.mu.Lock()
	status.State, status.Manifest = service.StateStarting, abi.Manifest{}
	s.fake.mu.Unlock()
	const path = "/v1/services/blob/entities/k/commands/add"
	g := s.do("POST", path, "\x00\x01", "Content-Type", encoding)
	s.problem(g, 503, "unavailable")
	if g.header.Get("Retry-After") == "" {
		t.Error("nothing is said about when to try again")
	}
	s.problem(s.do("POST", path, "\x00\x01"), 503, "unavailable") // without a content type
	if g := s.do("POST", path, "{}"); g.status != 200 {
		t.Errorf("JSON, which any service may take: %d %s", g.status, g.body)
	}
	s.fake.mu.Lock()
	status.Manifest.Encoding = encoding // as it was recorded
	s.fake.mu.Unlock()
	if g := s.do("POST", path, "\x00\x01", "Content-Type", encoding); g.status != 200 {
		t.Errorf("with an encoding that is known: %d %s", g.status, g.body)
	}
}

func TestOtherRoutes(t *testing.T) {
	s := start(t, Options{})
	if h := decode[api.Health](s, s.do("GET", "/healthz", "")); h.Status != "ok" {
		t.Error(h)
	}
	if h := decode[api.Readiness](s, s.do("GET", "/readyz", "")); h.Status != "ready" || len(h.Services) > 0 {
		t.Error(h)
	}
	s.fake.mu.Lock()
	s.fake.ready = errors.New("secret: disk gone")
	s.fake.mu.Unlock()
	s.problem(s.do("GET", "/readyz", ""), 503, "unavailable")
	s.problem(s.do("GET", "/metrics", ""), 404, "not_found") // no metrics were configured
	if g := s.do("GET", "/openapi.json", ""); g.status != 200 || string(g.body) != string(api.OpenAPI()) {
		t.Errorf("openapi: %d", g.status)
	}
	s.problem(s.do("GET", "/nothing", ""), 404, "not_found")
	s.problem(s.do("GET", "/", ""), 404, "not_found")
	g := s.do("PATCH", "/v1/services/bank", "")
	s.problem(g, 405, "unsupported")
	if a := g.header.Get("Allow"); a != "DELETE, GET, HEAD, OPTIONS, PUT" {
		t.Errorf("Allow: %s", a)
	}
	g = s.do("GET", "/v1/stream", "")
	s.problem(g, 426, "unsupported")
	if g.header.Get("Upgrade") != "websocket" {
		t.Errorf("header %v", g.header)
	}
	a := s.attacker()
	a.put("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if resp, err := http.ReadResponse(a.r, nil); err != nil || resp.StatusCode != 204 ||
		resp.Header.Get("Allow") != "DELETE, GET, HEAD, OPTIONS, POST, PUT" {
		t.Errorf("OPTIONS *: %v, %v", resp, err)
	}
	if g := s.do("HEAD", "/v1/services/bank/events", "", "Accept", "text/event-stream"); g.status != 200 ||
		len(g.body) != 0 {
		t.Errorf("HEAD: %d", g.status)
	}
}

// A backup is a stream. A refusal comes before it, and a stream that breaks off is not taken for complete.
func TestBackup(t *testing.T) {
	s := start(t, Options{})
	g := s.do("POST", "/v1/backup", `{"id":"the last"}`)
	if g.status != 200 || string(g.body) != `backup since {"id":"the last"}` || g.header.Get("Content-Type") != api.ContentBackup {
		t.Errorf("%d %v %s", g.status, g.header, g.body)
	}
	if p := s.problem(s.do("POST", "/v1/backup", `{"id":"none"}`), 409, "conflict"); p.Detail != "of another journal" {
		t.Errorf("%+v", p)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.server.URL()+"/v1/backup", strings.NewReader(`{"id":"half"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("half a backup ends like a whole one")
	}
	for range maxBackups {
		s.server.backups <- struct{}{}
	}
	s.problem(s.do("POST", "/v1/backup", ""), 503, "overloaded")
}

func TestJournal(t *testing.T) {
	s := start(t, Options{})
	j := decode[service.JournalStats](s, s.do("GET", "/v1/journal", ""))
	if j.Stats.Events != 7 || len(j.Logs) != 1 || j.Logs[0].Head != 3 || j.Logs[0].Bytes != nil {
		t.Errorf("%+v", j)
	}
	if j.Readers == nil || j.Readers.AtOnce != 1 || j.Readers.Turns != 7 {
		t.Errorf("readers %+v", j.Readers)
	}
	j = decode[service.JournalStats](s, s.do("GET", "/v1/journal?measure=true", ""))
	if j.Logs[0].Bytes == nil || *j.Logs[0].Bytes != 99 || j.Logs[0].Types == nil || *j.Logs[0].Types != 2 {
		t.Errorf("%+v", j)
	}
	s.problem(s.do("GET", "/v1/journal?measure=perhaps", ""), 400, "invalid")
}

func TestEventTypes(t *testing.T) {
	s := start(t, Options{})
	want := []journal.EventType{{Type: "added", Count: 2, First: 1, Last: 3},
		{Type: "taken", Count: 1, First: 2, Last: 2}}
	if got := decode[api.EventTypes](s, s.do("GET", "/v1/services/bank/event-types", "")); !slices.Equal(got.Types,
		want) {
		t.Errorf("%+v", got)
	}
	s.problem(s.do("GET", "/v1/services/nobody/event-types", ""), 404, "not_found")
}

func TestRetention(t *testing.T) {
	s := start(t, Options{})
	g := s.do("GET", "/v1/services/bank/batches?through=7", "")
	if g.status != 200 || string(g.body) != "bank through 7" || g.header.Get("Content-Type") != api.ContentBackup {
		t.Errorf("%d %v %s", g.status, g.header, g.body)
	}
	s.problem(s.do("GET", "/v1/services/bank/batches?through=x", ""), 400, "invalid")
	s.problem(s.do("GET", "/v1/services/none/batches", ""), 404, "not_found")
	r := decode[journal.Retained](s, s.do("POST", "/v1/services/bank/retention", `{"before":5,"through":3,"dry_run":true}`))
	if r.First != 5 || r.Through != 3 || !r.Promised {
		t.Errorf("%+v", r)
	}
	s.problem(s.do("POST", "/v1/services/bank/retention", `{"before":13}`), 409, "conflict")
	for _, bad := range []string{``, `{}`, `{"force":true}`, `{"before":-1}`, `{"older_than_ms":-5}`, `{"after":5}`, `{"before":5}x`} {
		s.problem(s.do("POST", "/v1/services/bank/retention", bad), 400, "invalid")
	}
}

func TestPanicIsAProblem(t *testing.T) {
	s := start(t, Options{})
	s.fake.mu.Lock()
	s.fake.services["bank"] = nil // makes the fake panic
	s.fake.mu.Unlock()
	defer func() { s.fake.mu.Lock(); delete(s.fake.services, "bank"); s.fake.mu.Unlock() }()
	p := s.problem(s.do("GET", "/v1/services/bank", ""), 500, "internal")
	if !strings.Contains(s.logged.String(), "handler panicked") || p.Detail != "" {
		t.Errorf("problem %+v", p)
	}
}
