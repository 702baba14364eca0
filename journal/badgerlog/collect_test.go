package badgerlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// sizeOf is what the files of values and the tables of a log take on disk.
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

// What was deleted takes no room any more when it has been compacted, whether the log was closed in between or not.
func TestDeletedBlocksGiveTheirSpaceBack(t *testing.T) {
	prove.SkipShort(t, "it writes and collects files")
	t.Parallel()
	for name, reopened := range map[string]bool{"open": false, "reopened": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir, smallFiles)
			const n, size = 600, 64 << 10
			fillBank(t, l, 1, n, size)
			reopen := func() {
				t.Helper()
				if reopened {
					closeLog(t, l)
					l = openLog(t, dir, smallFiles)
				}
			}
			reopen()
			before := sizeOf(t, dir)
			trim(t, l, "bank", n-20)
			reopen()
			if err := l.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
			after := sizeOf(t, dir)
			t.Logf("%d bytes before, %d after", before, after)
			// 20 blocks, at most as much again in the file that they share with deleted ones, and the newest file.
			if most := int64(2*20*size + 4<<20); after > before/5 || after > most {
				t.Errorf("there are %d bytes, of %d when nothing was deleted", after, before)
			}
			for range 2 {
				holds(t, l, n-20, n, size)
				closeLog(t, l)
				l = openLog(t, dir, smallFiles)
			}
			closeLog(t, l)
		})
	}
}

// Readers who began before blocks were removed read none of them wrong, and what they read stays until they have ended.
func TestReadersKeepWhatTheyRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	const n = 200
	fillBank(t, l, 1, n, 60_000)
	before := sizeOf(t, dir)
	read := 0
	err := l.Blocks(t.Context(), "bank", 0, func(b journal.Block) error {
		if read++; read == 1 {
			trim(t, l, "bank", n-10)
			short, cancel := context.WithCancel(t.Context())
			cancel()
			if err := l.Compact(short); !errors.Is(err, context.Canceled) {
				t.Errorf("a collection that nobody wants any more: %v", err)
			}
			if err := l.Compact(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if !sameBlock(b, testBlock("bank", b.Sequence, 60_000)) {
			t.Errorf("block %d is another", b.Sequence)
		}
		return nil
	})
	if err != nil || read < 2 {
		t.Errorf("%d of %d blocks, %v", read, n, err)
	}
	if after := sizeOf(t, dir); after > before/2 {
		t.Errorf("%d bytes, %d before", after, before)
	}
	for range 3 {
		holds(t, l, n-10, n, 60_000)
		closeLog(t, l)
		l = openLog(t, dir, smallFiles)
	}
	closeLog(t, l)
}

// Whatever is removed of what, and written meanwhile, all that was not removed stays, and what was removed stays away.
func TestCollections(t *testing.T) {
	prove.SkipShort(t, "it writes and collects files")
	t.Parallel()
	rng := rand.New(rand.NewPCG(prove.Seed(t), 6))
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	left := map[journal.LogName][]journal.Block{}
	next := map[journal.LogName]uint64{}
	logs := []journal.LogName{"bank", "orders", "tally", "x"}
	add := func(log journal.LogName) {
		next[log]++
		b := testBlock(log, next[log], []int{50, 300, 5000, 60_000, 2 * maxInline}[min(rng.IntN(20), rng.IntN(5))])
		left[log] = append(left[log], b)
		if err := l.Append(t.Context(), []journal.Block{b}); err != nil {
			t.Error(err)
		}
	}
	for round := range 8 {
		for range 80 {
			add(logs[rng.IntN(len(logs))])
		}
		log := logs[rng.IntN(3)] // of x nothing is ever removed
		if all := left[log]; len(all) > 1 {
			keep := rng.IntN(len(all) - 1)
			trim(t, l, log, all[keep].Sequence)
			left[log] = all[keep:]
		}
		compacted := make(chan error, 1)
		go func() { compacted <- l.Compact(t.Context()) }()
		for range 40 { // meanwhile
			add(logs[rng.IntN(len(logs))])
		}
		if err := <-compacted; err != nil {
			t.Fatal(err)
		}
		switch round % 3 {
		case 1:
			write(t, die(t, l, dir), dir)
			l = openLog(t, dir, smallFiles)
		case 2:
			closeLog(t, l)
			l = openLog(t, dir, smallFiles)
		}
		for _, log := range logs {
			if all := blocksOf(t, l, log); !slices.EqualFunc(all, left[log], sameBlock) {
				t.Fatalf("round %d: %s has %d of %d blocks", round, log, len(all), len(left[log]))
			}
		}
	}
	for _, log := range logs {
		if err := l.Append(t.Context(), []journal.Block{testBlock(log, next[log]+1, 50)}); err != nil {
			t.Fatal(err)
		}
		trim(t, l, log, next[log]+1)
	}
	for range 2 { // the second also collects what was the newest file
		if err := l.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
		l = openLog(t, dir, smallFiles)
	}
	files, err := listValues(l.badger())
	var disk int64
	for _, f := range files {
		disk += f.disk
	}
	if err != nil || disk > 200_000 || len(files) > 8 {
		t.Errorf("200 bytes are needed, and %d files take %d, %v", len(files), disk, err)
	}
	closeLog(t, l)
}

// Nothing is collected while a table stands aside, as what it pointed to may be wanted.
func TestNothingIsCollectedWhileATableStandsAside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range uint64(2) {
		l := openLog(t, dir, smallFiles)
		fillBank(t, l, round*100+1, round*100+100, 100<<10)
		if round == 0 {
			blocks := []journal.Block{testBlock("orders", 1, 5000), testBlock("orders", 2, 70)}
			if err := l.Append(t.Context(), blocks); err != nil {
				t.Fatal(err)
			}
		}
		closeLog(t, l)
	}
	flipAt(t, filepath.Join(dir, badgerDir, "000001.sst"), -20)
	l := openLog(t, dir, smallFiles)
	if all := blocksOf(t, l, "orders"); len(all) != 2 {
		t.Errorf("orders, which had pointers in that table only, has %d blocks", len(all))
	}
	if len(l.Quarantined()) != 1 {
		t.Errorf("quarantined: %v", l.Quarantined())
	}
	trim(t, l, "bank", 190)
	before := valuesOf(t, l)
	if err := l.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := valuesOf(t, l); after < before {
		t.Errorf("%d bytes of %d are left", after, before)
	}
	closeLog(t, l)
}

