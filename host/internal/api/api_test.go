package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// document is the part of an OpenAPI document that these tests read.
type document struct {
	Info  struct{ Description string }
	Paths map[string]map[string]struct {
		RequestBody struct{ Content map[string]media }
		Responses   map[string]struct{ Content map[string]media }
	}
	Components struct {
		Responses map[string]struct{ Content map[string]media }
		Schemas   map[string]struct {
			Properties map[string]json.RawMessage
			Examples   []json.RawMessage
		}
	}
}

type media struct {
	Schema struct {
		Ref string `json:"$ref"`
	}
	Example json.RawMessage
}

// forms are the types that the schemas of the document describe.
var forms = map[string]any{
	"Problem": Problem{}, "Manifest": Manifest{}, "Module": Module{}, "Limits": service.Limits{},
	"Settings":   service.Settings{},
	"Deployment": Deployment{}, "Service": Service{}, "Services": Services{}, "Resources": Resources{},
	"Modules": service.Modules{}, "DeploymentPage": service.DeploymentPage{},
	"QuarantinePage": service.QuarantinePage{},
	"Released":       service.Released{},
	"DeployLine":     DeployLine{}, "UploadLine": UploadLine{}, "Reply": Reply{},
	"QueryReply": QueryReply{}, "Event": Event{}, "Page": Page{}, "EntityPage": EntityPage{},
	"ClientMessage": ClientMessage{},
	"ServerMessage": ServerMessage{}, "Health": Health{}, "Readiness": Readiness{},
}

func read(t *testing.T) document {
	t.Helper()
	var raw map[string]any
	if err := json.Unmarshal(OpenAPI(), &raw); err != nil {
		t.Fatal(err)
	}
	for path, item := range raw["paths"].(map[string]any) { // parameters are not an operation
		delete(item.(map[string]any), "parameters")
		raw["paths"].(map[string]any)[path] = item
	}
	text, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// Each example decodes into the type that its schema describes, and is the same when it is encoded again: no
// member is misspelt, and none is lost.
func TestExamples(t *testing.T) {
	d := read(t)
	count := 0
	check := func(where string, m media) {
		name := strings.TrimPrefix(m.Schema.Ref, "#/components/schemas/")
		if name == "" {
			return
		}
		if len(m.Example) == 0 {
			t.Errorf("%s has no example", where)
			return
		}
		count++
		roundTrip(t, where, name, m.Example)
	}
	for path, item := range d.Paths {
		for method, op := range item {
			for content, m := range op.RequestBody.Content {
				check(method+" "+path+" takes "+content, m)
			}
			for status, r := range op.Responses {
				for content, m := range r.Content {
					check(method+" "+path+" answers "+status+" "+content, m)
				}
			}
		}
	}
	for name, r := range d.Components.Responses {
		for content, m := range r.Content {
			check(name+" "+content, m)
		}
	}
	for name, s := range d.Components.Schemas {
		for i, e := range s.Examples {
			count++
			roundTrip(t, fmt.Sprintf("%s %d", name, i), name, e)
		}
	}
	if count < 25 {
		t.Errorf("only %d examples were found", count)
	}
}

func roundTrip(t *testing.T, where, schema string, example []byte) {
	t.Helper()
	form, ok := forms[schema]
	if !ok {
		t.Errorf("%s: no type for schema %s", where, schema)
		return
	}
	v := reflect.New(reflect.TypeOf(form))
	if err := json.Unmarshal(example, v.Interface()); err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	again, err := json.Marshal(v.Interface())
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	var want, got map[string]any
	if json.Unmarshal(example, &want) != nil || json.Unmarshal(again, &got) != nil {
		t.Fatalf("%s: not objects", where)
	}
	for name, w := range want {
		if name != "manifest" && name != "services" && name != "event" && !reflect.DeepEqual(got[name], w) &&
			!strings.Contains(where, "ndjson") {
			if g, ok := got[name].(map[string]any); ok && g["manifest"] != nil {
				continue
			}
			t.Errorf("%s: %s is %v and comes back as %v", where, name, w, got[name])
		}
	}
}

// The schemas have the members of the types, no more and no fewer.
func TestSchemasAreTheTypes(t *testing.T) {
	d := read(t)
	for name, form := range forms {
		s, ok := d.Components.Schemas[name]
		if !ok {
			t.Errorf("there is no schema %s", name)
			continue
		}
		if name == "Manifest" { // it has its own JSON
			continue
		}
		members := map[string]bool{}
		memberNames(reflect.TypeOf(form), members)
		for m := range members {
			if _, ok := s.Properties[m]; !ok && name != "ServerMessage" { // it embeds Reply
				t.Errorf("schema %s lacks %s", name, m)
			}
		}
		for m := range s.Properties {
			if !members[m] {
				t.Errorf("schema %s has %s, which the type lacks", name, m)
			}
		}
	}
}

func memberNames(t reflect.Type, into map[string]bool) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			memberNames(f.Type, into)
		case name != "-" && name != "":
			into[name] = true
		}
	}
}

