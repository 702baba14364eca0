package badgerengine

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

func TestBadgerEngine(t *testing.T) {
	journaltest.Run(t, func(t *testing.T) journaltest.Reopener {
		dir := t.TempDir()
		return func(t testing.TB) journal.Engine {
			e, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
	})
}

func BenchmarkBadger(b *testing.B) {
	journaltest.Bench(b, func(b *testing.B) journal.Engine {
		e, err := Open(b.TempDir(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		return e
	})
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
