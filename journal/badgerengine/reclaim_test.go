package badgerengine

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Who began to read before blocks were removed reads none of them wrong; holes are made behind that.
func TestHolesWaitForReaders(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, smallFiles)
	const n = 100
	fillBank(t, e, 1, n, 60_000)
	before := sizeOf(t, dir)
	read := 0
	compacted := make(chan error, 1)
	err := e.Log().Blocks(t.Context(), "bank", 0, func(b journal.Block) error {
		if read++; read == 1 {
			for more := true; more; {
				var err error
				if more, err = e.Log().Trim(t.Context(), "bank", n); err != nil {
					return err
				}
			}
			short, cancel := context.WithCancel(t.Context())
			cancel()
			if err := e.Compact(short); !errors.Is(err, context.Canceled) {
				t.Errorf("holes while somebody reads: %v", err)
			}
			go func() { compacted <- e.Compact(t.Context()) }()
		}
		if !sameBlock(b, testBlock("bank", b.Sequence, 60_000)) {
			t.Errorf("block %d is another", b.Sequence)
		}
		return nil
	})
	if err != nil || read < 2 {
		t.Errorf("%d of %d blocks, %v", read, n, err)
	}
	if err := <-compacted; err != nil {
		t.Error(err)
	}
	if after := sizeOf(t, dir); after > before/2 {
		t.Errorf("%d bytes, %d before", after, before)
	}
	for range 3 {
		if all := blocksOf(t, e, "bank"); len(all) != 1 || !sameBlock(all[0], testBlock("bank", n, 60_000)) {
			t.Errorf("%d blocks are left", len(all))
		}
		closeEngine(t, e)
		e = openEngine(t, dir, smallFiles)
	}
	closeEngine(t, e)
}

// Holes are where nothing is needed, whatever is removed of what, and files of holes alone go away.
func TestHoles(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 6))
	dir := t.TempDir()
	e := openEngine(t, dir, smallFiles)
	left := map[journal.LogName][]journal.Block{}
	next := map[journal.LogName]uint64{}
	logs := []journal.LogName{"bank", "orders", "tally", "x"}
	for round := range 6 {
		for range 80 {
			log := logs[rng.IntN(len(logs))]
			next[log]++
			b := testBlock(log, next[log], []int{50, 300, 5000, 60_000, 2 * maxInline}[min(rng.IntN(20), rng.IntN(5))])
			left[log] = append(left[log], b)
			if err := e.Log().Append(t.Context(), []journal.Block{b}); err != nil {
				t.Fatal(err)
			}
		}
		log := logs[rng.IntN(3)] // of x nothing is ever removed
		if all := left[log]; len(all) > 1 {
			keep := rng.IntN(len(all) - 1)
			trim(t, e, log, all[keep].Sequence)
			left[log] = all[keep:]
		}
		if err := e.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		if round%3 == 2 {
			closeEngine(t, e)
			e = openEngine(t, dir, smallFiles)
		}
		for _, log := range logs {
			if all := blocksOf(t, e, log); !slices.EqualFunc(all, left[log], sameBlock) {
				t.Fatalf("round %d: %s has %d of %d blocks", round, log, len(all), len(left[log]))
			}
		}
	}
	var needed int64
	for _, log := range logs {
		if err := e.Log().Append(t.Context(), []journal.Block{testBlock(log, next[log]+1, 50)}); err != nil {
			t.Fatal(err)
		}
		trim(t, e, log, next[log]+1)
		needed += 50
	}
	for range 2 { // the first makes holes, also of the file that is the last one now
		closeEngine(t, e)
		e = openEngine(t, dir, smallFiles)
		if err := e.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	closeEngine(t, e)
	e = openEngine(t, dir, smallFiles)
	files, err := listValues(filepath.Join(dir, "log"))
	var disk int64
	for _, f := range files {
		disk += f.disk
	}
	if err != nil || disk > 200_000 || len(files) > 8 {
		t.Errorf("%d bytes are needed, and %d files take %d, %v", needed, len(files), disk, err)
	}
	closeEngine(t, e)
}

