package commitlog_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// indexDump is every byte of an index but snapshots, and counts of bytes, which may be missing.
func indexDump(t *testing.T, s journal.Storage) string {
	t.Helper()
	var out strings.Builder
	err := s.Index.Scan(t.Context(), nil, nil, func(k, v []byte) error {
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
	type entity struct {
		log journal.LogName
		key string
	}
	m := journaltest.NewMemory()
	versions := map[entity]journal.Version{}
	var cuts atomic.Int64
	n := 0
	for range 6 {
		o := commitlog.Options{MaxBatchBytes: 100 + rng.IntN(2000), MaxGroupCommits: 1 + rng.IntN(20)}
		j, err := commitlog.Open(ctx, m.Storage(), o)
		if err != nil {
			t.Fatal(err)
		}
		var retained sync.WaitGroup
		for range 25 {
			if rng.IntN(10) == 0 {
				// What a retention writes stands in a group with what is handed in meanwhile.
				for e, v := range versions {
					if v > 0 {
						j.PutSnapshot(ctx, e.log, e.key, journal.Snapshot{Version: v, State: []byte("state")})
					}
				}
				log := journal.LogName(fmt.Sprint("log", rng.IntN(3)))
				if head := j.Head(log); head > 1 {
					retained.Go(func() {
						_, err := j.Retain(ctx, log, journal.Retention{Before: head / 2, Force: true})
						if err == nil {
							cuts.Add(1)
						} else if journal.KindOf(err) != journal.KindInvalid {
							t.Error(err)
						}
					})
				}
			}
			// What is handed in at once shares groups, and batches. Some of it is long.
			var written sync.WaitGroup
			for range 1 + rng.IntN(12) {
				e := entity{journal.LogName(fmt.Sprint("log", rng.IntN(3))), fmt.Sprint("k", rng.IntN(7))}
				c := journaltest.Mixed(journaltest.Commit(e.log, e.key, versions[e], fmt.Sprint("c", n), rng.IntN(4)))
				if len(c.Events) > 0 && rng.IntN(20) == 0 {
					c.Events[0].Data = bytes.Repeat([]byte{byte(n)}, rng.IntN(3*yield.Step))
				}
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
				versions[e] += journal.Version(len(c.Events))
				n++
			}
			written.Wait()
		}
		retained.Wait()
		for i := range 3 {
			journaltest.CheckTypes(t, j, journal.LogName(fmt.Sprint("log", i)))
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
		was := indexDump(t, m.CrashClone(0).Storage())
		again := m.CrashClone(0)
		if err := commitlog.Rebuild(ctx, again.Storage(), nil); err != nil {
			t.Fatal(err)
		}
		if got := indexDump(t, again.Storage()); got != was {
			a, b := strings.Split(was, "\n"), strings.Split(got, "\n")
			a, b = slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) }),
				slices.DeleteFunc(slices.Clone(b), func(s string) bool { return slices.Contains(a, s) })
			t.Fatalf("seed %d: the index had\n%.4000s\nrebuilt it has\n%.4000s", seed, strings.Join(a, "\n"),
				strings.Join(b, "\n"))
		}
		m = m.CrashClone(rng.IntN(10)) // the next Open completes it
	}
	if cuts.Load() == 0 {
		t.Errorf("seed %d: no retention came through", seed)
	}
}
