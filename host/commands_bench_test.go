package host_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// BenchmarkCommands is what a whole host does in process, on the disk of the temporary
// directory, for the smallest guest there is: first as fast as it can with 4,096
// commands in flight, then at 80% of that, where latency counts from when a command
// was due.
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
	_, err := h.Deploy(b.Context(), host.Deployment{Service: "tally", Module: testguest.Counter("tally"), Settings: service.Settings{Shards: 64}})
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
	send(len(benchKeys)) // each entity is resident
	before := h.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	send(b.N)
	b.StopTimer()
	after := h.Stats()
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "commands/s")
	b.ReportMetric(float64(after.Commits-before.Commits)/float64(max(1, after.Syncs-before.Syncs)), "commands/sync")
	b.ReportMetric(benchLatency(b, h, next, 0.8*rate, max(1000, b.N/2)).Seconds()*1000, "p99-ms@80%")
}

// benchLatency sends at a rate, whatever becomes of the commands, and returns the
// 99th percentile of the time from when one was due to its answer.
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
			}
			all.Done()
		})
		if err != nil {
			refused.Add(1)
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
