package hostile

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// held is the maximum that clients make a host hold, in bytes.
type held struct {
	all, connection int64 // as the host counts it
	limit           int64
	resident        int64 // growth of the process's memory, garbage included
	alone, beside   *times
}

// holdingAttacks are the clients that make the host hold many bytes.
func holdingAttacks() (all []attack) {
	for _, a := range clientAttacks() {
		if strings.HasPrefix(a.name, "unread") || a.name == "half-messages" || a.name == "pages" {
			all = append(all, a)
		}
	}
	return all
}

// hold runs an attack, and measures during it how much the host holds.
func hold(t testing.TB, a attack, during time.Duration) (h held) {
	t.Helper()
	c := startHost(t, hosttest.ChildOptions{})
	defer c.Stop(t)
	if a.setUp != nil {
		a.setUp(t, c)
	}
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	h.alone = measure(t.Context(), c, during/4)
	before := resident(c)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := launch(ctx, c, make(chan struct{}), a.name); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() {
		for ctx.Err() == nil {
			h.resident = max(h.resident, resident(c)-before)
			usage, err := cl.Resources(ctx)
			if err == nil && len(usage) > 0 {
				h.all, h.limit = max(h.all, usage[0].Used), usage[0].Limit
				for _, who := range usage[0].Holders {
					if strings.HasPrefix(who.Name, "connection ") {
						h.connection = max(h.connection, who.Used)
					}
				}
			}
			pause(ctx, 5*time.Millisecond)
		}
	})
	h.beside = measure(ctx, c, during)
	cancel()
	running.Wait()
	if h.beside.errors > 0 {
		t.Errorf("%s: %d of the neighbour's commands failed: %v", a.name, h.beside.errors, h.beside.failed)
	}
	return h
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func (h held) String() string {
	return fmt.Sprintf("%.1f of %.0f MiB in flight, %.1f by one connection; resident memory +%.0f MiB; neighbour "+
		"alone %v; beside %v",
		mib(h.all), mib(h.limit), mib(h.connection), mib(h.resident), h.alone, h.beside)
}

// Clients that do not read, or do not finish what they send, make the host hold no more than its
// budget, and a single client no more than its share. All commands of the neighbour succeed
// meanwhile.
func TestBytesInFlight(t *testing.T) {
	prove.SkipShort(t, "it runs the program")
	raced.Skip(t, "it runs other processes only")
	const connection = 8 << 20
	for _, a := range holdingAttacks() {
		if *only != "" && a.name != *only {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			h := hold(t, a, 2*time.Second)
			t.Log(h)
			if h.limit == 0 || h.all > h.limit || h.connection > connection {
				t.Errorf("the host held %v", h)
			}
			if strings.HasPrefix(a.name, "unread") && h.all == 0 {
				t.Error("nothing was held, so this is no attack")
			}
		})
	}
}

// BenchmarkBytesInFlight measures what such clients make a host hold, and what the
// neighbour feels of it.
func BenchmarkBytesInFlight(b *testing.B) {
	for _, a := range holdingAttacks() {
		if *only != "" && a.name != *only {
			continue
		}
		b.Run(a.name, func(b *testing.B) {
			var worst held
			for b.Loop() {
				h := hold(b, a, 8*time.Second)
				if worst.beside == nil || h.beside.quantile(.99) > worst.beside.quantile(.99) {
					worst.alone, worst.beside = h.alone, h.beside
				}
				worst.all, worst.connection, worst.resident = max(worst.all, h.all),
					max(worst.connection, h.connection), max(worst.resident, h.resident)
			}
			b.ReportMetric(mib(worst.all), "MiB-all")
			b.ReportMetric(mib(worst.connection), "MiB-connection")
			b.ReportMetric(mib(worst.resident), "MiB-resident")
			b.ReportMetric(ms(worst.alone.quantile(.5)), "ms-p50-alone")
			b.ReportMetric(ms(worst.alone.quantile(.99)), "ms-p99-alone")
			b.ReportMetric(ms(worst.beside.quantile(.5)), "ms-p50-beside")
			b.ReportMetric(ms(worst.beside.quantile(.99)), "ms-p99-beside")
		})
	}
}
