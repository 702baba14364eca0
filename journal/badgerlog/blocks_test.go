package badgerlog

import (
	"bytes"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A group that is too big for one of Badger's transactions is still all or nothing.
func TestAGroupBeyondATransaction(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := openLog(t, t.TempDir(), smallFiles)
	var blocks []journal.Block
	for i := range 100 {
		blocks = append(blocks, journal.Block{
			Log: "bank", First: journal.Position(i + 1), Sequence: uint64(i + 1),
			Data: bytes.Repeat([]byte{byte(i)}, 64<<10),
		})
	}
	if err := l.Append(ctx, blocks); err != nil {
		t.Fatal(err)
	}
	i := 0
	err := l.Blocks(ctx, "bank", 0, func(b journal.Block) error {
		if !bytes.Equal(b.Data, blocks[i].Data) || b.Sequence != blocks[i].Sequence {
			t.Errorf("block %d is not what was written", i)
		}
		i++
		return nil
	})
	if err != nil || i != len(blocks) {
		t.Errorf("%d of %d blocks, %v", i, len(blocks), err)
	}
	if last, ok, err := l.Last(ctx, "bank"); !ok || err != nil || !bytes.Equal(last.Data, blocks[99].Data) {
		t.Errorf("the last block: %v, %v", ok, err)
	}
	closeLog(t, l)
}

// A part that is missing is damage, not a shorter value.
func TestAMissingPartIsFound(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := openLog(t, t.TempDir(), Options{})
	b := journal.Block{Log: "bank", First: 1, Sequence: 1, Data: make([]byte, 3*maxInline)}
	if err := l.Append(ctx, []journal.Block{b}); err != nil {
		t.Fatal(err)
	}
	err := l.remove([][]byte{partKey(blockKey(logPrefix("bank"), 1, 1), 1)})
	if err != nil {
		t.Fatal(err)
	}
	err = l.Blocks(ctx, "bank", 0, func(journal.Block) error { return nil })
	if journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("a block that lacks a part: %v", err)
	}
	closeLog(t, l)
}

// A key is read back as it was written, or refused.
func FuzzBlockKey(f *testing.F) {
	f.Add(blockKey(logPrefix("bank"), 7, 3))
	f.Add([]byte("b"))
	f.Fuzz(func(t *testing.T, key []byte) {
		log, first, sequence, ok := parseBlockKey(key)
		if ok && !bytes.Equal(blockKey(logPrefix(log), first, sequence), key) {
			t.Errorf("%q is read as %q %d %d", key, log, first, sequence)
		}
	})
}