// A damaged file is not collected: Badger would take the damage for its end. What it has behind that stays
// readable, whether it is a deleted block that is damaged or not.
func TestADamagedFileIsNotCollected(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]int{"of a deleted block": 100_000, "of a block": 3_500_000} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir, smallFiles)
			const n, size = 200, 60_000
			fillBank(t, l, 1, n, size)
			trim(t, l, "bank", 50) // of the 70 in the first file
			flipAt(t, valuesPath(l.badger(), 1), at)
			for range 2 {
				if err := l.Compact(t.Context()); err != nil {
					t.Fatal(err)
				}
				lost := 0
				for _, b := range blocksOf(t, l, "bank") {
					if len(b.Data) == 0 {
						lost++
					} else if !sameBlock(b, testBlock("bank", b.Sequence, size)) {
						t.Errorf("block %d is another", b.Sequence)
					}
				}
				if lost > 1 {
					t.Errorf("%d blocks cannot be read", lost)
				}
				closeLog(t, l)
				l = openLog(t, dir, smallFiles)
			}
			closeLog(t, l)
		})
	}
}

// When a sync fails while values are moved, the files in which they were stay, nothing is written any more, and the
// next opening writes everything again.
func TestAFailedSyncOfACollection(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	const n, size = 200, 60_000
	fillBank(t, l, 1, n, size)
	trim(t, l, "bank", 50)
	if err := l.Compact(t.Context()); err != nil { // one file of three
		t.Fatal(err)
	}
	trim(t, l, "bank", 120)
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	there, err := listValues(l.badger())
	if err != nil {
		t.Fatal(err)
	}
	l.moved = func() { l.watch.Errorf("Error while curlf sync: %v\n", syscall.EIO) }
	if err := l.Compact(t.Context()); !errors.Is(err, errLogged) {
		t.Errorf("the sync failed, and the collection says %v", err)
	}
	if err := l.Append(t.Context(), []journal.Block{testBlock("bank", n+1, size)}); !errors.Is(err, errLogged) {
		t.Errorf("an append behind it: %v", err)
	}
	for _, f := range there {
		if _, err := os.Stat(valuesPath(l.badger(), f.id)); err != nil {
			t.Errorf("a file that is still needed: %v", err)
		}
	}
	holds(t, l, 120, n, size)
	newest := valuesPath(badgerDir, newestValues(t, l))
	lost := die(t, l, dir)
	l = openLog(t, dir, smallFiles)
	holds(t, l, 120, n, size)
	again := die(t, l, dir)
	// The disk never got what was moved, whether the power is lost before the log is opened again or after that.
	for when, left := range map[string]journaltest.Files{"before": lost, "after": again} {
		if len(left[newest].Content) <= logHeaderSize {
			t.Fatalf("%s: nothing was moved to %s", when, newest)
		}
		left[newest] = journaltest.File{Size: left[newest].Size}
		write(t, left, dir)
		l = openLog(t, dir, smallFiles)
		holds(t, l, 120, n, size)
		closeLog(t, l)
	}
}

