package badgerlog

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// lookedAt are the versions of Badger, and of the library with its maps of files, whose internals were looked at:
// see the list at the head of quarantine.go. Whoever changes them reads the list again, with the new code beside
// it.
var lookedAt = map[string]string{
	"github.com/dgraph-io/badger/v4":    "v4.9.6",
	"github.com/dgraph-io/ristretto/v2": "v2.2.0",
}

func TestBadgersVersion(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(content)) {
		words := strings.Fields(strings.TrimPrefix(line, "require"))
		if len(words) > 1 && lookedAt[words[0]] != "" {
			found[words[0]] = words[1]
		}
		if strings.Contains(line, "=>") && strings.Contains(line, "dgraph-io") {
			t.Errorf("nobody looked at the internals of %s", strings.TrimSpace(line))
		}
	}
	if !maps.Equal(found, lookedAt) {
		t.Errorf("the internals listed in quarantine.go were looked at in %v; this is %v", lookedAt, found)
	}
}

// A log of a terabyte is not ten thousands of open files.
func TestFilesOfValuesGrowWithTheLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if size := fileBytesFor(filepath.Join(dir, "none"), valueFileBytes, maxFilesOfASize); size != valueFileBytes {
		t.Errorf("the first file has %d bytes", size)
	}
	const least = 64 // bytes of an entry
	if most := (&Log{dir: dir, watch: &watch{}}).badgerOptions().ValueLogMaxEntries; int64(most)*least < maxFileBytes {
		t.Errorf("files end after %d entries", most)
	}
	count, total := 0, int64(0)
	for total < 1<<40 {
		size := fileBytesFor(dir, valueFileBytes, maxFilesOfASize)
		if size < valueFileBytes || size > maxFileBytes {
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
	if n := maxOfASize(70); n != 70/8 {
		t.Errorf("of 70 descriptors %d are for files of one size", n)
	}
}

// Files of several sizes stand in one log, whether it was killed or closed in between.
func TestFilesOfValuesOfSeveralSizes(t *testing.T) {
	t.Parallel()
	const each, size = 12, 1 << 20
	dir, n := t.TempDir(), uint64(0)
	for life, file := range []int64{4 << 20, 8 << 20, 4 << 20} {
		l := openLog(t, dir, Options{ValueFileBytes: file})
		fillBank(t, l, n+1, n+each, size)
		n += each
		died := die(t, l, dir)
		if life%2 == 0 {
			write(t, died, dir)
		}
	}
	l := openLog(t, dir, smallFiles)
	holds(t, l, 1, n, size)
	closeLog(t, l)
}

// What a kill left in a log of a table in memory fits into one again, also if the tables are smaller now, or the
// opening is killed, too.
func TestALargeTableInMemory(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int64{"as it was made": 64 << 20, "cut to its content": 20<<20 + 1} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00001"+memSuffix), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, "00001"+memSuffix), size); err != nil {
			t.Fatal(err)
		}
		if got := tableBytesFor(dir, tableBytes); got < size/2 || got > 2*size {
			t.Errorf("%s: %d bytes for a log of %d", name, got, size)
		}
	}
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	var blocks []journal.Block
	for n := range uint64(30_000) {
		if blocks = append(blocks, testBlock("bank", n+1, 40)); len(blocks) == 1000 {
			if err := l.Append(t.Context(), blocks); err != nil {
				t.Fatal(err)
			}
			blocks = nil
		}
	}
	died := die(t, l, dir)
	for range 2 {
		for name, f := range died {
			if filepath.Ext(name) == memSuffix {
				f.Size = int64(len(f.Content))
				died[name] = f
			}
		}
		write(t, died, dir)
		l = openLog(t, dir, Options{})
		holds(t, l, 1, 30_000, 40)
		died = die(t, l, dir)
	}
}

