package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A dump says of each body whether it is JSON, and has all metadata; it says which of them the event's module wrote.
func TestADumpSaysWhatIsJSON(t *testing.T) {
	metadata := abi.Metadata(nil).AppendPair("tenant", "acme").AppendPair("X-Actor", "t")
	stored := abi.Metadata(nil).AppendPair("X-Actor", "t").AppendPair("", "").AppendPair("tenant", "acme")
	at := &journal.Committed{
		Command: journal.Command{Key: "a", Type: "put", Data: []byte(`"/w=="`), Reply: []byte{0xff}, Metadata: metadata},
		Events: []journal.Event{
			{Position: 1, Version: 1, Type: "put", Data: []byte{0xff}, Metadata: stored},
			{Position: 2, Version: 2, Type: "put", Data: []byte(`"/w=="`)},
			{Position: 3, Version: 3, Type: "put"},
		},
	}
	text, err := json.Marshal(dumped(at))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"command":"put","data":"/w==","metadata":{"X-Actor":"t","tenant":"acme"},`, `"reply_base64":"/w==","events":[`,
		`{"position":1,"version":1,"type":"put","data_base64":"/w==","metadata":{"X-Actor":"t","tenant":"acme"},` +
			`"emitted_metadata":{"X-Actor":"t"}},`,
		`{"position":2,"version":2,"type":"put","data":"/w=="},{"position":3,"version":3,"type":"put"}]`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %s", text, want)
		}
	}
	text, err = json.Marshal(exportedEvent(&at.Events[0]))
	if want := `"metadata":{"X-Actor":"t","tenant":"acme"},"emitted_metadata":{"X-Actor":"t"},`; err != nil ||
		!strings.Contains(string(text), want) {
		t.Errorf("%s, %v lacks %s", text, err, want)
	}
}
