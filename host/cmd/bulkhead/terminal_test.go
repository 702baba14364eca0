package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// output is a command's output, which can be read while it grows.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// harmless fails the test if text has anything that controls a terminal or is hidden by it, independently of
// the code.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s is not UTF-8: %q", what, text)
	}
	for _, r := range text {
		switch {
		case r == '\n':
		case r < 0x20, r >= 0x7f && r <= 0x9f, r == 0x61c, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e,
			r >= 0x2060 && r <= 0x2069, r == 0xfeff, r >= 0xe0000 && r <= 0xe007f:
			t.Errorf("%s has %U: %.2000q", what, r, text)
			return
		}
	}
	for line := range strings.Lines(text) { // as the vandal forges it
		if regexp.MustCompile(`^ *2  2026-01-01T00:00:00`).MatchString(line) {
			t.Errorf("%s has a line that a guest has forged: %q", what, line)
		}
	}
}

// cliRun runs one command line. It checks that each output is harmless and, with --json, one JSON text per
// line.
func cliRun(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs output
	code := Main(t.Context(), args, strings.NewReader(testguest.VandalText), &out, &errs)
	what := strings.Join(args, " ")
	if code != want {
		t.Errorf("%s ends with %d, want %d\n%s%s", what, code, want, &out, &errs)
	}
	harmless(t, "standard output of "+what, out.String())
	harmless(t, "standard error of "+what, errs.String())
	for line := range strings.Lines(out.String()) {
		if args[0] == "--json" && !json.Valid([]byte(line)) {
			t.Errorf("%s prints what is not JSON: %q", what, line)
		}
	}
	return out.String(), errs.String()
}

// Nothing from a guest or a client reaches a terminal unescaped, whichever command shows it, in either form.
func TestNothingOfAStrangerReachesTheTerminal(t *testing.T) {
	prove.SkipShort(t, "it starts a whole host")
	dir, address := t.TempDir(), hosttest.Address(t)
	t.Setenv("BULKHEAD_HOST", "http://"+address)
	t.Setenv("BULKHEAD_LIMIT_COMPILE_TIME", "10m") // under the race detector, beside other tests
	data := filepath.Join(dir, "data")
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text, inJSON := file("text.wasm", testguest.Vandal("vandal", false)),
		file("json.wasm", testguest.Vandal("vandal-json", true))
	refused := file("refused.wasm", testguest.CounterWith([]byte(`{"abi":1,"service":"`+"x\u202e\u009b"+`","version":"\u001b[2J"}`), func(b *testguest.Builder) {
		b.Export("bulkhead_v1_"+testguest.VandalText, 0, 0)
	}))

	for _, logFormat := range []string{"text", "json"} {
		ctx, stop := context.WithCancel(t.Context())
		var out, errs output
		ended := make(chan int, 1)
		go func() {
			ended <- Main(ctx, []string{"serve", "--data", data, "--listen", address, "--log-level", "debug",
				"--log-format", logFormat}, strings.NewReader(""), &out, &errs)
		}()
		cliRun(t, exitOK, "services", "list", "--wait", "1m")
		if logFormat == "text" {
			cliRun(t, exitOK, "deploy", text)
			cliRun(t, exitOK, "--json", "deploy", inJSON)
			_, why := cliRun(t, exitFailure, "deploy", refused)
			if !strings.Contains(why, `\x1b`) && !strings.Contains(why, `\u202e`) {
				t.Errorf("why a module is refused does not show its names: %s", why)
			}
			cliRun(t, exitFailure, "--json", "deploy", refused)
		}
		talk(t)
		stop()
		if code := <-ended; code != exitOK {
			t.Errorf("serve ends with %d\n%s", code, &errs)
		}
		harmless(t, "standard output of serve", out.String())
		harmless(t, "the log in "+logFormat, errs.String())
		if !strings.Contains(errs.String(), `[31mred`) {
			t.Errorf("the log in %s has nothing of what the guest said", logFormat)
		}
		for line := range strings.Lines(errs.String()) {
			if logFormat == "json" && !json.Valid([]byte(line)) {
				t.Errorf("a line of the log is not JSON: %q", line)
			}
		}
	}

	for _, form := range [][]string{nil, {"--json"}} {
		run := func(want int, args ...string) string {
			out, _ := cliRun(t, want, append(append([]string{}, form...), args...)...)
			return out
		}
		for _, module := range []string{text, inJSON} {
			if shown := run(exitOK, "inspect", "--all", module); !strings.Contains(shown, "[31mred") {
				t.Errorf("inspect does not show the names of the module: %s", shown)
			}
			run(exitCheck, "conform", module)
		}
		run(exitCheck, "inspect", "--all", refused)
		run(exitCheck, "conform", refused)
		for _, log := range []string{"vandal", "vandal-json", "_host"} {
			for _, what := range []string{"dump", "export"} {
				if out := run(exitOK, "journal", what, log, "--data", data); strings.Count(out, "\n") < 2 ||
					!json.Valid([]byte(strings.SplitAfter(out, "\n")[0])) {
					t.Errorf("journal %s %s: %s", what, log, out)
				}
			}
		}
		for _, what := range []string{"verify", "logs", "rebuild"} {
			run(exitOK, "journal", what, "--data", data)
		}
		run(exitOK, "journal", "stats", "--offline", "--data", data)
		run(exitOK, "journal", "backup", "--offline", "--data", data,
			filepath.Join(dir, fmt.Sprint("backup", len(form))))
		run(exitOK, "journal", "verify", filepath.Join(dir, fmt.Sprint("backup", len(form))))
		run(exitUsage, "send", "no-key", "c")
		run(exitUsage, "send", "vandal/"+testguest.VandalText, "c")
		run(exitUsage, "send", "vandal/a", testguest.VandalText)
		run(exitUsage, testguest.VandalText)
		run(exitUsage, "--config", filepath.Join(dir, testguest.VandalText), "services")
		run(exitUsage, "--config", file("c.json", []byte(`{"`+"x\u202e"+`\u001b[2J": 1}`)), "services")
	}
}

