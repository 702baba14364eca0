package journaltest

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Bench measures a journal on engines that open makes, each empty.
func Bench(b *testing.B, open func(b *testing.B) journal.Engine) {
	b.Run("append/256-appenders", func(b *testing.B) { benchAppend(b, open(b), journal.Options{}, 256) })
	b.Run("append/256-appenders/sync-each", func(b *testing.B) {
		benchAppend(b, open(b), journal.Options{MaxGroupCommits: 1}, 256)
	})
	b.Run("append/1-appender", func(b *testing.B) { benchAppend(b, open(b), journal.Options{}, 1) })
	b.Run("append/pipelined", func(b *testing.B) { benchPipelined(b, open(b)) })
	b.Run("hydrate-20-events", func(b *testing.B) { benchHydrate(b, open(b)) })
	b.Run("scan", func(b *testing.B) { benchScan(b, open(b)) })
}

func benchOpen(b *testing.B, e journal.Engine, o journal.Options) *journal.Journal {
	b.Helper()
	j, err := journal.Open(context.Background(), e, o)
	must(b, err)
	b.Cleanup(func() { must(b, j.Close(context.Background())) })
	return j
}

// sized makes a commit of one event, about 200 bytes of it data, by a host's own id.
func sized(key string, at journal.Version, id string) *journal.Commit {
	c := Commit("bank", key, at, id, 1)
	c.Events[0].Data = make([]byte, 200)
	c.GeneratedID = true
	return c
}

// benchAppend has each appender wait for its receipt before it goes on, as a
// client does.
func benchAppend(b *testing.B, e journal.Engine, o journal.Options, appenders int) {
	j := benchOpen(b, e, o)
	ctx := context.Background()
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for w := range appenders {
		all.Go(func() {
			key := fmt.Sprint("key", w)
			done := make(chan error, 1)
			told := func(_ journal.Receipt, err error) { done <- err }
			for i := 0; left.Add(-1) >= 0; i++ {
				err := j.Append(ctx, sized(key, journal.Version(i), fmt.Sprint(w, "-", i)), told)
				if err == nil {
					err = <-done
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	report(b, j)
}

// benchPipelined appends without waiting, as shards do, which run ahead of the disk.
func benchPipelined(b *testing.B, e journal.Engine) {
	j := benchOpen(b, e, journal.Options{})
	ctx := context.Background()
	var waiting sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		waiting.Add(1)
		c := sized(fmt.Sprint("key", i%1000), journal.Version(i/1000), fmt.Sprint(i))
		err := j.Append(ctx, c, func(_ journal.Receipt, err error) {
			if err != nil {
				b.Error(err)
			}
			waiting.Done()
		})
		must(b, err)
	}
	waiting.Wait()
	b.StopTimer()
	report(b, j)
}

func report(b *testing.B, j *journal.Journal) {
	s := j.Stats()
	b.ReportMetric(float64(s.Commits)/b.Elapsed().Seconds(), "commits/s")
	b.ReportMetric(float64(s.Commits)/float64(max(s.Syncs, 1)), "commits/sync")
}

const benchEntities, benchVersions = 1000, 20

func benchFilled(b *testing.B, e journal.Engine) *journal.Journal {
	b.Helper()
	j := benchOpen(b, e, journal.Options{})
	var waiting sync.WaitGroup
	for v := range benchVersions {
		for k := range benchEntities {
			waiting.Add(1)
			err := j.Append(context.Background(), sized(fmt.Sprint("key", k), journal.Version(v), fmt.Sprint(k, "-", v)),
				func(_ journal.Receipt, err error) { waiting.Done() })
			must(b, err)
		}
	}
	waiting.Wait()
	for j.Stats().Pending > 0 { // until the index is complete
		runtime.Gosched()
	}
	return j
}

func benchHydrate(b *testing.B, e journal.Engine) {
	j := benchFilled(b, e)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		events := 0
		_, err := j.Load(context.Background(), "bank", fmt.Sprint("key", i*7%benchEntities), 0, func(*journal.Event) error { events++; return nil })
		must(b, err)
		if events != benchVersions {
			b.Fatalf("%d events", events)
		}
	}
}

func benchScan(b *testing.B, e journal.Engine) {
	j := benchFilled(b, e)
	head := j.Head("bank")
	b.ReportAllocs()
	b.ResetTimer()
	events := 0
	for range b.N {
		must(b, j.Read(context.Background(), "bank", 0, 0, func(*journal.Event) error { events++; return nil }))
	}
	b.StopTimer()
	if events != b.N*int(head) {
		b.Fatalf("%d events of %d", events, b.N*int(head))
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
