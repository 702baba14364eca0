package storage

import (
	"os"
	"runtime"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

func TestStorage(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(t *testing.T) journaltest.Reopener {
		dir := t.TempDir()
		return func(t testing.TB) journal.Storage { return openStorage(t, dir, smallFiles) }
	})
}

func BenchmarkHydration(b *testing.B) {
	journaltest.BenchHydration(b, func(b *testing.B) func(b *testing.B) journal.Storage {
		dir := b.TempDir()
		return func(b *testing.B) journal.Storage { return openStorage(b, dir, Options{}) }
	})
}

// Whatever the mode of a directory that was copied here is, only its owner can enter it once it is open.
func TestOnlyTheOwnerEntersTheJournal(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing there")
	}
	dir := t.TempDir()
	for _, mode := range []os.FileMode{0o755, 0o770, 0o700} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		e, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("opened with mode %o it has %o, %v", mode, info.Mode().Perm(), err)
		}
	}
}
