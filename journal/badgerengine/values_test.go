package badgerengine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

var smallFiles = bothLayouts["apart"]

// blocksOf reads all blocks of a log.
func blocksOf(t *testing.T, e *Engine, log journal.LogName) (all []journal.Block) {
	t.Helper()
	err := e.Log().Blocks(t.Context(), log, 0, func(b journal.Block) error {
		b.Data = bytes.Clone(b.Data)
		all = append(all, b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameBlock(a, b journal.Block) bool {
	return a.Log == b.Log && a.First == b.First && a.Sequence == b.Sequence && bytes.Equal(a.Data, b.Data)
}

// testBlock is the n-th block of a log, from 1.
func testBlock(log journal.LogName, n uint64, size int) journal.Block {
	return journal.Block{Log: log, First: journal.Position(n), Sequence: n, Data: journaltest.Noise(size, n+uint64(len(log))<<40)}
}

func openEngine(t *testing.T, dir string, o Options) *Engine {
	t.Helper()
	e, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// image is what a process that dies now leaves.
func image(t *testing.T, dir string) files {
	t.Helper()
	list := func() string {
		names, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(dir, "log", badger.ManifestFilename))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(names, content)
	}
	for {
		before := list()
		all, err := readJournal(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err == nil && list() == before { // or Badger made tables meanwhile, and removed others
			return all
		}
	}
}

// A log of a terabyte is not ten thousands of open files.
func TestFilesOfValuesGrowWithTheLog(t *testing.T) {
	dir := t.TempDir()
	if size := fileBytesFor(filepath.Join(dir, "none"), valueFileBytes, valueFiles); size != valueFileBytes {
		t.Errorf("the first file has %d bytes", size)
	}
	const least = 64 // bytes of an entry
	if most := apart(badger.DefaultOptions(dir), valueFileBytes, valueFiles, pointersTable).ValueLogMaxEntries; int64(most)*least < valueFileMost {
		t.Errorf("files end after %d entries", most)
	}
	count, total := 0, int64(0)
	for total < 1<<40 {
		size := fileBytesFor(dir, valueFileBytes, valueFiles)
		if size < valueFileBytes || size > valueFileMost {
			t.Fatalf("a file of %d bytes", size)
		}
		for range 64 { // with one process
			if err := os.WriteFile(valuesPath(dir, uint32(count)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(valuesPath(dir, uint32(count)), size); err != nil {
				t.Fatal(err)
			}
			total += size
			count++
		}
	}
	if count > 3500 {
		t.Errorf("%d files for a terabyte", count)
	}
}

// Files of several sizes stand in one log, whether it was killed or closed in between.
func TestFilesOfValuesOfSeveralSizes(t *testing.T) {
	const each, size = 12, 1 << 20
	dir, n := t.TempDir(), uint64(0)
	for life, file := range []int64{4 << 20, 8 << 20, 4 << 20} {
		e := openEngine(t, dir, Options{MemTableBytes: 8 << 20, valueFileBytes: file})
		fillBank(t, e, n+1, n+each, size)
		n += each
		died := die(t, e, dir)
		if life%2 == 0 {
			if err := died.write(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	e := openEngine(t, dir, smallFiles)
	holds(t, e, 1, n, size)
	closeEngine(t, e)
}

// A large write of which the pointers were lost fits into small tables.
func TestALargeWriteIsRecoveredIntoTables(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, Options{})
	var blocks []journal.Block
	for n := range uint64(40) {
		blocks = append(blocks, testBlock("bank", n+1, 200_000))
	}
	if err := e.Log().Append(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
	died := die(t, e, dir)
	died.loseMems()
	if err := died.write(dir); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{bothLayouts["in tables"], {}} {
		e = openEngine(t, dir, o)
		holds(t, e, 1, 40, 200_000)
		closeEngine(t, e)
	}
}

// A journal goes on where values are in tables, and back.
func TestLayoutsFollowOnEachOther(t *testing.T) {
	for _, killed := range []bool{false, true} {
		dir := t.TempDir()
		var want []journal.Block
		for round := range 6 {
			o := []Options{{valuesInTables: true}, smallFiles}[round%2]
			e := openEngine(t, dir, o)
			if all := blocksOf(t, e, "bank"); !slices.EqualFunc(all, want, sameBlock) {
				t.Fatalf("round %d: %d of %d blocks are there", round, len(all), len(want))
			}
			for range 20 {
				b := testBlock("bank", uint64(len(want)+1), 300+len(want)*1000)
				want = append(want, b)
				if err := e.Log().Append(t.Context(), []journal.Block{b}); err != nil {
					t.Fatal(err)
				}
			}
			died := die(t, e, dir)
			if killed {
				if err := died.write(dir); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// A flipped bit in a file of values costs the batch in which it is, and no other, also in the last file.
func TestAFlippedBitInAValue(t *testing.T) {
	for _, killed := range []bool{false, true} {
		dir := t.TempDir()
		e := openEngine(t, dir, smallFiles)
		const n, size = 20, 5000
		fillBank(t, e, 1, n, size)
		id := e.log.values.id
		died := die(t, e, dir)
		if killed {
			if err := died.write(dir); err != nil {
				t.Fatal(err)
			}
		}
		path := valuesPath(filepath.Join(dir, "log"), id)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{10, 5100, 5 * size, 5*size + 10*56} {
			content[at+logHeaderSize] ^= 4
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			e = openEngine(t, dir, smallFiles)
			good := 0
			for i, b := range blocksOf(t, e, "bank") {
				switch {
				case sameBlock(b, testBlock("bank", uint64(i+1), size)):
					good++
				case len(b.Data) > 0:
					t.Errorf("block %d is another", i+1)
				}
			}
			if good < n-4 || good == n {
				t.Errorf("killed %v: %d of %d blocks are whole", killed, good, n)
			}
			closeEngine(t, e)
		}
	}
}

// What Badger writes to its value log is read as it is.
func TestStoredValues(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, Options{})
	blocks := []journal.Block{testBlock("bank", 1, 100), testBlock("orders", 1, 70_000)}
	if err := e.Log().Append(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
	found := map[string]storedValue{}
	err := withValues(filepath.Join(dir, "log"), e.log.values.id, func(content []byte, f *os.File) error {
		return eachValue(content, f, func(_ int, v storedValue) error {
			v.value = bytes.Clone(v.value)
			found[string(v.key)] = v
			return nil
		})
	})
	if err != nil || len(found) != 3 {
		t.Errorf("%d entries, %v", len(found), err)
	}
	for _, b := range blocks {
		key := blockKey(logPrefix(b.Log), b.First, b.Sequence)
		v := found[string(key)]
		if !bytes.Equal(v.value, b.Data) || v.version != 1 || v.expires != e.log.lineage {
			t.Errorf("%s: %d bytes, version %d", b.Log, len(v.value), v.version)
		}
	}
	if group := found[string(groupKey)]; len(group.value) != leastApart || group.value[0] != 2 {
		t.Errorf("the group is %v", group.value)
	}
	closeEngine(t, e)
}

// fillBank appends blocks up to the n-th of the log "bank".
func fillBank(t *testing.T, e *Engine, from, to uint64, size int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := e.Log().Append(t.Context(), []journal.Block{testBlock("bank", n, size)}); err != nil {
			t.Fatal(err)
		}
	}
}

func trim(t *testing.T, e *Engine, log journal.LogName, below uint64) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = e.Log().Trim(t.Context(), log, below); err != nil {
			t.Fatal(err)
		}
	}
}

// holds fails the test unless the log "bank" has just these blocks.
func holds(t *testing.T, e *Engine, from, to uint64, size int) {
	t.Helper()
	all := blocksOf(t, e, "bank")
	if len(all) != int(to-from)+1 {
		t.Fatalf("there are %d blocks, not %d to %d", len(all), from, to)
	}
	for i, b := range all {
		if !sameBlock(b, testBlock("bank", from+uint64(i), size)) {
			t.Fatalf("the %d. block is not %d", i+1, from+uint64(i))
		}
	}
}

// die is what the process that has e open leaves if it dies now. Then e is closed.
func die(t *testing.T, e *Engine, dir string) files {
	t.Helper()
	died := image(t, dir)
	closeEngine(t, e)
	return died
}

func closeEngine(t *testing.T, e *Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// A file of values that is missing or was cut short is noticed.
func TestAMissingFileOfValues(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"short":   func(path string) error { return os.Truncate(path, 100<<10) },
	} {
		dir := t.TempDir()
		e := openEngine(t, dir, smallFiles)
		fillBank(t, e, 1, 100, 100<<10)
		closeEngine(t, e)
		path := valuesPath(filepath.Join(dir, "log"), 1)
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		e = openEngine(t, dir, smallFiles)
		if len(e.Doubts()) != 1 || e.Doubts()[0] != path+asideSuffix {
			t.Errorf("%s: doubts are %v", name, e.Doubts())
		}
		unread := 0
		for _, b := range blocksOf(t, e, "bank") {
			if len(b.Data) == 0 {
				unread++
			} else if !sameBlock(b, testBlock("bank", b.Sequence, 100<<10)) {
				t.Errorf("%s: block %d is another", name, b.Sequence)
			}
		}
		if unread == 0 || unread == 100 {
			t.Errorf("%s: %d blocks cannot be read", name, unread)
		}
		closeEngine(t, e)
	}
}

func FuzzMark(f *testing.F) {
	f.Add([]byte("1 2 00000000\n"))
	f.Add(encodeMark(mark{File: 7, Version: 1 << 40}))
	f.Add(encodeMark(mark{7, 1, []valueFile{{id: 3, size: 100}, {id: 6, size: 1 << 40}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := decodeMark(b); ok && string(encodeMark(m)) != string(b) {
			t.Errorf("%q is read as %v", b, m)
		}
	})
}

// Entries of a file of values are read whatever its bytes are, and none lies outside of it.
func FuzzValues(f *testing.F) {
	dir := f.TempDir()
	db, err := openDatabase(apart(badger.DefaultOptions(dir).WithLogger(nil), 4<<20, valueFiles, pointersTable))
	if err != nil {
		f.Fatal(err)
	}
	for i := range 3 {
		if err := db.write([]*badger.Entry{db.entry(fmt.Appendf(nil, "key %d", i), journaltest.Noise(100, uint64(i)))}); err != nil {
			f.Fatal(err)
		}
	}
	content, err := os.ReadFile(valuesPath(dir, db.values.id))
	if err = errors.Join(err, db.Close()); err != nil {
		f.Fatal(err)
	}
	content = bytes.TrimRight(content, "\x00")
	f.Add(content)
	holes := bytes.Clone(content)
	clear(holes[logHeaderSize : logHeaderSize+150])
	f.Add(holes)
	f.Fuzz(func(t *testing.T, b []byte) {
		end := 0
		err := eachValue(b, nil, func(at int, e storedValue) error {
			if at < end || at+e.size > len(b) || len(e.key)+len(e.value) >= e.size {
				t.Errorf("an entry at %d of %d bytes behind %d, of %d", at, e.size, end, len(b))
			}
			end = at + e.size
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
