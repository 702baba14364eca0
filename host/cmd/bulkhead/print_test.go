package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// On a terminal JSON is shown in lines that can be read; what is one of many, and what a program reads, has one line.
func TestJSONOnATerminal(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", screenWidth) + `","b":[1,2]}`
	indentedLong := "{\n  \"a\": \"" + strings.Repeat("x", screenWidth) + "\",\n  \"b\": [\n    1,\n    2\n  ]\n}\n"
	for _, c := range []struct {
		screen, json bool
		do           func(e *env)
		want         string
	}{
		{true, true, func(e *env) { e.print(map[string]any{"a": "\u202e"}, nil) }, "{\n  \"a\": \"\\u202e\"\n}\n"},
		{false, true, func(e *env) { e.print(map[string]int{"a": 1}, nil) }, "{\"a\":1}\n"},
		{true, true, func(e *env) { e.printLine(map[string]int{"a": 1}, nil) }, "{\"a\":1}\n"},
		{true, false, func(e *env) { e.print(nil, func(w io.Writer) { fmt.Fprintln(w, "text") }) }, "text\n"},
		{true, false, func(e *env) { e.body(e.out, []byte(`{"a": 1}`)) }, "{\"a\":1}\n"},
		{true, false, func(e *env) { e.body(e.out, []byte(long)) }, indentedLong},
		{false, false, func(e *env) { e.body(e.out, []byte(long)) }, long + "\n"},
		{true, false, func(e *env) { e.body(e.out, []byte(strings.Repeat("x", 100))) }, strings.Repeat("x", 100) + "\n"},
	} {
		var out, errs strings.Builder
		e := &env{json: c.json, screen: c.screen}
		e.show(&out, &errs)
		c.do(e)
		e.end()
		if out.String() != c.want || errs.String() != "" {
			t.Errorf("on a terminal: %v, --json: %v: %q, want %q", c.screen, c.json, &out, c.want)
		}
	}
}
