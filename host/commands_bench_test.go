package host_test

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// BenchmarkCommands measures a whole host in process, on the disk of the temporary directory, for the
// smallest guest there is: first at full speed with 4,096 commands in flight, then at 48,000 per second and
// at 80% of the measured rate. There latency counts from when a command was due. The journal merges its
// tables only after some millions of commands: use -benchtime 1000000x.
func BenchmarkCommands(b *testing.B) {
	for _, c := range []struct {
		name string
		ids  bool // chosen by the clients, so that each is looked up first
	}{{"host-ids", false}, {"client-ids", true}} {
		b.Run(c.name, func(b *testing.B) { benchCommands(b, c.ids) })
	}
}

var benchKeys = func() (keys [10_000]service.Key) {
	for i := range keys {
		keys[i] = service.Key(fmt.Sprint("entity-", i))
	}
	return keys
}()

func benchCommands(b *testing.B, ids bool) {
	h := hosttest.New(b)
	_, err := h.Deploy(b.Context(), service.Deployment{Service: "tally", Module: testguest.Counter("tally"),
		Settings: service.Settings{Shards: 64}})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	next := func() service.Command {
		c := add(benchKeys[n*7919%len(benchKeys)])
		if ids {
			c.ID = service.CommandID(fmt.Sprint("command-", n))
		}
		n++
		return c
	}
	free := make(chan struct{}, 4096)
	send := func(count int) {
		for range count {
			free <- struct{}{}
			err := h.SendAsync(next(), func(_ service.Reply, err error) {
				if err != nil {
					b.Error(err)
				}
				<-free
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		for range cap(free) { // until all have their answers
			free <- struct{}{}
		}
		for range cap(free) {
			<-free
		}
	}
	send(len(benchKeys)) // makes each entity resident
	before := h.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	send(b.N)
	b.StopTimer()
	after := h.Stats()
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "commands/s")
	b.ReportMetric(float64(after.Commits-before.Commits)/float64(max(1, after.Syncs-before.Syncs)), "commands/sync")
	const goal = 60_000 // commands per second; 80% of it is a load for long times
	b.ReportMetric(benchLatency(b, h, next, 0.8*goal, max(1000, 2*b.N)).Seconds()*1000, "p99-ms@48000/s")
	b.ReportMetric(benchLatency(b, h, next, 0.8*rate, max(1000, b.N/2)).Seconds()*1000, "p99-ms@80%")
}

// benchLatency sends at a fixed rate, whatever the outcomes. It returns the 99th percentile of the time from
// when a command was due to its answer.
func benchLatency(b *testing.B, h *hosttest.Host, next func() service.Command, rate float64, n int) time.Duration {
	took := make([]time.Duration, n)
	var refused atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for i := range n {
		due := start.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		if wait := time.Until(due); wait > time.Millisecond {
			time.Sleep(wait)
		}
		all.Add(1)
		err := h.SendAsync(next(), func(_ service.Reply, err error) {
			took[i] = time.Since(due)
			if err != nil {
				refused.Add(1)
				took[i] = math.MaxInt64 // no answer counts as slow
			}
			all.Done()
		})
		if err != nil {
			refused.Add(1)
			took[i] = math.MaxInt64
			all.Done()
		}
	}
	all.Wait()
	if refused.Load() > 0 {
		b.Logf("%d of %d commands were refused", refused.Load(), n)
	}
	slices.Sort(took)
	return took[n*99/100]
}

// BenchmarkGroupCommit measures the effect of group commit with 256 clients in process, each of which waits
// for its answer before it sends again: the rate as a multiple of that with one sync per command, for the
// smallest guest there is. The effect is larger on a slower disk; ms/sync is the time of one command alone.
func BenchmarkGroupCommit(b *testing.B) {
	const clients = 256
	rate := func(o commitlog.Options) (perSecond, perSync, milliseconds float64) {
		h := hosttest.New(b, func(all *host.Options) { all.Journal = o })
		if _, err := h.Deploy(b.Context(), service.Deployment{Service: "tally", Module: testguest.Counter("tally"),
			Settings: service.Settings{Shards: 8}}); err != nil {
			b.Fatal(err)
		}
		run := func(d time.Duration) (sent int64) {
			var done atomic.Int64
			var all sync.WaitGroup
			end := time.Now().Add(d)
			for c := range clients {
				all.Go(func() {
					for n := 0; time.Now().Before(end); n++ {
						if _, err := h.Send(b.Context(), add(benchKeys[(c+n*clients)%1024])); err != nil {
							b.Error(err)
							return
						}
						done.Add(1)
					}
				})
			}
			all.Wait()
			return done.Load()
		}
		run(time.Second / 2) // makes each entity resident
		before, began := h.Stats(), time.Now()
		n := run(3 * time.Second)
		took, after := time.Since(began), h.Stats()
		return float64(n) / took.Seconds(), float64(after.Commits-before.Commits) / float64(after.Syncs-before.Syncs),
			(after.SyncTime - before.SyncTime).Seconds() * 1000 / float64(after.Syncs-before.Syncs)
	}
	for b.Loop() {
		with, together, _ := rate(commitlog.Options{})
		without, _, alone := rate(commitlog.Options{MaxGroupCommits: 1})
		b.ReportMetric(with, "commands/s")
		b.ReportMetric(together, "commands/sync")
		b.ReportMetric(without, "alone-commands/s")
		b.ReportMetric(alone, "alone-ms/sync")
		b.ReportMetric(with/without, "ratio")
	}
}