// Every kind has its own status and title, and the document lists all of them.
func TestKinds(t *testing.T) {
	d := read(t)
	var schema struct{ Enum []string }
	if err := json.Unmarshal(d.Components.Schemas["Problem"].Properties["kind"], &schema); err != nil {
		t.Fatal(err)
	}
	n := 0
	for k := service.KindInternal; k == service.KindInternal || k.String() != "internal"; k++ {
		f, ok := kinds[k]
		if !ok || f.title == "" || f.status < 400 {
			t.Errorf("kind %s has no status or title", k)
		}
		if row := fmt.Sprintf("| `%s` | %d | %s |", k, f.status, f.title); !strings.Contains(d.Info.Description, row) {
			t.Errorf("the document lacks %s", row)
		}
		if !slices.Contains(schema.Enum, k.String()) {
			t.Errorf("the schema lists %v, not %s", schema.Enum, k)
		}
		n++
	}
	if n != len(schema.Enum) || n != len(kinds) {
		t.Errorf("%d kinds, %d in the schema, %d with a status", n, len(schema.Enum), len(kinds))
	}
	if StatusOf(service.Kind(200)) != 500 {
		t.Error("a kind of the future is no fault of the host")
	}
}

// A proxy treats 502 as the answer of a missing server: it sends the command again, or takes the host out of
// service. So no failure of a service has this status.
func TestFailuresOfServicesAreNoBadGateway(t *testing.T) {
	for k := service.KindInternal; k == service.KindInternal || k.String() != "internal"; k++ {
		if got := StatusOf(k); got == http.StatusBadGateway {
			t.Errorf("%s is %d", k, got)
		}
	}
	for _, k := range []service.Kind{service.KindFault, service.KindTrap, service.KindGuestMemory,
		service.KindGuestExit, service.KindGuestFuel, service.KindGuestStack, service.KindProtocol,
		service.KindOutcomeTooLarge} {
		if got := StatusOf(k); got != http.StatusInternalServerError {
			t.Errorf("%s is %d", k, got)
		}
	}
}

// A Pointer to the whole data is "", and is still a member of the problem; it survives encoding and decoding.
func TestPointersOfProblems(t *testing.T) {
	root, member := "", "/amount"
	for _, pointer := range []*string{nil, &root, &member} {
		p := ProblemOf(&service.Error{Kind: service.KindInvalid, Message: "m", Pointer: pointer}, "7")
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if has := strings.Contains(string(text), `"pointer":`); has != (pointer != nil) {
			t.Errorf("%v: %s", pointer, text)
		}
		var back Problem
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back.Err().Pointer, pointer) {
			t.Errorf("%s comes back as %v, %v", text, back.Err().Pointer, err)
		}
	}
}

func TestProblems(t *testing.T) {
	cause := errors.New("secret")
	p := ProblemOf(&service.Error{Kind: service.KindRejected, Service: "bank", Code: "c", Message: "m",
		Reasons: []string{"r"}, Detail: "secret", Err: cause, RetryAfter: time.Microsecond}, "7")
	want := Problem{Type: "urn:bulkhead:problem:rejected", Title: "The service refused", Status: 422, Detail: "m",
		Instance: "urn:bulkhead:request:7", Kind: "rejected", Service: "bank", Code: "c", Reasons: []string{"r"},
		RetryAfterMS: 1}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("problem %+v", p)
	}
	for k := range kinds { // a text search finds the member
		text, _ := json.Marshal(ProblemOf(&service.Error{Kind: k}, ""))
		if strings.Contains(k.String(), "_") && strings.Count(string(text), k.String()) != 1 {
			t.Errorf("%s is there more than once: %s", k, text)
		}
	}
	if e := p.Err(); e.Kind != service.KindRejected || e.Code != "c" || e.Message != "m" ||
		e.RetryAfter != time.Millisecond || len(e.Reasons) != 1 {
		t.Errorf("error %+v", e)
	}
	for _, err := range []error{cause, service.Errorf(service.KindInternal, "secret"),
		fmt.Errorf("secret: %w", cause)} {
		if p := ProblemOf(err, "7"); p.Kind != "internal" || p.Detail != "" || p.Status != 500 {
			t.Errorf("%v: %+v", err, p)
		} else if e := p.Err(); !strings.Contains(e.Message, "7") {
			t.Errorf("%v does not name the request", e)
		}
	}
	long := ProblemOf(service.Errorf(service.KindFault, "%s", strings.Repeat("é", maxDetail)), "")
	if len(long.Detail) > maxDetail+len("…") || !strings.HasSuffix(long.Detail, "é…") {
		t.Errorf("detail of %d bytes", len(long.Detail))
	}
	for status, kind := range map[int]service.Kind{401: service.KindUnauthorized, 407: service.KindUnauthorized,
		404: service.KindNotFound, 413: service.KindTooLarge, 415: service.KindUnsupported, 429: service.KindOverloaded,
		418: service.KindInvalid, 500: service.KindUnknown, 502: service.KindUnknown, 302: service.KindUnknown} {
		if e := ErrorOfAnswer(status); e.Kind != kind {
			t.Errorf("%d is %s", status, e.Kind)
		}
		if e := (&Problem{Kind: "of the future", Status: status}).Err(); e.Kind != kind {
			t.Errorf("%d is %s", status, e.Kind)
		}
	}
}

