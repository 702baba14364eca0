package badgerengine

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// sizeOf is what the files of values and the tables in a directory take on disk.
func sizeOf(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".sst" && filepath.Ext(name) != valuesSuffix {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += onDisk(info)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// What was deleted takes no room any more when it has been compacted.
func TestDeletedBlocksGiveTheirSpaceBack(t *testing.T) {
	for name, o := range bothLayouts {
		t.Run(name, func(t *testing.T) { testDeletedBlocksGiveTheirSpaceBack(t, o) })
	}
}

func testDeletedBlocksGiveTheirSpaceBack(t *testing.T, o Options) {
	dir := t.TempDir()
	e, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.NewChaCha8([32]byte{1})
	const n = 600
	for i := range n {
		data := make([]byte, 64<<10)
		_, _ = rng.Read(data)
		b := journal.Block{Log: "bank", First: journal.Position(i + 1), Sequence: uint64(i + 1), Data: data}
		if err := e.Log().Append(t.Context(), []journal.Block{b}); err != nil {
			t.Fatal(err)
		}
	}
	reopen := func() {
		t.Helper()
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if e, err = Open(dir, o); err != nil {
			t.Fatal(err)
		}
	}
	reopen() // writes what is in memory to tables
	before := sizeOf(t, dir)
	for more := true; more; {
		if more, err = e.Log().Trim(t.Context(), "bank", n-20); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	if err := e.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	reopen() // removes tables that nobody needs
	after := sizeOf(t, dir)
	t.Logf("%d bytes before, %d after", before, after)
	if after > before/5 {
		t.Errorf("there are %d bytes, of %d when nothing was deleted", after, before)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
