package badgerlog

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

const pageBytes = 4 << 10

// A loss of power leaves of each file any mixture of what was synced last and what was written later, page by page,
// and of the directory the names that it had when it was synced last, and any of the later ones. What was
// acknowledged is there all the same, what was removed is not, and a group that was being written is there or not,
// as a whole.
//
// Badger has synced the values of a group before it writes the pointers to them. So a cut comes while values are
// written, and pointers are as they were; or values are all there, and pointers are being written; or a sync of the
// values has failed, which Badger only logs, and either may be there in part. That all is synced when an append
// returns is TestAppendsAreSynced's to see.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	rounds, seed := prove.Rounds(t, 3, 50), prove.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 5))
	logs := []journal.LogName{"bank", "orders", "tally"}
	said := map[journal.LogName][]journal.Block{} // acknowledged, and not removed
	next := map[journal.LogName]uint64{"bank": 1, "orders": 1, "tally": 1}
	dir := t.TempDir()
	recovered, cut := 0, 0
	open := func() *Log {
		l := &Log{dir: dir, options: smallFiles, watch: &watch{}, tableBytes: 32 << 10} // so that several are needed
		if err := l.open(); err != nil {
			t.Fatal(err)
		}
		return l
	}
	for round := range rounds {
		l := open()
		var named map[string]bool // of the directory's names, those that are on disk
		sync := func(path string) error {
			paths, err := filepath.Glob(filepath.Join(path, "*"))
			named = map[string]bool{}
			for _, p := range paths {
				named[filepath.Join(badgerDir, filepath.Base(p))] = true
			}
			return errors.Join(err, syncPath(path))
		}
		l.names.sync = sync
		if err := sync(l.badger()); err != nil { // as opening did
			t.Fatal(err)
		}
		group := func() (blocks []journal.Block) {
			n := maps.Clone(next) // sequences are dense in a log
			for _, log := range logs[:1+rng.IntN(len(logs))] {
				for range 1 + rng.IntN(2) {
					size := 40 + rng.IntN(60_000)
					if rng.IntN(30) == 0 {
						size = maxInline + rng.IntN(maxInline)
					}
					blocks = append(blocks, testBlock(log, n[log], size))
					n[log]++
				}
			}
			return blocks
		}
		for range 30 + rng.IntN(200) {
			blocks := group()
			if err := l.Append(t.Context(), blocks); err != nil {
				t.Fatal(err)
			}
			for _, b := range blocks {
				said[b.Log] = append(said[b.Log], b)
				next[b.Log]++
			}
			if rng.IntN(60) == 0 {
				log := logs[rng.IntN(len(logs))]
				if all := said[log]; len(all) > 4 {
					keep := len(all)/2 + rng.IntN(len(all)/2)
					trim(t, l, log, all[keep].Sequence)
					said[log] = all[keep:]
					if rng.IntN(2) == 0 {
						if err := l.Compact(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
		acknowledged, durable := image(t, dir), maps.Clone(named)
		last := group()
		if err := l.Append(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		after := image(t, dir)
		closeLog(t, l)
		way := rng.IntN(3)
		for _, name := range slices.Sorted(maps.Keys(after)) {
			now, base := after[name], acknowledged[name]
			switch ext := filepath.Ext(name); {
			case ext == memSuffix && way == 0: // its values were not synced yet
				now = base
			case ext == valuesSuffix && way == 1: // they were
				base = now
			case ext == memSuffix || ext == valuesSuffix:
			case filepath.Base(name) == headsFile:
				base, now = journaltest.File{}, acknowledged[name] // it is written after the sync
			default:
				continue // Badger syncs it
			}
			after[name] = mixPages(base, now, rng)
			unnamed := !durable[name] && rng.IntN(2) == 0
			if ext := filepath.Ext(name); unnamed && (ext == memSuffix || ext == valuesSuffix) {
				delete(after, name)
			}
		}
		write(t, after, dir)

		l = open()
		there := map[journal.LogName]int{}
		for _, log := range logs {
			all := blocksOf(t, l, log)
			want := said[log]
			if len(all) < len(want) {
				t.Fatalf("round %d, way %d: %s has %d of %d blocks", round, way, log, len(all), len(want))
			}
			for i, b := range all {
				switch {
				case i < len(want):
					if !sameBlock(b, want[i]) {
						t.Fatalf("round %d, way %d: %s has block %d in the place of %d",
							round, way, log, b.Sequence, want[i].Sequence)
					}
				case !slices.ContainsFunc(last, func(l journal.Block) bool { return sameBlock(l, b) }):
					t.Fatalf("round %d, way %d: %s has block %d, which nobody wrote", round, way, log, b.Sequence)
				default:
					there[""]++
				}
			}
			said[log] = all
			next[log] = 1
			if len(all) > 0 {
				next[log] = all[len(all)-1].Sequence + 1
			}
		}
		switch there[""] {
		case 0:
			cut++
		case len(last):
			recovered++
		default:
			t.Fatalf("round %d, way %d: %d of the %d blocks of the last group are there",
				round, way, there[""], len(last))
		}
		if rng.IntN(2) == 0 { // or it dies again right away
			closeLog(t, l)
			continue
		}
		write(t, die(t, l, dir), dir)
	}
	t.Logf("the last group was whole %d times and gone %d times", recovered, cut)
}

// mixPages takes each page from one of two states of a file.
func mixPages(was, is journaltest.File, rng *rand.Rand) journaltest.File {
	mixed := make([]byte, max(len(was.Content), len(is.Content)))
	copy(mixed, was.Content)
	share := rng.IntN(5) // of four, that reached the disk
	for at := 0; at < len(is.Content); at += pageBytes {
		if rng.IntN(4) < share {
			end := min(at+pageBytes, len(is.Content))
			copy(mixed[at:end], is.Content[at:end])
		}
	}
	return journaltest.File{Content: mixed, Size: is.Size}
}

// Badger only logs that a sync of its values has failed. The append has failed then, nothing is written any more,
// and the next opening writes again what the kernel may have given up: whatever the disk has of it, it is there.
func TestAFailedSync(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for n := 1; n <= 4; n++ {
		l := openLog(t, dir, smallFiles)
		before := len(blocksOf(t, l, "bank"))
		for i := 1; i < n; i++ {
			if err := l.Append(t.Context(), []journal.Block{testBlock("bank", uint64(before+i), 5000)}); err != nil {
				t.Fatal(err)
			}
		}
		id := newestValues(t, l)
		synced := image(t, dir)
		l.committed = func() { l.watch.Errorf("Error while curlf sync: %v\n", syscall.EIO) }
		next := []journal.Block{testBlock("bank", uint64(before+n), 5000)}
		if err := l.Append(t.Context(), next); !errors.Is(err, errLogged) {
			t.Errorf("the sync failed, and the append says %v", err)
		}
		l.committed = nil
		next[0] = testBlock("bank", uint64(before+n+1), 5000)
		if err := l.Append(t.Context(), next); !errors.Is(err, errLogged) {
			t.Errorf("an append behind it: %v", err)
		}
		closeLog(t, l)
		l = openLog(t, dir, smallFiles)
		holds(t, l, 1, uint64(before+n), 5000)
		if _, err := os.Stat(filepath.Join(l.badger(), redoFile)); err == nil {
			t.Error("the sign of a failed sync is still there")
		}
		// The disk never got what was not synced.
		died, name := die(t, l, dir), valuesPath(badgerDir, id)
		if _, ok := died[name]; !ok {
			t.Fatalf("%s is not there any more", name)
		}
		died[name] = synced[name]
		write(t, died, dir)
		l = openLog(t, dir, smallFiles)
		holds(t, l, 1, uint64(before+n), 5000)
		closeLog(t, l)
		// Without the file of which a sync failed, nothing of it is missing.
		closed := image(t, dir)
		if err := removeIfThere(valuesPath(l.badger(), id)); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, dir, smallFiles)
		holds(t, l, 1, uint64(before+n), 5000)
		if len(l.Quarantined()) > 0 {
			t.Errorf("quarantined: %v", l.Quarantined())
		}
		closeLog(t, l)
		write(t, closed, dir) // or every later opening would look for everything
	}
}

// A line of the log that is about a reader does not fail a writer.
func TestADamagedValueDoesNotFailAppends(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	fillBank(t, l, 1, 10, 5000)
	id := newestValues(t, l)
	closeLog(t, l)
	l = openLog(t, dir, smallFiles)
	flipAt(t, valuesPath(l.badger(), id), 12_000)
	l.committed = func() {
		unread := 0
		for _, b := range blocksOf(t, l, "bank") {
			if len(b.Data) == 0 {
				unread++
			}
		}
		if unread != 1 {
			t.Errorf("%d blocks cannot be read", unread)
		}
	}
	fillBank(t, l, 11, 11, 5000)
	closeLog(t, l)
}

// A write that was cut short, of which nobody was told, is gone as a whole, whether its pointers are there or not,
// and is not looked for again.
func TestATornWriteIsForgotten(t *testing.T) {
	t.Parallel()
	for _, pointers := range []bool{true, false} {
		dir := t.TempDir()
		l := openLog(t, dir, smallFiles)
		fillBank(t, l, 1, 3, 5000)
		before := image(t, dir)
		group := []journal.Block{testBlock("bank", 4, 9000), testBlock("bank", 5, 9000), testBlock("orders", 1, 9000)}
		if err := l.Append(t.Context(), group); err != nil {
			t.Fatal(err)
		}
		values := valuesPath(badgerDir, newestValues(t, l))
		died := die(t, l, dir)
		if !pointers {
			loseMems(died)
		}
		died[headsFile] = before[headsFile]
		died[values] = journaltest.File{
			Content: died[values].Content[:len(before[values].Content)+15_000], Size: died[values].Size,
		}
		write(t, died, dir)
		var version uint64
		for round := range 3 {
			l = openLog(t, dir, smallFiles)
			holds(t, l, 1, 3, 5000)
			if all := blocksOf(t, l, "orders"); len(all) > 0 {
				t.Errorf("orders has %d blocks", len(all))
			}
			if _, there, err := readRedo(l.badger()); there || err != nil {
				t.Errorf("there is still a note: %v", err)
			}
			if top := l.db.MaxVersion(); top != l.version || round > 0 && top != version {
				t.Errorf("opening %d: Badger is at version %d, the log at %d, and was at %d",
					round, top, l.version, version)
			}
			version = l.version
			closeLog(t, l)
		}
		l = openLog(t, dir, smallFiles)
		fillBank(t, l, 4, 4, 5000)
		died = die(t, l, dir)
		loseMems(died)
		write(t, died, dir)
		l = openLog(t, dir, smallFiles)
		holds(t, l, 1, 4, 5000)
		closeLog(t, l)
	}
}

// loseMems makes the logs of tables in memory as if nothing had come to the disk.
func loseMems(all journaltest.Files) {
	for name, f := range all {
		if filepath.Ext(name) == memSuffix {
			all[name] = journaltest.File{Size: f.Size}
		}
	}
}

// Without any of Badger's pointers everything is still there.
func TestPointersAreMadeAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	var want []journal.Block
	for n := range uint64(50) {
		want = append(want, testBlock("bank", n+1, 100+int(n)*20_000))
		if err := l.Append(t.Context(), want[n:]); err != nil {
			t.Fatal(err)
		}
	}
	died := die(t, l, dir)
	loseMems(died)
	write(t, died, dir)
	for range 2 {
		l = openLog(t, dir, Options{})
		if all := blocksOf(t, l, "bank"); !slices.EqualFunc(all, want, sameBlock) {
			t.Errorf("%d of %d blocks are there", len(all), len(want))
		}
		closeLog(t, l)
	}
}

// A large write of which the pointers were lost is whole again.
func TestALargeWriteIsRecovered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	var blocks []journal.Block
	for n := range uint64(40) {
		blocks = append(blocks, testBlock("bank", n+1, 200_000))
	}
	if err := l.Append(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
	died := die(t, l, dir)
	loseMems(died)
	write(t, died, dir)
	for _, o := range []Options{smallFiles, {}} {
		l = openLog(t, dir, o)
		holds(t, l, 1, 40, 200_000)
		closeLog(t, l)
	}
}

// A flipped bit in the pointers of a process that was killed costs nothing, however long ago they were written, also if
// what was deleted is collected then.
func TestAFlippedBitInPointers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	const n, size = 200, 100 << 10
	fillBank(t, l, 1, n, size)
	died := die(t, l, dir)
	flipped := 0
	for name, f := range died {
		if filepath.Ext(name) == memSuffix && len(f.Content) > 5000 {
			f.Content[5000] ^= 4
			flipped++
		}
	}
	if flipped != 1 {
		t.Fatalf("%d files have pointers", flipped)
	}
	delete(died, headsFile)
	write(t, died, dir)
	for range 2 {
		l = openLog(t, dir, smallFiles)
		holds(t, l, 1, n, size)
		if err := l.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		holds(t, l, 1, n, size)
		closeLog(t, l)
	}
}

// Of two tables in memory the log of the older one is damaged: what is missing has no greater version than Badger has.
func TestAFlippedBitInOlderPointers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	fillBank(t, l, 1, 50, 60_000)
	older := die(t, l, dir)
	l = openLog(t, dir, smallFiles)
	fillBank(t, l, 51, 100, 60_000)
	died := die(t, l, dir)
	for name, f := range older {
		if filepath.Ext(name) == memSuffix && len(f.Content) > 2000 {
			f.Content[2000] ^= 4
			died[name] = f
		}
	}
	for name := range died {
		if filepath.Ext(name) == ".sst" || filepath.Base(name) == badger.ManifestFilename { // not written yet
			delete(died, name)
		}
	}
	delete(died, headsFile)
	write(t, died, dir)
	l = openLog(t, dir, smallFiles)
	holds(t, l, 1, 100, 60_000)
	closeLog(t, l)
}

// A second loss of power, while what the first one took is written again, takes nothing of it.
func TestARecoveryThatIsCutShort(t *testing.T) {
	t.Parallel()
	const n, size = 10, 8000
	for name, again := range map[string]func(second journaltest.Files, values string){
		"pointers without values": func(second journaltest.Files, values string) {
			second[values] = journaltest.File{Size: second[values].Size}
		},
		"a part of the values": func(second journaltest.Files, values string) {
			loseMems(second)
			second[values] = journaltest.File{Content: second[values].Content[:5*pageBytes], Size: second[values].Size}
		},
		"nothing": func(second journaltest.Files, values string) {
			loseMems(second)
			second[values] = journaltest.File{Size: second[values].Size}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir, smallFiles)
			fillBank(t, l, 1, n, size)
			first := die(t, l, dir)
			loseMems(first)
			delete(first, headsFile)
			write(t, first, dir)
			var second journaltest.Files
			l = &Log{dir: dir, options: smallFiles, watch: &watch{}}
			l.committed = func() { second = image(t, dir) } // the last is the one of which the recovery ends
			if err := l.open(); err != nil {
				t.Fatal(err)
			}
			if second == nil {
				t.Fatal("nothing was written again")
			}
			values := valuesPath(badgerDir, newestValues(t, l))
			closeLog(t, l)
			again(second, values)
			delete(second, headsFile)
			write(t, second, dir)
			l = openLog(t, dir, smallFiles)
			holds(t, l, 1, n, size)
			closeLog(t, l)
		})
	}
}

