package pebbleindex

import (
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A store never has more in memory than MemoryOf says: neither while it is written, read and compacted, nor once it was
// cleared, so that it has two databases for a while.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	o := Options{MemoryBytes: MinMemory, Abandoned: func() { t.Error("a store was abandoned") }}
	s := openTest(t, t.TempDir(), o)
	bound := MemoryOf(o)
	if bound != MinMemory || MemoryOf(Options{}) != DefaultMemory || MemoryOf(Options{MemoryBytes: 1}) != MinMemory {
		t.Errorf("it may have %d bytes", bound)
	}
	all := map[*instance]bool{} // that may be open
	maxSize := int64(0)
	look := func() {
		t.Helper()
		all[s.now] = true
		size := s.cache.Metrics().Size // of the blocks of all databases
		for in := range all {
			select {
			case <-in.closed:
				delete(all, in)
			default:
				m := in.db.Metrics()
				size += int64(m.MemTable.Size + m.MemTable.ZombieSize)
			}
		}
		// The cache rounds for each of its parts, and is read after its blocks have changed.
		if maxSize = max(maxSize, size); size > bound+bound/100 {
			t.Fatalf("%d databases have %d bytes in memory, of %d", len(all), size, bound)
		}
	}
	value := make([]byte, 1000)
	for generation := range 3 {
		for i := range 200 {
			pairs := make([]journal.Pair, 100)
			for k := range pairs {
				pairs[k] = journal.Pair{Key: fmt.Appendf(nil, "k%06d", i*len(pairs)+k), Value: value}
			}
			if err := s.Update(ctx, pairs); err != nil {
				t.Fatal(err)
			}
			look()
		}
		n := 0
		err := s.Scan(ctx, []byte("k"), nil, func(_, _ []byte) error {
			if n++; n%1000 == 0 {
				look()
			}
			return nil
		})
		if n != 20_000 || err != nil {
			t.Fatalf("generation %d: %d entries, %v", generation, n, err)
		}
		if err := s.Clear(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if maxSize < bound/2 {
		t.Errorf("it had no more than %d bytes in memory of %d, so the test tells nothing", maxSize, bound)
	}
	closeTest(t, s)
}
