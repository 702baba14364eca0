package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

func TestFieldTables(t *testing.T) {
	var b strings.Builder
	printFields(&b, &abi.Manifest{
		Commands: []abi.CommandType{{Name: "reserve", Input: `{"type":"object","description":"Reserves seats.","properties":{` +
			`"seats":{"type":"integer","minimum":1,"maximum":8,"description":"how many people there are, children and dogs ` +
			`that need a place of their own included\u001b[2J"},` +
			`"a-name-that-is-far-too-long-for-a-column":{"type":"string","format":"email"}},"required":["seats"]}`,
			Reply: `{"type":"integer"}`}, {Name: "close"}},
		Queries: []abi.QueryType{{Name: "free", Input: `true`, Reply: `{"type":"object","properties":{}}`}},
		Events:  []abi.EventType{{Name: "a-name-that-is-far-too-long-for-a-column", Schema: `{"oneOf":[{}],"title":"T"}`}},
	})
	want := `
COMMAND  FIELD               TYPE     REQUIRED  LIMITS  ABOUT
reserve                                                 Reserves seats.
         seats               integer  yes       1 to 8  how many people there are, children and dogs
                                                        that need a place of their own
                                                        included\x1b[2J
         a-name-that-is-     email
         far-too-long-for-
         a-column
  reply  -                   integer
close    -                   any
  reply  -                   any

QUERY    FIELD  TYPE
free     -      any
  reply  -

EVENT             FIELD  TYPE            ABOUT
a-name-that-is-   -      one of several  T
far-too-long-
for-a-column
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A table is harmless, and no wider than it may be, whatever the schema is.
func FuzzFieldTable(f *testing.F) {
	f.Add("open", `{"type":"object","properties":{"\u202ea":{"enum":["\u001b",1]}}}`)
	f.Add("x", `{"type":["\n"],"description":"`+strings.Repeat("word ", 500)+`"}`)
	f.Add(strings.Repeat("n", 128), `{"properties":{"`+strings.Repeat("é", 3000)+`":{}}}`)
	f.Fuzz(func(t *testing.T, name, schema string) {
		var b strings.Builder
		printFields(&b, &abi.Manifest{Commands: []abi.CommandType{{Name: name, Input: schema}}})
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > tableWidth || !utf8.ValidString(line) {
				t.Errorf("%q", line)
			}
			harmless(t, "the table", line)
		}
	})
}
