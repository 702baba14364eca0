package badgerengine

import (
	"context"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Updates of all sizes, by transaction and by load, replace what earlier ones wrote,
// in one process and after it.
func TestUpdatesReplaceEachOther(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	want := map[string]string{}
	for round, n := range []int{10, loadFrom - 1, loadFrom, 3 * loadFrom, 50_000, 1} {
		e, err := Open(dir, Options{MemTableBytes: 8 << 20})
		if err != nil {
			t.Fatal(err)
		}
		for again := range 2 {
			var pairs []journal.Pair
			for i := range n + n/10 { // a tenth of the keys twice: the later one counts
				k, v := fmt.Sprint("e", i%n), fmt.Sprint(round, again, i)
				want[k] = v
				pairs = append(pairs, journal.Pair{Key: []byte(k), Value: []byte(v)})
			}
			if err := e.Index().Update(ctx, pairs); err != nil {
				t.Fatal(err)
			}
			seen := 0
			err := e.Index().Scan(ctx, []byte("e"), []byte("e"), func(k, v []byte) error {
				if seen++; want[string(k)] != string(v) {
					return fmt.Errorf("%s is %s, not %s", k, v, want[string(k)])
				}
				return nil
			})
			if err != nil || seen != len(want) {
				t.Errorf("round %d, %d pairs: %d entries of %d, %v", round, n, seen, len(want), err)
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
