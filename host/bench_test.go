package host_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// BenchmarkHydration measures a query for the balance of an account with 20 events that was not used since
// the host was opened: engine, journal on disk, and the bank as a module in Go. "resident" is the query
// without the hydration. The fuel is the guest's part in instructions, which is the same on any machine.
func BenchmarkHydration(b *testing.B) {
	const accounts, events = 4000, 20
	h := hosttest.New(b)
	module := hosttest.Guest(b, "bank")
	deploy := func(b *testing.B, residents, every int) {
		b.Helper()
		_, err := h.Deploy(context.Background(), service.Deployment{Service: "bank", Module: module,
			Limits:   service.Limits{ResidentEntities: residents, MailboxCommands: 1 << 16},
			Settings: service.Settings{Shards: 1, SnapshotEvery: every}})
		if err != nil {
			b.Fatal(err)
		}
	}
	key := func(i int) service.Key { return service.Key(fmt.Sprintf("account-%07d", i)) }
	deploy(b, accounts, -1)
	var all sync.WaitGroup
	for i := range accounts * events {
		c := service.Command{Service: "bank", Key: key(i % accounts), Type: "deposit", Data: []byte(`{"amount":1}`)}
		if i < accounts {
			c.Type, c.Data = "open", []byte(`{"owner":"somebody"}`)
		}
		all.Add(1)
		err := h.SendAsync(c, func(_ service.Reply, err error) {
			if err != nil {
				b.Error(err)
			}
			all.Done()
		})
		if err != nil {
			b.Fatal(err)
		}
		if i%accounts == accounts-1 {
			all.Wait()
		}
	}
	order := rand.New(rand.NewPCG(1, 2)).Perm(accounts)
	ask := func(b *testing.B, i int) {
		q, err := h.Query(context.Background(), service.Query{Service: "bank", Key: key(i), Type: "balance"})
		if err != nil || q.Version != events {
			b.Fatalf("%s is at %d, %v", key(i), q.Version, err)
		}
	}
	fuel := func(b *testing.B) uint64 {
		st, err := h.Status("bank")
		if err != nil {
			b.Fatal(err)
		}
		return st.Counters.Fuel
	}
	for _, c := range []struct {
		name      string
		every     int
		snapshots bool
	}{{"20-events", -1, false}, {"snapshot", -1, true}} {
		if c.snapshots {
			deploy(b, 1, events)
			for i := range accounts {
				ask(b, i) // makes the entity resident
			}
		}
		deploy(b, 1, c.every)
		b.Run(c.name, func(b *testing.B) {
			var cpu time.Duration
			var burnt uint64
			for left := b.N; left > 0; left -= accounts {
				b.StopTimer()
				h.Restart()
				began, before := journaltest.CPUTime(), fuel(b)
				b.StartTimer()
				for _, i := range order[:min(left, accounts)] {
					ask(b, i)
				}
				b.StopTimer()
				cpu += journaltest.CPUTime() - began
				burnt += fuel(b) - before
			}
			b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(burnt)/float64(b.N), "fuel/op")
			if st, err := h.Status("bank"); err != nil || st.Counters.SnapshotsUsed > 0 != c.snapshots {
				b.Errorf("counters %+v, %v", st.Counters, err)
			}
		})
	}
	b.Run("resident", func(b *testing.B) {
		cpu, before := journaltest.CPUTime(), fuel(b)
		for range b.N {
			ask(b, 0)
		}
		b.ReportMetric(float64(journaltest.CPUTime()-cpu)/float64(b.N), "cpu-ns/op")
		b.ReportMetric(float64(fuel(b)-before)/float64(b.N), "fuel/op")
	})
}
