package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

func bankManifest() abi.Manifest {
	return abi.Manifest{
		ABI: 1, Service: "bank", Version: "1.2.0", SDK: "bulkhead-go/1", StateSchema: 3,
		Commands: []abi.CommandType{{Name: "open", Input: `{"type":"object"}`, Reply: "true"}, {Name: "deposit"}},
		Queries:  []abi.QueryType{{Name: "balance", Reply: `{"type":"integer"}`}},
		Events:   []abi.EventType{{Name: "opened", Aliases: []string{"created"}}, {Name: "deposited", Schema: `{}`}},
	}
}

func TestParseManifestReadsWhatTheABIWrites(t *testing.T) {
	want := bankManifest()
	got, err := ParseManifest(want.AppendJSON(nil))
	if err != nil {
		t.Fatal(err)
	}
	want.Encoding = abi.EncodingJSON
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("got  %s\nwant %s", g, w)
	}
	x := NewManifestIndex(&got)
	if n, ok := x.Command("deposit"); !ok || n != 1 {
		t.Errorf("Command(deposit) = %d, %v", n, ok)
	}
	if _, ok := x.Command("balance"); ok {
		t.Error("a query was found as a command")
	}
	if n, ok := x.Query("balance"); !ok || n != 0 {
		t.Errorf("Query(balance) = %d, %v", n, ok)
	}
	for name, want := range map[string]uint16{"opened": 0, "created": 0, "deposited": 1} {
		if n, ok := x.Event(name); !ok || n != want {
			t.Errorf("Event(%s) = %d, %v, want %d", name, n, ok, want)
		}
	}
	if name, ok := x.EventName(0); !ok || name != "opened" {
		t.Errorf("EventName(0) = %q, %v", name, ok)
	}
	if _, ok := x.EventName(2); ok {
		t.Error("an event beyond the manifest has a name")
	}
	if x.Encoding() != "application/json" || x.Manifest() != &got {
		t.Error("encoding or manifest lost")
	}
}

func TestParseManifestRefuses(t *testing.T) {
	many := func(n int, member string) string {
		return strings.TrimSuffix(strings.Repeat(member+",", n), ",")
	}
	for name, c := range map[string]struct{ in, want string }{
		"empty":          {``, "it is empty"},
		"array":          {`[]`, "not the JSON object"},
		"truncated":      {`{"abi":1,"service":"x"`, "ends too early"},
		"trailing":       {`{"abi":1,"service":"x"} {}`, "after the JSON"},
		"twice":          {`{"abi":1,"service":"x","service":"y"}`, `two members "service"`},
		"in capitals":    {`{"abi":1,"service":"x","COMMANDS":[]}`, `no member "COMMANDS"; it is written "commands"`},
		"deep twice":     {`{"abi":1,"service":"x","commands":[{"name":"a","name":"b"}]}`, `two members "name"`},
		"no UTF-8":       {"{\"abi\":1,\"service\":\"x\",\"sdk\":\"\xff\"}", "not UTF-8"},
		"half a pair":    {`{"abi":1,"service":"x","sdk":"\ud800"}`, `half of a surrogate pair`},
		"no abi":         {`{"service":"x"}`, "abi is missing"},
		"future abi":     {`{"abi":2,"service":"x"}`, "abi is 2; this host speaks 1"},
		"no service":     {`{"abi":1}`, "service name"},
		"bad service":    {`{"abi":1,"service":"Bank/.."}`, `service name "Bank/.."`},
		"control char":   {`{"abi":1,"service":"x","version":"a\u0000b"}`, "version"},
		"long sdk":       {`{"abi":1,"service":"x","sdk":"` + strings.Repeat("s", 600) + `"}`, "sdk has 600 bytes"},
		"bad encoding":   {`{"abi":1,"service":"x","encoding":";;"}`, "content type"},
		"unnamed":        {`{"abi":1,"service":"x","commands":[{}]}`, "commands[0]: type name has 0 bytes"},
		"slash in name":  {`{"abi":1,"service":"x","commands":[{"name":"a/b"}]}`, `type name "a/b"`},
		"duplicate":      {`{"abi":1,"service":"x","queries":[{"name":"a"},{"name":"a"}]}`, `queries[1]: name "a" is taken by queries[0]`},
		"alias clash":    {`{"abi":1,"service":"x","events":[{"name":"a","aliases":["b"]},{"name":"b"}]}`, `events[0].aliases[0]: name "b" is taken by events[1]`},
		"alias of self":  {`{"abi":1,"service":"x","events":[{"name":"a","aliases":["a"]}]}`, "taken by events[0]"},
		"alias twice":    {`{"abi":1,"service":"x","events":[{"name":"a","aliases":["o","o"]}]}`, "taken by events[0].aliases[0]"},
		"upcast nowhere": {`{"abi":1,"service":"x","events":[{"name":"a","upcast_to":"b"}]}`, `events[0].upcast_to: there is no event named "b"`},
		"upcast to alias": {`{"abi":1,"service":"x","events":[{"name":"a","upcast_to":"o"},{"name":"b","aliases":["o"]}]}`,
			`events[0].upcast_to: there is no event named "o"`},
		"upcast to self": {`{"abi":1,"service":"x","events":[{"name":"a","upcast_to":"a"}]}`, `the way from "a" leads round`},
		"upcast circle": {`{"abi":1,"service":"x","events":[{"name":"z","upcast_to":"a"},{"name":"a","upcast_to":"b"},{"name":"b","upcast_to":"a"}]}`,
			`events[0].upcast_to: the way from "z" leads round in a circle`},
		"no feature":      {`{"abi":1,"service":"x","earlier_schemas":[1]}`, `earlier_schemas need the feature "earlier_schemas"`},
		"own schema":      {`{"abi":1,"service":"x","features":["earlier_schemas"],"state_schema":7,"earlier_schemas":[1,7]}`, `earlier_schemas[1]: schema 7 is taken by state_schema`},
		"schema twice":    {`{"abi":1,"service":"x","features":["earlier_schemas"],"earlier_schemas":[1,1]}`, `earlier_schemas[1]: schema 1 is taken by earlier_schemas[0]`},
		"negative schema": {`{"abi":1,"service":"x","features":["earlier_schemas"],"earlier_schemas":[-1]}`, `not the JSON object`},
		"schema number":   {`{"abi":1,"service":"x","events":[{"name":"a","schema":7}]}`, "events[0].schema is \"7\""},
		"wrong type":      {`{"abi":"1","service":"x"}`, "not the JSON object"},
		"too many":        {`{"abi":1,"service":"x","events":[` + many(abi.MaxTypes+1, "{}") + `]}`, "events has 4097 members"},
		"too large":       {strings.Repeat(" ", abi.MaxManifestSize+1), "1048577 bytes"},
		"deep":            {`{"abi":1,"service":"x","commands":[{"name":"a","input":` + strings.Repeat(`{"a":`, 20000), "nested deeper than 10000"},
		"bad capability":  {`{"abi":1,"service":"x","capabilities":["a b"]}`, "capabilities[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseManifest([]byte(c.in))
			if KindOf(err) != KindInvalid || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v\nwant %q", err, c.want)
			}
		})
	}
}

