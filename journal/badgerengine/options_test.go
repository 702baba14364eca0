package badgerengine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// children are what a test binary does instead of tests if it is started with a
// directory in one of these variables. They end the process.
var children = map[string]func(dir string){victimDir: beVictim, damageDir: beDamaged, retainDir: beRetainer}

func TestMain(m *testing.M) {
	for name, be := range children {
		if dir := os.Getenv(name); dir != "" {
			be(dir)
		}
	}
	if dir := os.Getenv(growthDir); dir != "" {
		grow(dir)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

func TestASecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); journal.KindOf(err) != journal.KindLocked {
		t.Errorf("opening it twice: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// Commits of any size, and many of them in one group, fit into Badger's transactions.
func TestBigCommits(t *testing.T) {
	for name, o := range bothLayouts {
		t.Run(name, func(t *testing.T) { testBigCommits(t, o) })
	}
}

func testBigCommits(t *testing.T, o Options) {
	ctx := context.Background()
	e, err := Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(ctx, e, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sizes := []int{300 << 10, 900 << 10, 1100 << 10, 5 << 20, 20 << 20}
	for range 10 {
		sizes = append(sizes, 500<<10, 60<<10, 1<<20)
	}
	done := make(chan error, len(sizes))
	for i, size := range sizes {
		c := journaltest.Commit("bank", fmt.Sprint("k", i), 0, fmt.Sprint("c", i), 1)
		c.Events[0].Data = journaltest.Noise(size, uint64(i))
		if err := j.Append(ctx, c, func(_ journal.Receipt, err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range sizes {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for i, size := range sizes {
		v, err := j.Load(ctx, "bank", fmt.Sprint("k", i), 0, func(e *journal.Event) error {
			if len(e.Data) != size {
				t.Errorf("entity %d has an event of %d bytes, not %d", i, len(e.Data), size)
			}
			return nil
		})
		if v != 1 || err != nil {
			t.Errorf("entity %d: version %d, %v", i, v, err)
		}
	}
	i := 0
	err = j.Read(ctx, "bank", 0, 0, func(e *journal.Event) error {
		if len(e.Data) != sizes[i] {
			t.Errorf("event %d has %d bytes, not %d", i, len(e.Data), sizes[i])
		}
		i++
		return nil
	})
	if err != nil || i != len(sizes) {
		t.Errorf("%d of %d events, %v", i, len(sizes), err)
	}
	if err := j.Close(ctx); err != nil {
		t.Error(err)
	}
}

// A group that is too big for one of Badger's transactions is still all or nothing.
func TestAGroupBeyondATransaction(t *testing.T) {
	for name, o := range bothLayouts {
		t.Run(name, func(t *testing.T) { testAGroupBeyondATransaction(t, o) })
	}
}

func testAGroupBeyondATransaction(t *testing.T, o Options) {
	ctx := context.Background()
	e, err := Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var blocks []journal.Block
	for i := range 100 {
		blocks = append(blocks, journal.Block{Log: "bank", First: journal.Position(i + 1), Sequence: uint64(i + 1), Data: bytes.Repeat([]byte{byte(i)}, 64<<10)})
	}
	if err := e.Log().Append(ctx, blocks); err != nil {
		t.Fatal(err)
	}
	i := 0
	err = e.Log().Blocks(ctx, "bank", 0, func(b journal.Block) error {
		if !bytes.Equal(b.Data, blocks[i].Data) || b.Sequence != blocks[i].Sequence {
			t.Errorf("block %d is not what was written", i)
		}
		i++
		return nil
	})
	if err != nil || i != len(blocks) {
		t.Errorf("%d of %d blocks, %v", i, len(blocks), err)
	}
	if last, ok, err := e.Log().Last(ctx, "bank"); !ok || err != nil || !bytes.Equal(last.Data, blocks[99].Data) {
		t.Errorf("the last block: %v, %v", ok, err)
	}
}

// A part that is missing is damage, not a shorter value.
func TestAMissingPartIsFound(t *testing.T) {
	ctx := context.Background()
	e, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	b := journal.Block{Log: "bank", First: 1, Sequence: 1, Data: make([]byte, 3*maxInline)}
	if err := e.Log().Append(ctx, []journal.Block{b}); err != nil {
		t.Fatal(err)
	}
	err = remove(e.log, [][]byte{partKey(blockKey(logPrefix("bank"), 1, 1), 1)})
	if err != nil {
		t.Fatal(err)
	}
	err = e.Log().Blocks(ctx, "bank", 0, func(journal.Block) error { return nil })
	if journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("a block that lacks a part: %v", err)
	}
}

// A kill between the making of a file and its first byte leaves Badger with files that it
// refuses to open.
func TestFilesThatWereNeverWritten(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		e, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"log/00042.mem", "log/000042.vlog"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
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

// The engine counts what it writes, and what it has on disk.
func TestCount(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	for i := range 2 {
		e, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(ctx, e, journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c := journaltest.Commit("bank", "k", journal.Version(i), fmt.Sprint("c", i), 1)
		c.Events[0].Data = journaltest.Noise(10_000, 0)
		if _, err := journaltest.Append(j, c); err != nil {
			t.Fatal(err)
		}
		// The index is on disk once there was a Close.
		if s := j.Stats(); s.Engine.Written < 10_000 || s.WriteAmplification() < 1 || s.WriteAmplification() > 20 || s.Engine.LogBytes < 10_000 ||
			i == 1 && (s.Engine.LogBytes < 20_000 || s.Engine.IndexBytes == 0) {
			t.Errorf("opened for the %d. time: %+v", i+1, s)
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// Blocks of the index stay in memory once they were looked into, unless they may not, and are counted.
func TestIndexCache(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	for i, bytes := range []int64{0, 0, -1} { // the first fills it
		e := openEngine(t, dir, Options{IndexCacheBytes: bytes})
		j, err := journal.Open(ctx, e, journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", 0, "c", 3)); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			if v, err := j.Load(ctx, "bank", "k", 0, func(*journal.Event) error { return nil }); err != nil || v != 3 {
				t.Fatal(v, err)
			}
		}
		s := j.Stats().Engine
		if i == 1 && (s.IndexCacheHits < 4 || s.IndexCacheMisses < 1 || s.IndexCacheBytes < 100) || i == 2 && s.IndexCacheHits+s.IndexCacheMisses+uint64(s.IndexCacheBytes) > 0 {
			t.Errorf("with %d: %+v", bytes, s)
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