// What is appended by hand can be decoded into the types.
func TestAppended(t *testing.T) {
	r := service.Reply{Service: "bank", Key: "a\"\\\u2028\x01é\xff", CommandID: "id\"", Data: []byte(` {"a":1} `), Events: 2, Position: 1<<64 - 1, Version: 3, Fuel: 4, Repeated: true}
	want := r
	want.Key = "a\"\\\u2028\x01é\ufffd"
	var got Reply
	if err := json.Unmarshal(whole(ReplyText(nil, &r)), &got); err != nil || got.Cursor != r.Cursor.String() {
		t.Fatal(err, got)
	}
	want.Data = []byte(`{"a":1}`)
	if v := got.Value(); !reflect.DeepEqual(v, want) {
		t.Errorf("%+v", v)
	}
	for _, data := range []string{"", "null", `"x"`, "[1,\n2]", "{", "1 2", "\xff", "\"\xff\"", "}", `{"a":1}}`, "\x00"} {
		r := service.QueryReply{Data: []byte(data), Version: 1, Fuel: 2}
		var m ServerMessage
		text := whole(QueryAnswerText(nil, "i\"d", &r))
		if !utf8.Valid(text) {
			t.Errorf("%q makes a message that is no text", data)
		}
		if err := json.Unmarshal(text, &m); err != nil || m.Op != OpReply || m.ID != "i\"d" || m.Version != 1 ||
			m.Fuel != 2 {
			t.Errorf("%q: %v in %s", data, err, text)
		}
		if got := m.Data(); string(got) != data {
			t.Errorf("%q comes back as %q", data, got)
		}
		var q QueryReply
		if err := json.Unmarshal(whole(QueryReplyText(nil, &r)), &q); err != nil || string(q.Data()) != data {
			t.Errorf("%q comes back as %q, %v", data, q.Data(), err)
		}
	}
	for _, tt := range []struct {
		text []byte
		want ServerMessage
	}{
		{AppendSubscribed(nil, "s", "c\""), ServerMessage{Op: OpSubscribed, ID: "s", Reply: Reply{Cursor: "c\""}}},
		{AppendPong(nil, ""), ServerMessage{Op: OpPong}},
		{AppendProblem(nil, OpUnsubscribed, "s", nil), ServerMessage{Op: OpUnsubscribed, ID: "s"}},
		{AppendProblem(nil, OpError, "", &Problem{Kind: "x"}),
			ServerMessage{Op: OpError, Problem: &Problem{Kind: "x"}}},
		{append(append(AppendEventHead(nil, "s\""), "{}"...), '}'),
			ServerMessage{Op: OpEvent, Sub: "s\"", Event: json.RawMessage("{}")}},
		{AppendHello(nil, Limits{1, 2, 3, 4}), ServerMessage{Op: OpHello, Protocol: ProtocolStream,
			Limits: &Limits{1, 2, 3, 4}}},
	} {
		var m ServerMessage
		if err := json.Unmarshal(tt.text, &m); err != nil || !reflect.DeepEqual(m, tt.want) {
			t.Errorf("%s is %+v, %v", tt.text, m, err)
		}
	}
	var page Page
	if err := json.Unmarshal(slices.Concat(PageStart, []byte("1,2"), PageEnd("c", true)), &page); err != nil ||
		len(page.Events) != 2 || page.Next != "c" || !page.More {
		t.Errorf("%+v %v", page, err)
	}
	var entity EntityPage
	if err := json.Unmarshal(slices.Concat(PageStart, EntityPageEnd(3, "7", false)), &entity); err != nil ||
		len(entity.Events) != 0 || entity.Events == nil || entity.First != 3 || entity.Next != "7" || entity.More {
		t.Errorf("%+v %v", entity, err)
	}
}

