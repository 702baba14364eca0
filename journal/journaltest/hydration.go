package journaltest

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

var (
	benchCold   = flag.Int("bench.cold", 20_000, "entities of 20 events each that BenchHydration reads from")
	benchOpened = flag.Int("bench.opened", 1_000_000, "entities of the journal that BenchHydration opens")
)

// BenchHydration measures the journal's part in bringing entities back, none of which has
// been touched since the journal was opened, and the opening itself.
func BenchHydration(b *testing.B, reopen func(b *testing.B) func(b *testing.B) journal.Storage) {
	b.Run("cold", func(b *testing.B) {
		open := reopen(b)
		fill(b, open(b), *benchCold, 20, false)
		b.Run("20-events", func(b *testing.B) { benchCold20(b, open, false) })
		fill(b, open(b), *benchCold, 0, true)
		b.Run("snapshot", func(b *testing.B) { benchCold20(b, open, true) })
		fill(b, open(b), *benchCold, 2, false)
		b.Run("snapshot+2-events", func(b *testing.B) { benchCold20(b, open, true) })
	})
	b.Run(fmt.Sprint("open-", *benchOpened, "-entities"), func(b *testing.B) {
		open := reopen(b)
		fill(b, open(b), *benchOpened, 1, false)
		b.ResetTimer()
		for range b.N {
			j, err := commitlog.Open(context.Background(), open(b), commitlog.Options{})
			must(b, err)
			b.StopTimer()
			if head := j.Head("bank"); head != journal.Position(*benchOpened) {
				b.Fatalf("the head is %d", head)
			}
			must(b, j.Close(context.Background()))
			b.StartTimer()
		}
	})
}

func coldKey(i int) string { return fmt.Sprintf("account-%07d", i) }

// fill adds so many events to each entity, or a snapshot of it, and closes the journal.
func fill(b *testing.B, e journal.Storage, entities int, events int, snapshot bool) {
	b.Helper()
	ctx := context.Background()
	j, err := commitlog.Open(ctx, e, commitlog.Options{})
	must(b, err)
	before, err := j.Load(ctx, "bank", coldKey(0), 0, func(*journal.Event) error { return nil })
	must(b, err)
	var waiting sync.WaitGroup
	for v := range events {
		for i := range entities {
			waiting.Add(1)
			at := before + journal.Version(v)
			c := sized(coldKey(i), at, fmt.Sprint(i, "-", at), 1)
			must(b, j.Append(ctx, c, func(_ journal.Receipt, err error) {
				if err != nil {
					b.Error(err)
				}
				waiting.Done()
			}))
		}
	}
	waiting.Wait()
	for i := 0; snapshot && i < entities; {
		s := journal.Snapshot{Version: before, Schema: 1, State: make([]byte, 200)}
		if j.PutSnapshot(ctx, "bank", coldKey(i), s) {
			i++
		}
	}
	must(b, j.Close(ctx))
}

// benchCold20 loads entities in random order, as a host does.
func benchCold20(b *testing.B, open func(b *testing.B) journal.Storage, snapshot bool) {
	ctx := context.Background()
	j, err := commitlog.Open(ctx, open(b), commitlog.Options{})
	must(b, err)
	defer func() { must(b, j.Close(ctx)) }()
	order := rand.New(rand.NewPCG(1, 2)).Perm(*benchCold)
	b.ReportAllocs()
	b.ResetTimer()
	cpu := CPUTime()
	for i := range b.N {
		key := coldKey(order[i%len(order)])
		var from journal.Version
		if snapshot {
			s, ok, err := j.Snapshot(ctx, "bank", key)
			must(b, err)
			if !ok || s.Version != 20 {
				b.Fatalf("%s has a snapshot: %v, of version %d", key, ok, s.Version)
			}
			from = s.Version
		}
		events := 0
		v, err := j.Load(ctx, "bank", key, from, func(*journal.Event) error { events++; return nil })
		must(b, err)
		if v < 20 || events != int(v-from) {
			b.Fatalf("%s is at %d with %d events after %d", key, v, events, from)
		}
	}
	b.ReportMetric(float64(CPUTime()-cpu)/float64(b.N), "cpu-ns/op")
}