// No hole is made of what a damaged table pointed to.
func TestNoHolesWhileATableStandsAside(t *testing.T) {
	dir := t.TempDir()
	for round := range uint64(2) {
		e := openEngine(t, dir, smallFiles)
		fillBank(t, e, round*100+1, round*100+100, 100<<10)
		closeEngine(t, e)
	}
	flipFromEnd(t, filepath.Join(dir, "log", "000001.sst"), 20)
	e := openEngine(t, dir, smallFiles)
	if len(e.Doubts()) != 1 {
		t.Errorf("doubts: %v", e.Doubts())
	}
	before := sizeOf(t, dir)
	if err := e.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := sizeOf(t, dir); after < before {
		t.Errorf("%d bytes of %d are left", after, before)
	}
	closeEngine(t, e)
}

// What was removed stays so when everything is looked into, and in the other layout.
func TestRemovedBlocksDoNotComeBack(t *testing.T) {
	for _, o := range []Options{smallFiles, {valuesInTables: true}} {
		dir := t.TempDir()
		e := openEngine(t, dir, smallFiles)
		fillBank(t, e, 1, 300, 10<<10)
		trim(t, e, "bank", 100)
		if err := e.log.Flatten(1); err != nil {
			t.Fatal(err)
		}
		closeEngine(t, e)
		e = openEngine(t, dir, smallFiles)
		if err := e.log.Flatten(1); err != nil { // and now of the removal, too
			t.Fatal(err)
		}
		closeEngine(t, e)
		if err := os.WriteFile(filepath.Join(dir, "log", markFile), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			e = openEngine(t, dir, o)
			holds(t, e, 100, 300, 10<<10)
			closeEngine(t, e)
		}
	}
}

// Files into which pointers may be missing have no holes made in them.
func TestNoHolesBeforeARecovery(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, smallFiles)
	e.log.settled = false // as behind a damaged block of a table
	const size = 60_000
	fillBank(t, e, 1, 50, size)
	trim(t, e, "bank", 10)
	trimmed := image(t, dir)
	fillBank(t, e, 51, 200, size)
	if err := e.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	died := die(t, e, dir)
	for name := range died {
		if filepath.Ext(name) == memSuffix {
			died[name] = trimmed[name]
		}
	}
	delete(died, headsFile)
	if err := died.write(dir); err != nil {
		t.Fatal(err)
	}
	e = openEngine(t, dir, smallFiles)
	holds(t, e, 10, 200, size)
	closeEngine(t, e)
}

// With all pointers lost, what is between holes is found.
func TestValuesBetweenHoles(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, smallFiles)
	const n = 150
	for i := range uint64(n) {
		if err := e.Log().Append(t.Context(), []journal.Block{testBlock("bank", i+1, 20_000), testBlock("orders", i+1, 20_000)}); err != nil {
			t.Fatal(err)
		}
	}
	trim(t, e, "bank", 100)
	before := sizeOf(t, dir)
	if err := e.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := sizeOf(t, dir); after > before*3/4 {
		t.Errorf("%d bytes, %d before", after, before)
	}
	closeEngine(t, e)
	flipFromEnd(t, filepath.Join(dir, "log", "000001.sst"), 20)
	e = openEngine(t, dir, smallFiles)
	all := blocksOf(t, e, "orders")
	for i, b := range all {
		if !sameBlock(b, testBlock("orders", uint64(i+1), 20_000)) {
			t.Fatalf("the %d. block is %d", i+1, b.Sequence)
		}
	}
	if len(all) != n {
		t.Errorf("%d blocks are left of %d", len(all), n)
	}
	closeEngine(t, e)
}

// flipFromEnd flips a bit so many bytes before the end of a file.
func flipFromEnd(t *testing.T, path string, back int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-back] ^= 4
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
