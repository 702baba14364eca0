package badgerengine

import (
	"os"
	"runtime"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

func TestBadgerEngine(t *testing.T) {
	for name, o := range bothLayouts {
		t.Run(name, func(t *testing.T) {
			journaltest.Run(t, func(t *testing.T) journaltest.Reopener {
				dir := t.TempDir()
				return func(t testing.TB) journal.Engine {
					e, err := Open(dir, o)
					if err != nil {
						t.Fatal(err)
					}
					return e
				}
			})
		})
	}
}

func BenchmarkBadger(b *testing.B) {
	journaltest.Bench(b, func(b *testing.B) journal.Engine {
		e, err := Open(b.TempDir(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		return e
	}, rawBadger)
}

// rawBadger is Badger with its own defaults and synced writes, a transaction a call.
func rawBadger(b *testing.B) func([]journal.Block) error {
	db, err := badger.Open(badger.DefaultOptions(b.TempDir()).WithSyncWrites(true).WithLogger(nil))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return func(blocks []journal.Block) error {
		return db.Update(func(txn *badger.Txn) error {
			for i := range blocks {
				if err := txn.Set(blockKey(logPrefix(blocks[i].Log), blocks[i].First, blocks[i].Sequence), blocks[i].Data); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func BenchmarkHydration(b *testing.B) {
	journaltest.BenchHydration(b, func(b *testing.B) func(b *testing.B) journal.Engine {
		dir := b.TempDir()
		return func(b *testing.B) journal.Engine {
			e, err := Open(dir, Options{})
			if err != nil {
				b.Fatal(err)
			}
			return e
		}
	})
}

// Whatever the mode of a directory that was copied here is, only its owner can enter it once it is open.
func TestOnlyTheOwnerEntersTheJournal(t *testing.T) {
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
