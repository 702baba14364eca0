package badgerlog

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4/skl"
)

// What MemoryOf says covers the arenas that Badger makes, and grows with the tables that a crash has left.
func TestMemoryOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	before := MemoryOf(dir, Options{})
	l, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := l.db.Opts()
	arena := o.MemTableSize + l.db.MaxBatchSize() + l.db.MaxBatchCount()*int64(skl.MaxNodeSize)
	rest := int64(1+o.NumCompactors)*2*o.MemTableSize + o.BlockCacheSize + o.IndexCacheSize + 2*maxInline
	tables := int64(o.NumMemtables + 2)
	if least := tables*arena + rest; before < least || before > least+least/50 {
		t.Errorf("a new log may take %d bytes; %d arenas of %d bytes and %d others are %d", before, tables, arena, rest,
			least)
	}
	if open := MemoryOf(dir, Options{}); open != before {
		t.Errorf("an open log may take %d bytes, and %d before it was opened", open, before)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range int(tables) + 1 {
		name := filepath.Join(dir, badgerDir, fmt.Sprintf("%05d%s", 10+i, memSuffix))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, 2*o.MemTableSize); err != nil {
			t.Fatal(err)
		}
	}
	if left := MemoryOf(dir, Options{}); left < before+2*arena {
		t.Errorf("with %d tables that a crash has left it may take %d bytes, and %d without", tables+1, left, before)
	}
}
