package badgerlog

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// When an append, a removal or a collection has returned, the kernel has nothing left to write of any file of
// values, or log of a table in memory: Badger writes both through maps, and the kernel says which pages of a map
// are dirty.
func TestAppendsAreSynced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if tmpfs := int64(0x01021994); int64(fs.Type) == tmpfs {
		dir = filepath.Join("testdata", "synced") // on a tmpfs everything stays dirty
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	l := openLog(t, dir, smallFiles)
	clean := func(what string) {
		t.Helper()
		dirty := dirtyBytes(t, l.badger())
		if len(dirty) < 2 {
			t.Fatalf("there are the maps %v only", dirty)
		}
		newest := filepath.Base(valuesPath("", newestValues(t, l)))
		for name, bytes := range dirty {
			// A finished file was synced and then cut to its length, which makes the zeros behind its end dirty.
			if bytes > 0 && (bytes > pageBytes || name == newest || filepath.Ext(name) == memSuffix) {
				t.Errorf("after %s %d bytes of %s are dirty", what, bytes, name)
			}
		}
	}
	const n = 120
	for i := range uint64(n) {
		blocks := []journal.Block{testBlock("bank", i+1, 20_000), testBlock("orders", i+1, 100+int(i%3)*300_000)}
		if err := l.Append(t.Context(), blocks); err != nil {
			t.Fatal(err)
		}
		if clean("an append"); t.Failed() {
			break
		}
	}
	trim(t, l, "orders", n-5)
	clean("a removal")
	if err := l.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean("a collection")
	closeLog(t, l)
}

// dirtyBytes is what is not on disk of the maps that this process has of .vlog and .mem files in a directory, by name.
func dirtyBytes(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dirty, name := map[string]int64{}, ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) < 2:
		case !strings.HasSuffix(words[0], ":"): // the head of a map
			path := words[len(words)-1]
			name = ""
			if ext := filepath.Ext(path); filepath.Dir(path) == dir && (ext == valuesSuffix || ext == memSuffix) {
				name = filepath.Base(path)
				dirty[name] += 0
			}
		case name != "" && (words[0] == "Shared_Dirty:" || words[0] == "Private_Dirty:"):
			kilobytes, err := strconv.ParseInt(words[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			dirty[name] += kilobytes << 10
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return dirty
}
