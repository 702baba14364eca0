package badgerlog_test

import (
	"fmt"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// BenchmarkBadger measures the journal as it is used, with its index.
func BenchmarkBadger(b *testing.B) {
	journaltest.Bench(b, func(b *testing.B) journal.Storage {
		e, err := storage.Open(b.TempDir(), storage.Options{})
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
			for _, b := range blocks {
				key := fmt.Appendf(nil, "b%s%016x%016x", b.Log, b.First, b.Sequence)
				if err := txn.Set(key, b.Data); err != nil {
					return err
				}
			}
			return nil
		})
	}
}
