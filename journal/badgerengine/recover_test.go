package badgerengine

import (
	"errors"
	"flag"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

var (
	cutRounds = flag.Int("cut.rounds", 3, "how many lives TestPowerCuts gives a journal")
	cutSeed   = flag.Uint64("cut.seed", 0, "repeat TestPowerCuts from this seed; 0 takes a new one")
)

// A loss of power leaves of each file any mixture of what was synced last and what was written later, page by page.
// What was acknowledged is there all the same, what was removed is not, and a group that was being written is
// there or not, as a whole.
func TestPowerCuts(t *testing.T) {
	seed := *cutSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-cut.seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	logs := []journal.LogName{"bank", "orders", "tally"}
	said := map[journal.LogName][]journal.Block{} // acknowledged, and not removed
	next := map[journal.LogName]uint64{"bank": 1, "orders": 1, "tally": 1}
	dir := t.TempDir()
	recovered, cut := 0, 0
	o := smallFiles
	o.pointersTable = 32 << 10 // so that several are needed
	for round := range *cutRounds {
		e := openEngine(t, dir, o)
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
		synced := image(t, dir)
		for range 30 + rng.IntN(200) {
			blocks := group()
			file := e.log.values.id
			if err := e.Log().Append(t.Context(), blocks); err != nil {
				t.Fatal(err)
			}
			if e.log.values.id != file {
				synced = image(t, dir)
			}
			for _, b := range blocks {
				said[b.Log] = append(said[b.Log], b)
				next[b.Log]++
			}
			if rng.IntN(60) == 0 {
				log := logs[rng.IntN(len(logs))]
				if all := said[log]; len(all) > 4 {
					keep := len(all)/2 + rng.IntN(len(all)/2)
					trim(t, e, log, all[keep].Sequence)
					said[log] = all[keep:]
					synced = image(t, dir)
					if rng.IntN(2) == 0 {
						if err := e.Compact(t.Context()); err != nil {
							t.Fatal(err)
						}
						synced = image(t, dir)
					}
				}
			}
		}
		acknowledged := image(t, dir)
		last, file := group(), e.log.values.id
		if err := e.Log().Append(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		after := image(t, dir)
		if e.log.values.id != file { // it was the last of a file
			synced, acknowledged = after, after
		}
		closeEngine(t, e)
		for _, name := range slices.Sorted(maps.Keys(after)) {
			now, base := after[name], acknowledged[name]
			switch {
			case filepath.Ext(name) == memSuffix:
				base = synced[name] // of pointers nothing was synced since; or more was, by chance
			case filepath.Base(name) == headsFile:
				base, now = fileContent{}, acknowledged[name] // it is written behind the sync
			case filepath.Ext(name) != valuesSuffix:
				continue // Badger and the index sync theirs
			}
			after[name] = mixPages(base, now, rng)
		}
		if err := after.write(dir); err != nil {
			t.Fatal(err)
		}

		e = openEngine(t, dir, o)
		there := map[journal.LogName]int{}
		for _, log := range logs {
			all := blocksOf(t, e, log)
			want := said[log]
			if len(all) < len(want) {
				t.Fatalf("round %d: %s has %d of %d blocks", round, log, len(all), len(want))
			}
			for i, b := range all {
				switch {
				case i < len(want):
					if !sameBlock(b, want[i]) {
						t.Fatalf("round %d: %s has block %d in the place of %d", round, log, b.Sequence, want[i].Sequence)
					}
				case !slices.ContainsFunc(last, func(l journal.Block) bool { return sameBlock(l, b) }):
					t.Fatalf("round %d: %s has block %d, which nobody wrote", round, log, b.Sequence)
				default:
					there[""]++
				}
			}
			said[log] = all
			next[log] = all[len(all)-1].Sequence + 1
		}
		switch there[""] {
		case 0:
			cut++
		case len(last):
			recovered++
		default:
			t.Fatalf("round %d: %d of the %d blocks of the last group are there", round, there[""], len(last))
		}
		if rng.IntN(2) == 0 { // or it dies again right away
			closeEngine(t, e)
			continue
		}
		died := die(t, e, dir)
		if err := died.write(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the last group was whole %d times and gone %d times", recovered, cut)
}

// mixPages takes each page from one of two states of a file.
func mixPages(was, is fileContent, rng *rand.Rand) fileContent {
	mixed := make([]byte, max(len(was.content), len(is.content)))
	copy(mixed, was.content)
	share := rng.IntN(5) // of four, that reached the disk
	for at := 0; at < len(is.content); at += pageBytes {
		if rng.IntN(4) < share {
			end := min(at+pageBytes, len(is.content))
			copy(mixed[at:end], is.content[at:end])
		}
	}
	return fileContent{mixed, is.size}
}

// Without any of Badger's pointers everything is still there.
func TestPointersAreMadeAgain(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, Options{})
	var want []journal.Block
	for n := range uint64(50) {
		want = append(want, testBlock("bank", n+1, 100+int(n)*20_000))
		if err := e.Log().Append(t.Context(), want[n:]); err != nil {
			t.Fatal(err)
		}
	}
	died := die(t, e, dir)
	died.loseMems()
	if err := died.write(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		e = openEngine(t, dir, Options{})
		if all := blocksOf(t, e, "bank"); !slices.EqualFunc(all, want, sameBlock) {
			t.Errorf("%d of %d blocks are there", len(all), len(want))
		}
		closeEngine(t, e)
	}
}

// When a sync fails nothing is written any more, and the next opening writes again what the kernel may have given up,
// as it is not what the disk has.
func TestAFailedSync(t *testing.T) {
	dir := t.TempDir()
	broken := errors.New("broken")
	for n := 1; n <= 4; n++ {
		e := openEngine(t, dir, smallFiles)
		before := len(blocksOf(t, e, "bank"))
		calls := 0
		e.log.values.syncFile = func(f *os.File) error {
			if calls++; calls == n {
				return broken
			}
			return syncData(f)
		}
		id := e.log.values.id
		for i := 1; i < n; i++ {
			if err := e.Log().Append(t.Context(), []journal.Block{testBlock("bank", uint64(before+i), 5000)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Log().Append(t.Context(), []journal.Block{testBlock("bank", uint64(before+n), 5000)}); !errors.Is(err, broken) {
			t.Errorf("the sync failed, and the append says %v", err)
		}
		if err := e.Log().Append(t.Context(), []journal.Block{testBlock("bank", uint64(before+n+1), 5000)}); !errors.Is(err, broken) {
			t.Errorf("an append behind it: %v", err)
		}
		closeEngine(t, e)
		e = openEngine(t, dir, smallFiles)
		all := blocksOf(t, e, "bank")
		if len(all) != before+n {
			t.Errorf("%d blocks, not %d", len(all), before+n)
		}
		for i, b := range all {
			if !sameBlock(b, testBlock("bank", uint64(i+1), 5000)) {
				t.Errorf("block %d is another", i+1)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "log", unsyncedFile)); err == nil {
			t.Error("the sign of a failed sync is still there")
		}
		closeEngine(t, e)
		// Without the file of which a sync failed, nothing of it is missing.
		if err := os.Rename(valuesPath(filepath.Join(dir, "log"), id), filepath.Join(t.TempDir(), "away")); err != nil {
			t.Fatal(err)
		}
		e = openEngine(t, dir, smallFiles)
		if again := blocksOf(t, e, "bank"); !slices.EqualFunc(again, all, sameBlock) {
			t.Error("something was not written again")
		}
		closeEngine(t, e)
	}
}

// loseMems makes the files of tables in memory as if nothing had come to the disk.
func (all files) loseMems() {
	for name, f := range all {
		if filepath.Ext(name) == memSuffix {
			all[name] = fileContent{nil, f.size}
		}
	}
}

// A journal whose process was killed with large tables in memory is opened with small ones.
func TestALargeTableInMemory(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, Options{valuesInTables: true})
	fillBank(t, e, 1, 150, 100<<10)
	died := die(t, e, dir)
	if err := died.write(dir); err != nil {
		t.Fatal(err)
	}
	e = openEngine(t, dir, Options{})
	holds(t, e, 1, 150, 100<<10)
	closeEngine(t, e)
}

// A flipped bit in the pointers of a process that was killed costs nothing, however long ago they were written, and
// makes no holes.
func TestAFlippedBitInPointers(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, smallFiles)
	const n, size = 200, 100 << 10
	fillBank(t, e, 1, n, size)
	died := die(t, e, dir)
	for name, f := range died {
		if filepath.Ext(name) == memSuffix && len(f.content) > 5000 {
			f.content[5000] ^= 4
		}
	}
	if err := died.write(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		e = openEngine(t, dir, smallFiles)
		holds(t, e, 1, n, size)
		if err := e.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		holds(t, e, 1, n, size)
		closeEngine(t, e)
	}
}

// A second loss of power, while what the first one took is written again, takes nothing of it.
func TestARecoveryThatIsCutShort(t *testing.T) {
	const n, size = 10, 8000
	for name, again := range map[string]func(second files, values string){
		"pointers without values": func(second files, values string) { second[values] = fileContent{nil, second[values].size} },
		"a part of the values": func(second files, values string) {
			second.loseMems()
			second[values] = fileContent{second[values].content[:5*pageBytes], second[values].size}
		},
		"nothing": func(second files, values string) {
			second.loseMems()
			second[values] = fileContent{nil, second[values].size}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			e := openEngine(t, dir, smallFiles)
			fillBank(t, e, 1, n, size)
			first := die(t, e, dir)
			first.loseMems()
			delete(first, headsFile)
			if err := first.write(dir); err != nil {
				t.Fatal(err)
			}
			e = openEngine(t, dir, smallFiles)
			second, values := image(t, dir), valuesPath("log", e.log.values.id)
			closeEngine(t, e)
			again(second, values)
			delete(second, headsFile)
			mark := filepath.Join("log", markFile)
			second[mark] = first[mark]
			if err := second.write(dir); err != nil {
				t.Fatal(err)
			}
			e = openEngine(t, dir, smallFiles)
			holds(t, e, 1, n, size)
			closeEngine(t, e)
		})
	}
}

// A write that was cut short is not looked for again and again.
func TestATornWriteIsForgotten(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, smallFiles)
	fillBank(t, e, 1, 3, 5000)
	before := image(t, dir)
	if err := e.Log().Append(t.Context(), []journal.Block{testBlock("bank", 4, 9000), testBlock("bank", 5, 9000), testBlock("orders", 1, 9000)}); err != nil {
		t.Fatal(err)
	}
	died, values := image(t, dir), valuesPath("log", e.log.values.id)
	closeEngine(t, e)
	died.loseMems()
	died[headsFile] = before[headsFile]
	died[values] = fileContent{died[values].content[:len(before[values].content)+15_000], died[values].size}
	if err := died.write(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		e = openEngine(t, dir, smallFiles)
		holds(t, e, 1, 3, 5000)
		if m, ok, err := readMark(filepath.Join(dir, "log")); !ok || err != nil || m.Version > e.log.MaxVersion() || m.File != e.log.values.id {
			t.Errorf("the mark is %v, %v, %v; Badger is at %d", m, ok, err, e.log.MaxVersion())
		}
		closeEngine(t, e)
	}
}
