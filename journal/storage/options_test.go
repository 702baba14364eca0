package storage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/pebbleindex"
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
	t.Parallel()
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
	t.Parallel()
	ctx := context.Background()
	e, err := Open(t.TempDir(), smallFiles)
	if err != nil {
		t.Fatal(err)
	}
	j, err := commitlog.Open(ctx, e, commitlog.Options{})
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

// A kill between the making of a file and its first byte leaves Badger with files that it
// refuses to open.
func TestFilesThatWereNeverWritten(t *testing.T) {
	t.Parallel()
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

// The storage counts what it writes, and what it has on disk.
func TestCount(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	for i := range 2 {
		e, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		j, err := commitlog.Open(ctx, e, commitlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c := journaltest.Commit("bank", "k", journal.Version(i), fmt.Sprint("c", i), 1)
		c.Events[0].Data = journaltest.Noise(10_000, 0)
		if _, err := journaltest.Append(j, c); err != nil {
			t.Fatal(err)
		}
		// The index is on disk once there was a Close.
		if s := j.Stats(); s.Storage.Written < 10_000 || s.WriteAmplification() < 1 || s.WriteAmplification() > 20 ||
			s.Storage.LogBytes < 10_000 ||
			i == 1 && (s.Storage.LogBytes < 20_000 || s.Storage.IndexBytes == 0) {
			t.Errorf("opened for the %d. time: %+v", i+1, s)
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// Blocks of the index stay in memory once they were looked into, and are counted. Less memory than it needs it does not
// have.
func TestIndexCache(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	for i, bytes := range []int64{0, 0, 1} { // the first fills it
		e := openStorage(t, dir, Options{IndexCacheBytes: bytes})
		j, err := commitlog.Open(ctx, e, commitlog.Options{})
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
		s := j.Stats().Storage
		if i == 1 && (s.IndexCacheHits < 4 || s.IndexCacheMisses < 1 || s.IndexCacheBytes < 100) || i == 2 &&
			(s.IndexCacheHits < 4 || s.IndexCacheBytes > pebbleindex.MinMemory) {
			t.Errorf("with %d: %+v", bytes, s)
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