func TestParseManifestListsEveryProblem(t *testing.T) {
	_, err := ParseManifest([]byte(`{"abi":9,"service":"","commands":[{"name":"?"},{"name":"ok","input":[]}],"events":[{"name":"e"},{"name":"e"}]}`))
	var e *Error
	if !errors.As(err, &e) || len(e.Reasons) != 5 {
		t.Fatalf("want 5 reasons: %v", err)
	}
	_, err = ParseManifest([]byte(`{"abi":1,"service":"x","events":[` + strings.Repeat("{},", 200) + `{}]}`))
	if !errors.As(err, &e) || len(e.Reasons) != maxReasons+1 || e.Reasons[maxReasons] != "and 137 more" {
		t.Fatalf("want a cut list: %v", e.Reasons)
	}
}

func FuzzParseManifest(f *testing.F) {
	m := bankManifest()
	f.Add(m.AppendJSON(nil))
	f.Add([]byte(`{"abi":1,"service":"x","events":[{"name":"a","aliases":["b"]},{"name":"b"}]}`))
	f.Add([]byte(`{"abi":1,"service":"x","commands":[{"name":"a","input":null,"reply":false}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			if KindOf(err) != KindInvalid {
				t.Fatalf("kind %v", KindOf(err))
			}
			return
		}
		again := m.AppendJSON(nil)
		if !json.Valid(again) {
			t.Fatalf("accepted manifest does not encode to JSON: %s", again)
		}
		if len(again) > abi.MaxManifestSize {
			return // encoding writes defaults out
		}
		if _, err := ParseManifest(again); err != nil {
			t.Fatalf("accepted manifest is refused after encoding: %v", err)
		}
		x := NewManifestIndex(&m)
		for i, c := range m.Commands {
			if n, ok := x.Command(Type(c.Name)); !ok || int(n) != i {
				t.Fatalf("command %q is %d, %v", c.Name, n, ok)
			}
		}
	})
}

// A snapshot goes to the guest with the index of its schema, or without if the schema is the module's own.
func TestSnapshotsOfEarlierSchemas(t *testing.T) {
	m := abi.Manifest{StateSchema: 7, EarlierSchemas: []uint32{3, 0}}
	x := NewManifestIndex(&m)
	for schema, want := range map[uint32]GuestSnapshot{
		7: {Version: 5, State: []byte("s")},
		3: {Version: 5, State: []byte("s"), Earlier: true},
		0: {Version: 5, State: []byte("s"), Earlier: true, Schema: 1},
	} {
		got, takes := x.Snapshot(&journal.Snapshot{Version: 5, Schema: schema, State: []byte("s")})
		if !takes || !x.Takes(schema) || !reflect.DeepEqual(got, want) {
			t.Errorf("schema %d: got %+v, %v; want %+v", schema, got, takes, want)
		}
	}
	if _, takes := x.Snapshot(&journal.Snapshot{Schema: 4}); takes || x.Takes(4) {
		t.Error("it takes another schema")
	}
}
