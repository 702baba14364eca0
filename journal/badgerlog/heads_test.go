package badgerlog

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// The notes survive being opened and being begun again; a record that is torn, damaged or of another
// journal ends them.
func TestHeads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(lineage uint64) *heads {
		l := &Log{dir: dir, lineage: lineage}
		if err := errors.Join(l.readHeads(), l.openHeads()); err != nil {
			t.Fatal(err)
		}
		return l.heads
	}
	h := open(7)
	want := map[journal.LogName]journal.Head{}
	for i := range uint64(60_000) { // more than maxHeadsBytes
		log := []journal.LogName{"bank", "orders"}[i%2]
		want[log] = journal.Head{Sequence: i, First: journal.Position(2 * i)}
		h.note([]journal.Block{{Log: log, Sequence: i - i%2}, {Log: log, Sequence: i, First: journal.Position(2 * i)}})
	}
	path := filepath.Join(dir, headsFile)
	if info, err := os.Stat(path); err != nil || info.Size() > maxHeadsBytes+1000 {
		t.Errorf("the file: %v, %v", info.Size(), err)
	}
	for what, spoil := range map[string]func([]byte) []byte{
		"whole": func(b []byte) []byte { return b },
		"torn": func(b []byte) []byte {
			return append(b, appendHead(nil, 7, "bank", journal.Head{Sequence: 1 << 40})[:20]...)
		},
		"damaged": func(b []byte) []byte {
			return append(b, appendHead(nil, 6, "bank", journal.Head{Sequence: 1 << 40})...)
		},
	} {
		if err := h.close(); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, spoil(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if h = open(7); !maps.Equal(h.last, want) {
			t.Errorf("%s: %v, not %v", what, h.last, want)
		}
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	if h = open(8); len(h.last) > 0 {
		t.Errorf("another journal's: %v", h.last)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
}

// Notes are decoded up to what is no record, whatever their bytes are.
func FuzzHeads(f *testing.F) {
	f.Add(appendHead(appendHead(nil, 1, "bank", journal.Head{Sequence: 2, First: 3}), 1, "", journal.Head{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		last, whole := decodeHeads(b, 1)
		for log, head := range last {
			record := appendHead(nil, 1, log, head)
			if again, n := decodeHeads(record, 1); again[log] != head || n != len(record) {
				t.Errorf("%q: %+v does not survive its own encoding", log, head)
			}
		}
		if again, n := decodeHeads(b[:whole], 1); n != whole || !maps.Equal(again, last) {
			t.Errorf("%d bytes are whole, and then %d", whole, n)
		}
	})
}
