package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

func TestRun(t *testing.T) {
	raced.Skip(t, "it compiles a Go guest, and the tests of host have its concurrency")
	var out strings.Builder
	options := host.Options{Dir: t.TempDir()}
	options.Limits.CompileTime = 10 * time.Minute // under the race detector, beside other tests
	if err := run(t.Context(), &out, options, hosttest.Guest(t, "bank")); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^balance {"balance":100} at version 2
1 opened {"owner":"Alice"}
2 deposited {"amount":100,"at":\d+}
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("it prints %q, want %s", out.String(), want)
	}
	text, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(text), "\n"); lines >= 60 {
		t.Errorf("it has %d lines; an example that is to be read at a glance has less than 60", lines)
	}
}
