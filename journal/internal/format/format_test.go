package format

import (
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// exampleBatch is the worked example of FORMAT.md: one commit with one event.
func exampleBatch() []byte {
	c := &journal.Commit{
		Log: "bank", Expected: 0,
		Command: journal.Command{
			ID: "c1", Fingerprint: [16]byte{0xf0, 15: 0x0f}, Type: "open", Key: "alice", Data: []byte(`{"owner":"Alice"}`),
			Time: 1767225600_000000000, Seed: [16]byte{0x5e, 15: 0xed}, Module: journal.Digest{0xd1, 31: 0x9e}, Reply: []byte(`{"balance":0}`),
		},
		Events: []journal.NewEvent{{Type: "opened", Data: []byte(`{"owner":"Alice"}`)}},
	}
	b := AppendCommit(BeginBatch(nil, c.Log), c, 0)
	endBatch(b, &BatchHeader{Log: c.Log, Commits: 1, Events: 1, First: 1, Sequence: 1, Time: 1767225600_000001000})
	return b
}

// exampleKept are the records of FORMAT.md by which a retention keeps the event of exampleBatch.
func exampleKept() (records []byte) {
	_ = EachCommit(journal.Block{Log: "bank", First: 1, Sequence: 1, Data: exampleBatch()},
		func(h *BatchHeader, _ int, first journal.Position, c *DecodedCommit) error {
			e := c.Event(h, first, 0)
			records = AppendKept(nil, &e)
			return nil
		})
	return AppendBase(records, &Base{Key: "alice", Floor: 1, Kept: 1})
}

// inFormat fails the test unless the block of hex of that name in FORMAT.md is want.
func inFormat(t *testing.T, name string, want []byte) {
	t.Helper()
	doc, err := os.ReadFile("../../FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "```"+name+"\n")
	text, _, ok2 := strings.Cut(text, "```")
	if !ok || !ok2 {
		t.Fatalf("FORMAT.md has no block of %s", name)
	}
	var written strings.Builder
	for line := range strings.Lines(text) {
		digits, _, _ := strings.Cut(line, ";")
		written.WriteString(regexp.MustCompile(`\s`).ReplaceAllString(digits, ""))
	}
	if want := hex.EncodeToString(want); written.String() != want {
		t.Errorf("FORMAT.md has as %s\n%s\nthe code writes\n%s", name, written.String(), want)
	}
}

// The examples in FORMAT.md are what the code writes, byte for byte.
func TestFormatExample(t *testing.T) {
	inFormat(t, "hex", exampleBatch())
	inFormat(t, "hex kept", exampleKept())
	inFormat(t, "hex snapshot", SealSnapshot(SnapshotKey("bank", "alice"), exampleSnapshot()).Value)
	err := EachCommit(journal.Block{Log: "bank", First: 1, Sequence: 1, Data: exampleBatch()},
		func(h *BatchHeader, _ int, first journal.Position, c *DecodedCommit) error {
			if e := c.Event(h, first, 0); e.Key != "alice" || e.Version != 1 || e.Position != 1 || e.Type != "opened" {
				t.Errorf("the example decodes to %+v", e)
			}
			return nil
		})
	if err != nil {
		t.Error(err)
	}
}