// What was written after a retention has its pointers made again, and what that deleted stays away.
func TestARecoveryAfterARetention(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, dir, smallFiles)
	const size = 60_000
	fillBank(t, l, 1, 50, size)
	trim(t, l, "bank", 10)
	trimmed := image(t, dir)
	fillBank(t, l, 51, 200, size)
	died := die(t, l, dir)
	for name := range died {
		if filepath.Ext(name) == memSuffix {
			died[name] = trimmed[name]
		}
	}
	delete(died, headsFile)
	write(t, died, dir)
	for range 2 {
		l = openLog(t, dir, smallFiles)
		holds(t, l, 10, 200, size)
		if err := l.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		holds(t, l, 10, 200, size)
		closeLog(t, l)
	}
}

// The directory is synced when its files have changed, and not otherwise.
func TestTheDirectoryIsSynced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	syncs := 0
	d := directory{path: dir, sync: func(string) error { syncs++; return nil }}
	settle := func() (synced bool) {
		t.Helper()
		before := syncs
		said, err := d.settle()
		if err != nil || said != (syncs > before) {
			t.Fatalf("it says %v, %v", said, err)
		}
		return said
	}
	if !settle() {
		t.Error("the first call does not sync it")
	}
	for settle() { // until the last change is long enough ago
	}
	if settle() {
		t.Error("it is synced although nothing has changed")
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !settle() {
		t.Error("a new file is not noticed")
	}
	// A second one within one tick of the clock.
	d.looked = d.changed.Add(timesApart / 2)
	err := errors.Join(os.WriteFile(filepath.Join(dir, "b"), nil, 0o600), os.Chtimes(dir, d.changed, d.changed))
	if err != nil {
		t.Fatal(err)
	}
	if !settle() {
		t.Error("a second one is not noticed")
	}
	broken := errors.New("broken")
	d.sync = func(string) error { return broken }
	if err := os.Remove(filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := d.settle(); !errors.Is(err, broken) {
			t.Errorf("a failed sync: %v", err)
		}
	}
}

// flipAt flips a bit of a file; a negative place counts from its end.
func flipAt(t *testing.T, path string, at int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += len(content)
	}
	content[at] ^= 4
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
