package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/plugins/counter"
)

// Tests of services read the lines that export and dump write.
func TestGuesttestReadsLines(t *testing.T) {
	var file bytes.Buffer
	for i, key := range []string{"apples", "pears", "apples"} {
		at := journal.Committed{Log: "counter", First: journal.Position(i + 1), Version: journal.Version(i/2 + 1),
			Command: journal.Command{Key: key, Type: "add", ID: "c"}}
		at.Events = []journal.Event{{Log: "counter", Key: key, Position: at.First, Version: at.Version, Type: "added",
			Data: []byte(`{"by":3}`)}}
		lines := []any{exportedCommand(&at), exportedEvent(&at.Events[0])}
		if i == 2 {
			lines = []any{dumped(&at)}
		}
		for _, l := range lines {
			if err := writeJSON(&file, l, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	name := filepath.Join(t.TempDir(), "lines.json")
	if err := os.WriteFile(name, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	x := guesttest.GivenExport(t, counter.Service, name)
	x.Entity("apples").Query("value", nil).Reply(counter.Counter{Value: 6})
	x.Entity("pears").Query("value", nil).Reply(counter.Counter{Value: 3})
}
