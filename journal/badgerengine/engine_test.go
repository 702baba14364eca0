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