// talk makes every client command show the vandals' texts.
func talk(t *testing.T) {
	for _, form := range [][]string{nil, {"--json"}} {
		run := func(want int, args ...string) (stdout, stderr string) {
			return cliRun(t, want, append(append([]string{}, form...), args...)...)
		}
		for _, name := range []string{"vandal", "vandal-json"} {
			entity := name + "/a"
			data := "-" // standard input is not JSON
			if name == "vandal-json" {
				run(exitUsage, "send", entity, "c", "-")
				data = `{"n":1}`
			}
			for _, args := range [][]string{{"send", entity, "c", data}, {"query", entity, "q"},
				{"send", entity, "binary"}} {
				out, _ := run(exitOK, args...)
				if lines := strings.Count(out, "\n"); lines != 1 {
					t.Errorf("%v prints %d lines: %q", args, lines, out)
				}
				isText := !strings.Contains(out, "base64")
				if wantText := name == "vandal-json"; form == nil && isText != wantText {
					t.Errorf("%v prints %q", args, out)
				}
			}
			for want, command := range map[int]string{exitRejected: "reject", exitFailure: "fault"} {
				if _, why := run(want, "send", entity, command); !strings.Contains(why, "[31mred") {
					t.Errorf("what the guest says when it refuses a command is not shown: %q", why)
				}
			}
			run(exitFailure, "send", entity, "trap")
			run(exitUsage, "send", entity, "none")
			events, _ := run(exitOK, "events", name)
			var all []string
			for line := range strings.Lines(events) {
				all = append(all, line)
				if form != nil && !json.Valid([]byte(line)) || form == nil && !regexp.MustCompile(`^\d+  \S+  a  v\d+  e  `).MatchString(line) {
					t.Errorf("the events of %s have the line %q", name, line)
				}
			}
			if len(all) < 2 {
				t.Errorf("%s has the events %q", name, all)
			}
			run(exitOK, "events", entity, "--follow", "--limit", fmt.Sprint(len(all)))
			if shown, _ := run(exitOK, "services", "show", name); !strings.Contains(shown, "[31mred") {
				t.Errorf("the schemas are not shown: %s", shown)
			}
		}
		for _, args := range [][]string{{"services", "list"}, {"journal", "stats", "--measure"},
			{"journal", "retain", "vandal", "--before", "1", "--dry-run"}} {
			run(exitOK, args...)
		}
		run(exitFailure, "services", "show", "nobody")
		run(exitUsage, "events", "vandal", "--from", testguest.VandalText)
	}
}
