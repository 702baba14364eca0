package service

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

func TestChangedEvents(t *testing.T) {
	object := func(members string) string { return `{"type":"object","properties":{` + members + `}}` }
	manifest := func(schema string) abi.Manifest {
		return abi.Manifest{Events: []abi.EventType{{Name: "paid", Schema: schema}}}
	}
	for _, c := range []struct {
		before, after string
		want          []string
	}{
		{object(`"amount":{"type":"integer"}`), object(`"amount":{"type":"integer"},"by":{"type":"string"}`), nil},
		{object(`"amount":{"type":"integer"}`), object(`"cents":{"type":"integer"}`), []string{"event paid: the member amount is gone; what earlier events have there is ignored"}},
		{object(`"amount":{"type":"integer"}`), object(`"amount":{"type":"string"}`), []string{"event paid: the member amount was integer and is string; earlier events may not be readable"}},
		{object(`"amount":{"type":"integer"}`), object(`"amount":{"type":"number"}`), nil},
		{object(`"amount":{"type":"string"}`), object(`"amount":{"type":["string","null"]}`), nil},
		{object(`"amount":{"type":["string","null"]}`), object(`"amount":{"type":"string"}`), []string{"event paid: the member amount was string or null and is string; earlier events may not be readable"}},
		{object(`"amount":{"type":"string"}`), object(`"amount":{}`), nil},
		{object(`"lines":{"type":"array","items":` + object(`"n":{"type":"integer"}`) + `}`), object(`"lines":{"type":"array","items":` + object(``) + `}`),
			[]string{"event paid: the member lines[].n is gone; what earlier events have there is ignored"}},
		{object(`"a":{"type":"integer"}`), `{"type":"object","additionalProperties":{"type":"integer"}}`, nil},
		{object(`"a":{"type":"integer"}`), `{"type":"object","additionalProperties":false}`, []string{"event paid: the member a is gone; what earlier events have there is ignored"}},
		{`{"type":"string"}`, `{"type":"integer"}`, []string{"event paid: the data was string and is integer; earlier events may not be readable"}},
		{object(`"a":{"type":"integer"}`), ``, nil}, {``, object(``), nil}, {`no JSON`, `{"type":5}`, nil}, {`{"type":[5]}`, `{"properties":1}`, nil},
	} {
		if got := ChangedEvents(manifest(c.before), manifest(c.after)); !slices.Equal(got, c.want) {
			t.Errorf("%s to %s: %q, want %q", c.before, c.after, got, c.want)
		}
	}
	renamed := abi.Manifest{Events: []abi.EventType{{Name: "other"}, {Name: "settled", Aliases: []string{"paid"}, Schema: object(``)}}}
	if got := ChangedEvents(manifest(object(`"a":{"type":"integer"}`)), renamed); len(got) != 1 {
		t.Errorf("with an alias: %q", got)
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf(`"m%03d":{"type":"integer"}`, i))
	}
	got := ChangedEvents(manifest(object(strings.Join(many, ","))), manifest(object(``)))
	if len(got) != maxChanges+1 || got[maxChanges] != "and 68 more" {
		t.Errorf("of many changes %d are told, the last: %q", len(got), got[len(got)-1])
	}
}

// A module may write any schema.
func FuzzChangedEvents(f *testing.F) {
	f.Add(`{"type":"object","properties":{"a":{"type":"integer"}}}`, `{"type":"object","properties":{"b":{"type":["string","null"]}}}`)
	f.Add(`{"type":"array","items":{"items":{}}}`, `{"type":"array","items":{"items":5}}`)
	f.Fuzz(func(t *testing.T, before, after string) {
		of := func(schema string) abi.Manifest {
			return abi.Manifest{Events: []abi.EventType{{Name: "e", Schema: schema}}}
		}
		if got := ChangedEvents(of(before), of(after)); len(got) > maxChanges+1 {
			t.Errorf("%d changes", len(got))
		}
		if got := ChangedEvents(of(before), of(before)); len(got) > 0 {
			t.Errorf("%q differs from itself: %q", before, got)
		}
	})
}