// A flipped bit in a file of values costs the batch in which it is, and no other, also in the newest file.
func TestAFlippedBitInAValue(t *testing.T) {
	t.Parallel()
	for _, killed := range []bool{false, true} {
		dir := t.TempDir()
		l := openLog(t, dir, smallFiles)
		const n, size = 20, 5000
		fillBank(t, l, 1, n, size)
		path := valuesPath(l.badger(), newestValues(t, l))
		died := die(t, l, dir)
		if killed {
			write(t, died, dir)
		}
		for _, at := range []int{10, 5100, 5 * size, 5*size + 10*56} {
			flipAt(t, path, at+logHeaderSize)
		}
		for range 2 {
			l = openLog(t, dir, smallFiles)
			good := 0
			for i, b := range blocksOf(t, l, "bank") {
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
			closeLog(t, l)
		}
	}
}

// What Badger writes to its files of values is read as it is.
func TestStoredValues(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	blocks := []journal.Block{testBlock("bank", 1, 100), testBlock("orders", 1, 70_000)}
	if err := l.Append(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
	found := map[string]storedValue{}
	err := withMap(valuesPath(l.badger(), newestValues(t, l)), func(content []byte) {
		_ = eachValue(content, l.lineage, func(_ int, v storedValue) error {
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
		if !bytes.Equal(v.value, b.Data) || v.version != 1 || v.expires != l.lineage {
			t.Errorf("%s: %d bytes, version %d", b.Log, len(v.value), v.version)
		}
	}
	if group := found[string(groupKey)]; len(group.value) != minInFile || group.value[0] != 2 {
		t.Errorf("the group is %v", group.value)
	}
	closeLog(t, l)
}

// A list that is as long as it can be is read back, and a damaged one is none.
func TestLists(t *testing.T) {
	t.Parallel()
	files := map[uint32]finished{}
	for id := range uint32(1000) {
		files[id*7] = finished{int64(id) << 30, uint64(id) << 40}
	}
	content := encodeFiles(files, 7)
	if decodeFiles(content, 8) != nil {
		t.Error("a list of another journal is read")
	}
	if !maps.Equal(decodeFiles(content, 7), files) {
		t.Error("it is read as another one")
	}
	for at := 0; at < len(content); at += 97 {
		damaged := bytes.Clone(content)
		damaged[at] ^= 1
		if decodeFiles(damaged, 7) != nil || decodeFiles(content[:at], 7) != nil {
			t.Errorf("damage at %d is not noticed", at)
		}
	}
}

// A file of values that is missing or was cut short is noticed.
func TestAMissingFileOfValues(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"short":   func(path string) error { return os.Truncate(path, 100<<10) },
	} {
		dir := t.TempDir()
		l := openLog(t, dir, smallFiles)
		fillBank(t, l, 1, 100, 100<<10)
		closeLog(t, l)
		path := valuesPath(l.badger(), 1)
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, dir, smallFiles)
		if len(l.Quarantined()) != 1 || l.Quarantined()[0] != path+asideSuffix {
			t.Errorf("%s: quarantined: %v", name, l.Quarantined())
		}
		unread := 0
		for _, b := range blocksOf(t, l, "bank") {
			if len(b.Data) == 0 {
				unread++
			} else if !sameBlock(b, testBlock("bank", b.Sequence, 100<<10)) {
				t.Errorf("%s: block %d is another", name, b.Sequence)
			}
		}
		if unread == 0 || unread == 100 {
			t.Errorf("%s: %d blocks cannot be read", name, unread)
		}
		closeLog(t, l)
	}
}

// Counts of deleted values that Badger would not survive are thrown away.
func TestDamagedDiscards(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	const n, size = 200, 60_000
	fillBank(t, l, 1, n, size)
	trim(t, l, "bank", 20)
	if err := l.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	path := filepath.Join(l.badger(), "DISCARD")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if counts, sound := parseDiscards(whole); !sound || len(counts) == 0 {
		t.Fatalf("the counts that Badger wrote are no good: %x", whole[:32])
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"empty":        func([]byte) []byte { return nil },
		"short":        func(b []byte) []byte { return b[:40] },
		"another file": func(b []byte) []byte { b[2] ^= 1; return b },
		"twice":        func(b []byte) []byte { copy(b[16:], b[:16]); return b },
		"too much":     func(b []byte) []byte { b[8] ^= 0x80; return b },
	} {
		spoilt := spoil(bytes.Clone(whole))
		if _, sound := parseDiscards(spoilt); sound {
			t.Errorf("%s: it is taken for sound", name)
		}
		if err := os.WriteFile(path, spoilt, 0o600); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, dir, smallFiles)
		if err := l.Compact(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		holds(t, l, 20, n, size)
		closeLog(t, l)
	}
}

// A log of an earlier version, which may lack any of its pointers, is taken over.
func TestOlderLogs(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		dir := t.TempDir()
		l := openLog(t, dir, smallFiles)
		fillBank(t, l, 1, 100, 60_000)
		trim(t, l, "bank", 10)
		fillBank(t, l, 101, 110, 60_000)
		died := die(t, l, dir)
		if lost {
			for name, f := range died {
				if filepath.Ext(name) == memSuffix {
					clear(f.Content[logHeaderSize : len(f.Content)/2]) // a page that did not come to the disk
				}
			}
		}
		delete(died, headsFile)
		delete(died, filepath.Join(badgerDir, filesFile))
		died[filepath.Join(badgerDir, olderMark)] = journaltest.File{Content: []byte("1 1\n0000\n")}
		write(t, died, dir)
		for range 2 {
			l = openLog(t, dir, smallFiles)
			if all := blocksOf(t, l, "bank"); !lost {
				holds(t, l, 10, 110, 60_000)
			} else if len(all) != 110 { // what was deleted is not known
				t.Errorf("there are %d blocks", len(all))
			}
			if _, err := os.Stat(filepath.Join(l.badger(), olderMark)); err == nil {
				t.Error("the mark is still there")
			}
			closeLog(t, l)
		}
	}
}

// FuzzValues: entries of a file of values are read whatever its bytes are, and none lies outside of it.
func FuzzValues(f *testing.F) {
	dir := f.TempDir()
	l, err := Open(dir, Options{})
	if err != nil {
		f.Fatal(err)
	}
	for i := range uint64(3) {
		b := journal.Block{
			Log: "bank", First: journal.Position(i + 1), Sequence: i + 1, Data: journaltest.Noise(100, i),
		}
		if err := l.Append(f.Context(), []journal.Block{b}); err != nil {
			f.Fatal(err)
		}
	}
	files, err := listValues(l.badger())
	if err != nil {
		f.Fatal(err)
	}
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(valuesPath(l.badger(), files[0].id))
	if err != nil {
		f.Fatal(err)
	}
	if end, _ := wholeUpTo(content); end != len(content) {
		f.Fatalf("of %d bytes that Badger wrote %d are read", len(content), end)
	}
	f.Add(content)
	holes := bytes.Clone(content)
	clear(holes[logHeaderSize : logHeaderSize+150])
	f.Add(holes)
	f.Add(slices.Concat(content[:200], content))
	lineage := l.lineage
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, version := wholeUpTo(b)
		if whole > max(len(b), logHeaderSize) {
			t.Errorf("%d of %d bytes are whole", whole, len(b))
		}
		end := logHeaderSize
		err := eachValue(b, lineage, func(at int, e storedValue) error {
			if at < end || at+e.size > len(b) || len(e.key)+len(e.value) >= e.size {
				t.Errorf("an entry at %d of %d bytes after %d, of %d", at, e.size, end, len(b))
			}
			if at < whole && e.version > version {
				t.Errorf("version %d, of at most %d", e.version, version)
			}
			end = at + e.size
			return nil
		})
		if err != nil || end < whole {
			t.Errorf("entries up to %d, and %d bytes are whole: %v", end, whole, err)
		}
	})
}

// FuzzFiles: a list of files is read as it was written, or not at all.
func FuzzFiles(f *testing.F) {
	f.Add([]byte("null\n00000000\n"))
	f.Add(encodeFiles(nil, 7))
	f.Add(encodeFiles(map[uint32]finished{3: {100, 1 << 40}, 7: {1 << 40, 1}}, 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		if files := decodeFiles(b, 7); files != nil && string(encodeFiles(files, 7)) != string(b) {
			t.Errorf("%q is read as %v", b, files)
		}
	})
}

// FuzzDiscards: counts are judged whatever their bytes are.
func FuzzDiscards(f *testing.F) {
	f.Add(make([]byte, 1<<20))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if counts, sound := parseDiscards(b); sound && 16*len(counts) >= len(b) {
			t.Errorf("%d bytes have %d counts", len(b), len(counts))
		}
	})
}
