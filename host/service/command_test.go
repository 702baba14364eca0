package service

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// The first law as types: without a receipt from a journal there is no answer.
func TestNoAnswerWithoutReceipt(t *testing.T) {
	var forged journal.Receipt
	committed := NewOutcome([]journal.NewEvent{{Type: "Opened"}}, []byte(`{"secret":1}`), 0)
	if r, err := committed.Reply(forged); err == nil || r.Data != nil {
		t.Errorf("Reply without a receipt gives %+v, %v", r, err)
	}
	if r, err := committed.QueryReply(forged); err == nil || r.Data != nil {
		t.Errorf("QueryReply without a receipt gives %+v, %v", r, err)
	}
	if r, err := Repeat(&journal.Command{Reply: []byte("x")}, forged); err == nil || r.Data != nil {
		t.Errorf("Repeat without a receipt gives %+v, %v", r, err)
	}
	refused := NewRejection(&Error{Kind: KindRejected, Code: "insufficient_funds"}, 0)
	if err := refused.Rejection(forged); KindOf(err) != KindInternal {
		t.Errorf("Rejection without a receipt gives %v", err)
	}
}

func TestFingerprintTellsCommandsApart(t *testing.T) {
	one, two := Version(1), Version(2)
	commands := []Command{
		{Key: "a", Type: "b"},
		{Key: "ab", Type: ""},
		{Key: "", Type: "ab"},
		{Key: "a", Type: "b", Data: []byte("{}")},
		{Key: "a", Type: "b", Expected: &one},
		{Key: "a", Type: "b", Expected: &two},
	}
	seen := map[[16]byte]int{}
	for i, c := range commands {
		f := c.Fingerprint()
		if j, dup := seen[f]; dup {
			t.Errorf("commands %d and %d have one fingerprint", i, j)
		}
		seen[f] = i
		c.ID, c.Metadata = "other", c.Metadata.AppendPair("traceparent", "x")
		if c.Fingerprint() != f {
			t.Errorf("command %d: id or metadata changes the fingerprint", i)
		}
	}
}