// Errors about a message do not contain the names of our types.
func TestWrongMessagesAreExplained(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                                    "it is an array; it should be a JSON object",
		`7`:                                     "it is a number; it should be a JSON object",
		`{"op":"ping"`:                          "the JSON ends too early",
		`hello`:                                 "it is not JSON: invalid character 'h'",
		`{"op":"ping"}{}`:                       "there is text after the JSON",
		`{"op":7}`:                              "op is a number; it takes a string",
		`{"op":"credit","credits":-2}`:          "credits is -2; it takes a whole number from 0 on",
		`{"op":"command","timeout_ms":1.5}`:     "timeout_ms is 1.5; it takes a whole number",
		`{"op":"subscribe","keys":"k"}`:         "keys is a string; it takes an array",
		`{"op":"command","expected_verison":1}`: `there is no member "expected_verison"`,
		`{"op":"subscribe","key":"k"}`:          `subscribe has no member "key"`,
		`{"op":"query","command_id":"k"}`:       `query has no member "command_id"`,
		`{"op":"command","credits":1}`:          `command has no member "credits"`,
		`{"op":"ping","data":null}`:             `ping has no member "data"`,
	} {
		_, err := DecodeClientMessage([]byte(text))
		if service.KindOf(err) != service.KindInvalid || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "api.") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	var s struct {
		Op []byte          `json:"op"`
		On bool            `json:"on"`
		At struct{ N int } `json:"at"`
	}
	for text, want := range map[string]string{
		`{"op":1}`: "op is a number; it takes a string in base64", `{"on":[]}`: "on is an array; it takes true or false",
		`{"at":true}`: "at is true or false; it takes an object", `{"at":{"N":{}}}`: "at.N is an object; it takes a whole number",
	} {
		if err := service.DecodeJSON([]byte(text), &s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestMetadata(t *testing.T) {
	m := abi.Metadata(nil).AppendPair("b", "2").AppendPair("a", "é\"\\\n\u2028😀").AppendPair("c", "")
	text, err := json.Marshal(Metadata(m))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range text {
		if c < ' ' || c > '~' {
			t.Fatalf("%s is not plain ASCII", text)
		}
	}
	var back Metadata
	if err := json.Unmarshal(text, &back); err != nil || !bytes.Equal(back, m) {
		t.Errorf("%s comes back as %q, %v", text, back, err)
	}
	for _, bad := range []string{"", "[]", "1", `{"a":1}`, `{"a":null}`, `{"a":{}}`, `{"":"x"}`, `{"a":"1","a":"2"}`, `{"a":"1"`, `{"a":"1"} {}`, `{"a" "1"}`, `{a:1}`} {
		if m, err := ParseMetadata([]byte(bad)); service.KindOf(err) != service.KindInvalid || err == nil {
			t.Errorf("%s is %q, %v", bad, m, err)
		}
	}
}

func TestTraceparent(t *testing.T) {
	good := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for s, want := range map[string]bool{
		good: true, "01" + good[2:] + "-more": true, "": false, good + "x": false, good + "-x": false,
		"ff" + good[2:]:       false,
		strings.ToUpper(good): false, good[:54]: false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false, "01" + good[2:] + "-\n": false,
	} {
		if ValidTraceparent(s) != want {
			t.Errorf("%q: %t", s, !want)
		}
	}
}

func TestReadinessCountsQuarantinedEntities(t *testing.T) {
	many := map[service.Name]int{}
	for i := range 150 {
		many[service.Name(fmt.Sprintf("s%03d", i))] = i + 1
	}
	r := ReadinessOf(nil, many, true)
	if q := r.Quarantined; r.Status != "ready" || q == nil || q.Count != 150*151/2 || len(q.Services) != maxListed ||
		q.Services["s099"] != 100 {
		t.Errorf("got %+v", q)
	}
	if q := ReadinessOf(nil, many, false).Quarantined; q == nil || q.Count != 150*151/2 || len(q.Services) != 0 {
		t.Errorf("without names: %+v", q)
	}
	if q := ReadinessOf(nil, nil, true).Quarantined; q != nil {
		t.Errorf("without any: %+v", q)
	}
}

func TestReadinessIsBounded(t *testing.T) {
	states := map[service.Name]service.State{"fine": service.StateRunning, "swapped": service.StateDraining,
		"broken": service.StateFailed}
	for i := range 1000 {
		states[service.Name(fmt.Sprintf("s%03d", i))] = service.StateStarting
	}
	r := ReadinessOf(states, nil, true)
	starting, failed := r.Services[service.StateStarting], r.Services[service.StateFailed]
	if r.Status != "ready" || len(r.Services) != 2 || starting.Count != 1000 || len(starting.Names) != maxListed ||
		starting.Names[99] != "s099" ||
		failed.Count != 1 || !slices.Equal(failed.Names, []service.Name{"broken"}) {
		t.Errorf("got %+v", r)
	}
	if r := ReadinessOf(states, nil, false); r.Services[service.StateStarting].Count != 1000 ||
		r.Services[service.StateStarting].Names != nil {
		t.Errorf("without names: %+v", r)
	}
}
