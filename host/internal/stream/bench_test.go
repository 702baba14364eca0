package stream

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// receipts makes receipts of n commits with one event each, and their commits.
func receipts(b *testing.B, n int) (*bench, []journal.Receipt, []*journal.Commit) {
	x := newBench(b, Options{})
	x.deaf = true
	var rs []journal.Receipt
	var cs []*journal.Commit
	for range n {
		e := event("up", `{"amount":100,"reference":"b1946ac92492d2347c6235b4d2611184"}`)
		rs = append(rs, x.commit("alice", e))
		cs = append(cs, &journal.Commit{Log: "bank", Events: []journal.NewEvent{e},
			Command: journal.Command{ID: "c", Type: "do", Key: "alice"}})
	}
	return x, rs, cs
}

// fanOut publishes commits to n cursors, which all follow at the head and encode
// what they get. It reports the time an event and the time an event and cursor.
func fanOut(b *testing.B, n int) {
	const round = 2000
	x, rs, cs := receipts(b, round)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		x.hub = New(Options{Service: "bank", Reader: fallenBehind{x.journal}})
		var readers sync.WaitGroup
		var bytes atomic.Int64
		for range n {
			c, err := x.hub.Subscribe(0, Filter{}, "")
			if err != nil {
				b.Fatal(err)
			}
			readers.Go(func() {
				size := 0
				for c.Position() < round {
					events, err := c.Next(context.Background(), 0)
					if err != nil {
						b.Error(err)
						return
					}
					for _, e := range events {
						size += len(e.Text(service.CloudEvent))
					}
				}
				bytes.Add(int64(size))
			})
		}
		for i := range rs {
			x.hub.Publish(rs[i], cs[i])
		}
		readers.Wait()
	}
	events := float64(b.N) * round
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/events, "ns/event")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/events/float64(n), "ns/event/cursor")
}

// fallenBehind is a journal that claims to be empty, so that readers of its log are behind the ring.
type fallenBehind struct{ *commitlog.Journal }

func (fallenBehind) Head(journal.LogName) journal.Position { return 0 }

func BenchmarkFanOut1(b *testing.B)    { fanOut(b, 1) }
func BenchmarkFanOut100(b *testing.B)  { fanOut(b, 100) }
func BenchmarkFanOut1000(b *testing.B) { fanOut(b, 1000) }

// BenchmarkPublishAlone measures a commit with a hub that has no subscribers.
func BenchmarkPublishAlone(b *testing.B) {
	x, rs, cs := receipts(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		hub := New(Options{Service: "bank", Reader: fallenBehind{x.journal}})
		for i := range rs {
			hub.Publish(rs[i], cs[i])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
}

// BenchmarkCatchUp reads a whole log from the journal.
func BenchmarkCatchUp(b *testing.B) {
	x, _, _ := receipts(b, 5000)
	b.ReportAllocs()
	for b.Loop() {
		x.open(Options{}) // with nothing in memory
		c := x.subscribe(0, Filter{})
		for c.Position() < 5000 {
			if _, err := c.Next(context.Background(), 0); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/5000, "ns/event")
}