// Files are collected if at least half of what has to be read and copied for that is reclaimed.
func TestWhatIsWorthCollecting(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, c := range map[string]struct {
		sizes, dropped []int64 // of files 1, 2, ...
		id             uint32
	}{
		"nothing dropped":           {[]int64{mib, mib, 0}, []int64{0, 0, 0}, 0},
		"less than half":            {[]int64{mib, mib, 0}, []int64{mib / 3, mib / 4, 0}, 0},
		"half of one":               {[]int64{mib, mib, 0}, []int64{0, mib / 2, 0}, 2},
		"of equal ones the first":   {[]int64{mib, mib, mib, 0}, []int64{mib / 3, mib, mib, 0}, 2},
		"the newest":                {[]int64{mib, mib}, []int64{mib / 3, mib}, 0},
		"a small one after a large": {[]int64{64 * mib, 100, 0}, []int64{mib / 2, 100, 0}, 0},
		"many small ones after a large": {
			[]int64{4 * mib, mib, mib, mib, mib, 0}, []int64{mib + 1, mib, mib, mib, mib, 0}, 1,
		},
	} {
		dir := t.TempDir()
		content := make([]byte, mib)
		for i, size := range c.sizes {
			path := valuesPath(dir, uint32(i+1))
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
				t.Fatal(err)
			}
			binary.BigEndian.PutUint64(content[16*i:], uint64(i+1))
			binary.BigEndian.PutUint64(content[16*i+8:], uint64(c.dropped[i]))
		}
		if err := os.WriteFile(filepath.Join(dir, discardFile), content, 0o600); err != nil {
			t.Fatal(err)
		}
		id, ratio, err := toCollect(dir)
		if err != nil || id != c.id {
			t.Errorf("%s: file %d, %v", name, id, err)
		}
		if id > 0 && (ratio > collectRatio || ratio*float64(c.sizes[id-1]) > float64(c.dropped[id-1])) {
			t.Errorf("%s: Badger would not take it with ratio %v", name, ratio)
		}
	}
}

// valuesOf is what files of values take on disk.
func valuesOf(t *testing.T, l *Log) (bytes int64) {
	t.Helper()
	files, err := listValues(l.badger())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		bytes += f.disk
	}
	return bytes
}

// What was removed stays so when tables are merged, and when everything is looked into.
func TestRemovedBlocksDoNotComeBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	fillBank(t, l, 1, 300, 10<<10)
	trim(t, l, "bank", 100)
	for range 3 {
		if err := l.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
		l = openLog(t, dir, smallFiles)
		holds(t, l, 100, 300, 10<<10)
	}
	key := blockKey(logPrefix("bank"), 1, 1)
	if version, _, err := l.newest(key); version != 0 || err != nil {
		t.Fatalf("Badger still knows of the removal: version %d, %v", version, err)
	}
	closeLog(t, l)
	for _, note := range []string{"x", "0 true\n", "0 false\n"} {
		if err := os.WriteFile(filepath.Join(l.badger(), redoFile), []byte(note), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l.badger(), filesFile), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			l = openLog(t, dir, smallFiles)
			holds(t, l, 100, 300, 10<<10)
			closeLog(t, l)
		}
	}
	if err := os.WriteFile(filepath.Join(l.badger(), "x"+asideSuffix), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, dir, smallFiles)
	holds(t, l, 100, 300, 10<<10)
	closeLog(t, l)
}

