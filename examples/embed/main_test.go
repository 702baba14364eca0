package main

import (
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
)

func TestRun(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out, t.TempDir(), hosttest.Guest(t, "bank")); err != nil {
		t.Fatal(err)
	}
	want := "open: {\"balance\":0}, on disk at position 1\ndeposit: {\"balance\":100}, on disk at position 2\n"
	if out.String() != want {
		t.Errorf("it prints %q, want %q", out.String(), want)
	}
}
