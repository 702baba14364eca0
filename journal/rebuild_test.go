package journal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// indexDump is every byte of an index but snapshots, and counts of bytes, which may be missing.
func indexDump(t *testing.T, e journal.Engine) string {
	t.Helper()
	var out strings.Builder
	err := e.Index().Scan(t.Context(), nil, nil, func(k, v []byte) error {
		if k[0] != 's' && k[0] != 'b' {
			fmt.Fprintf(&out, "%x %x\n", k, v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// What Rebuild makes of the log is byte by byte what was written behind it,
// whatever was done and wherever the machine stopped in between.
func TestRebuildIsByteEqual(t *testing.T) {
	ctx := context.Background()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	m := journaltest.NewMemory()
	versions := map[string]journal.Version{}
	n := 0
	for range 6 {
		j, err := journal.Open(ctx, m, journal.Options{MaxBatchBytes: 100 + rng.IntN(2000), MaxGroupCommits: 1 + rng.IntN(5)})
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			log, key := journal.LogName(fmt.Sprint("log", rng.IntN(2))), fmt.Sprint("k", rng.IntN(7))
			id := string(log) + key
			// What is handed in at once shares groups, and batches.
			var written sync.WaitGroup
			for range 1 + rng.IntN(12) {
				c := journaltest.Commit(log, key, versions[id], fmt.Sprint("c", n), rng.IntN(4))
				written.Add(1)
				err := j.Append(ctx, c, func(_ journal.Receipt, err error) {
					if err != nil {
						t.Error(err)
					}
					written.Done()
				})
				if err != nil {
					t.Fatal(err)
				}
				versions[id] += journal.Version(len(c.Events))
				n++
			}
			written.Wait()
			if rng.IntN(5) == 0 && versions[id] > 0 {
				j.PutSnapshot(ctx, log, key, journal.Snapshot{Version: versions[id], State: []byte("state")})
			}
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
		was := indexDump(t, m.CrashClone(0))
		again := m.CrashClone(0)
		if err := journal.Rebuild(ctx, again, nil); err != nil {
			t.Fatal(err)
		}
		if got := indexDump(t, again); got != was {
			t.Fatalf("seed %d: the index was\n%s\nrebuilt it is\n%s", seed, was, got)
		}
		m = m.CrashClone(rng.IntN(10)) // the next Open completes it
	}
}
