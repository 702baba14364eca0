package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// On a terminal JSON is indented; one of several results, and output for programs, is one line.
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
		{true, false, func(e *env) { e.body(e.out, []byte(strings.Repeat("x", 100))) }, strings.Repeat("x", 100) +
			"\n"},
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

// Faults of entities are shown in separate lines, with everything unsafe escaped.
func TestFaultsAreShown(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var out strings.Builder
	row := func(name, format string, args ...any) { fmt.Fprintf(&out, name+": "+format+"\n", args...) }
	printFaults(row, &service.EntityFaults{})
	if out.String() != "" {
		t.Errorf("without faults: %s", &out)
	}
	printFaults(row, &service.EntityFaults{Count: 3, Latest: []service.EntityFault{
		{Key: "alice", Cannot: service.CannotHydrate, Problem: "it panics", Version: 7, Failed: 2, Since: since,
			NextAttempt: since.Add(time.Minute)},
		{Key: "bob", Cannot: service.CannotSnapshot, Problem: "NaN", Version: 9, Failed: 1, Since: since},
	}})
	want := "faults: 3 entities that the module cannot hydrate, or whose states it cannot encode\n" +
		"fault: alice: cannot hydrate since 2026-01-02T03:04:05Z, 2 attempts, next attempt at 2026-01-02T03:05:05Z: " +
		"it panics\n" +
		"fault: bob: cannot snapshot since 2026-01-02T03:04:05Z, 1 attempts: NaN\n"
	if out.String() != want {
		t.Errorf("got %s", &out)
	}
	out.Reset()
	printService(&out, &service.Status{Faults: service.EntityFaults{Count: 1,
		Latest: []service.EntityFault{{Key: "\u202e\x1b[31m", Problem: "\x1b[2J"}}}}, nil)
	if strings.ContainsAny(out.String(), "\u202e\x1b") || !strings.Contains(out.String(), "\nfault ") {
		t.Errorf("got %q", &out)
	}
	out.Reset()
	printRetained(&out, &retainedEvents{Service: "bank",
		Retained: journal.Retained{First: 6, Held: 12, HeldBy: []string{"alice", "\x1b[31m"}}})
	if got := out.String(); !strings.Contains(got, "12 entities have no snapshot and none could be had, and the "+
		"bound of what is kept apart has no room for their events: alice, ") || strings.Contains(got, "\x1b") {
		t.Errorf("got %q", got)
	}
	out.Reset()
	printRetained(&out, &retainedEvents{Service: "bank", Retained: journal.Retained{First: 6, Through: 5, Entities: 5,
		Kept: 2, KeptOf: []string{"alice", "\x1b[31m"}, KeptEvents: 3, KeptBytes: 2048}})
	if got := out.String(); !strings.Contains(got, "\n3 entities go on from snapshots\n3 events, 2.0 KiB, of 2 "+
		"entities are kept apart, as these have no snapshot and none could be had: alice, ") ||
		strings.Contains(got, "\x1b") {
		t.Errorf("got %q", got)
	}
}

// The reason why a retention has not deleted more is also shown with an archive.
func TestWhyARetentionDeletesNoMore(t *testing.T) {
	looked := journal.Retained{First: 6, Through: 5, Held: 2, HeldBy: []string{"alice", "bob"}, Promised: true}
	got := sinceLooked(looked, journal.Retained{First: 6, Through: 5, Events: 5})
	if got.Held != 2 || len(got.HeldBy) != 2 || !got.Promised || got.Events != 5 {
		t.Errorf("%+v", got)
	}
	got = sinceLooked(looked, journal.Retained{Held: 1, HeldBy: []string{"carol"}})
	if got.Held != 1 || got.HeldBy[0] != "carol" {
		t.Errorf("%+v", got)
	}
}

// The history and the quarantine say what goes on after a page; what an author wrote is escaped.
func TestPagesAreShown(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var out strings.Builder
	printDeployments(&out, &service.DeploymentPage{Before: 3, Deployments: []service.DeploymentEntry{
		{Number: 7, Time: at, ModuleVersion: "2\x1b[2J", Current: true, Stored: true},
		{Number: 5, Time: at, Stopped: at.Add(time.Hour), Stored: true},
		{Number: 3, Time: at},
	}})
	for _, want := range []string{"\n7 ", ` 2\x1b[2J `, " current\n", " stopped at 2026-01-02T04:04:05Z\n",
		" replaced; its module is no longer stored\n", "there are earlier deployments: --before 3\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("deployments lack %q:\n%s", want, &out)
		}
	}
	out.Reset()
	printQuarantine(&out, &service.QuarantinePage{Count: 9, After: "bob\u202e", Entities: []service.EntityFault{
		{Key: "alice", Version: 7, Event: "deposited", Position: 12, Since: at, Failed: 3,
			NextAttempt: at.Add(time.Minute), Problem: "it panics\n"},
		{Key: "bob\u202e", Version: 1, Since: at},
	}})
	for _, want := range []string{"\nalice ", " deposited ", " 2026-01-02T03:05:05Z ", `it panics\n`, `bob\u202e `,
		" - ",
		"9 entities are quarantined; there are more after the key bob\\u202e\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("quarantine lacks %q:\n%s", want, &out)
		}
	}
}