// What was deleted is not found again, although its value is still there and Badger does not know of the deletion
// any more.
func TestDeletedValuesStayAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	fillBank(t, l, 1, 100, 10<<10)
	trim(t, l, "bank", 10)
	key := blockKey(logPrefix("bank"), 1, 1)
	for round := 0; ; round++ {
		if version, _, err := l.newest(key); err != nil || round == 5 {
			t.Fatalf("Badger knows of the deletion: version %d, %v", version, err)
		} else if version == 0 {
			break
		}
		if err := l.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
		l = openLog(t, dir, smallFiles)
	}
	there := false
	err := withMap(valuesPath(l.badger(), oldestValues(t, l)), func(content []byte) {
		_ = eachValue(content, l.lineage, func(_ int, e storedValue) error {
			there = there || bytes.Equal(e.key, key)
			return nil
		})
	})
	if err != nil || !there {
		t.Fatalf("the value is not there: %v", err)
	}
	closeLog(t, l)
	if err := (redo{}).note(l.badger()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l = openLog(t, dir, smallFiles)
		holds(t, l, 10, 100, 10<<10)
		closeLog(t, l)
	}
}

// With all pointers lost, what a collection left is found.
func TestValuesAfterACollection(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(table string) error{
		"damaged": func(table string) error { flipAt(t, table, -20); return nil },
		"missing": os.Remove, // as when its name did not come to the disk, and the removal of its log did
	} {
		t.Run(name, func(t *testing.T) { testValuesAfterACollection(t, spoil) })
	}
}

func testValuesAfterACollection(t *testing.T, spoil func(table string) error) {
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	const n = 150
	for i := range uint64(n) {
		blocks := []journal.Block{testBlock("bank", i+1, 20_000), testBlock("orders", i+1, 20_000)}
		if err := l.Append(t.Context(), blocks); err != nil {
			t.Fatal(err)
		}
	}
	trim(t, l, "bank", 140)
	before := sizeOf(t, dir)
	if err := l.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := sizeOf(t, dir); after > before*3/4 {
		t.Errorf("%d bytes, %d before", after, before)
	}
	closeLog(t, l)
	tables, err := filepath.Glob(filepath.Join(l.badger(), "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables: %v, %v", tables, err)
	}
	for _, table := range tables {
		if err := spoil(table); err != nil {
			t.Fatal(err)
		}
	}
	l = openLog(t, dir, smallFiles)
	if len(l.Quarantined()) != len(tables) {
		t.Errorf("quarantined: %v", l.Quarantined())
	}
	all := blocksOf(t, l, "orders")
	for i, b := range all {
		if !sameBlock(b, testBlock("orders", uint64(i+1), 20_000)) {
			t.Fatalf("block %d is not where it should be: %d is", i+1, b.Sequence)
		}
	}
	if len(all) != n {
		t.Errorf("%d blocks are left of %d", len(all), n)
	}
	closeLog(t, l)
}

// A file that was collected while a reader held it is removed at the next opening, if the process is killed before
// the reader ends; and it is not missed.
func TestACollectedFileThatWasHeld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	const n, size = 200, 60_000
	fillBank(t, l, 1, n, size)
	trim(t, l, "bank", n-10)
	first := valuesPath(badgerDir, oldestValues(t, l))
	var died journaltest.Files
	err := l.Blocks(t.Context(), "bank", 0, func(journal.Block) error {
		if died == nil {
			if err := l.Compact(t.Context()); err != nil {
				t.Error(err)
			}
			died = image(t, dir)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	if _, ok := died[first]; !ok {
		t.Fatal("nobody held the first file")
	}
	write(t, died, dir)
	l = openLog(t, dir, smallFiles)
	if _, err := os.Stat(filepath.Join(dir, first)); err == nil {
		t.Error("the first file is still there")
	}
	for range 2 {
		holds(t, l, n-10, n, size)
		if len(l.Quarantined()) > 0 {
			t.Errorf("quarantined: %v", l.Quarantined())
		}
		closeLog(t, l)
		l = openLog(t, dir, smallFiles)
	}
	closeLog(t, l)
}
