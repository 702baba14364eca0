package hosttest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// filler is a service that fills the disk: every command causes an event of almost the maximum size.
const filler service.Name = "filler"

// fill makes six senders fill the disk until ctx ends. It returns a function that waits for them, and their
// refusals.
func fill(ctx context.Context, h *hosttest.Host) (wait func(), refused func(service.Kind, string) int64) {
	var senders sync.WaitGroup
	var mu sync.Mutex
	kinds := map[string]int64{}
	for n := range 6 {
		senders.Go(func() {
			for ctx.Err() == nil {
				_, err := h.Send(ctx, service.Command{Service: filler, Key: service.Key(fmt.Sprint("key", n)),
					Type: "c"})
				var e *service.Error
				if errors.As(err, &e) {
					mu.Lock()
					kinds[e.Kind.String()+" "+e.Resource]++
					mu.Unlock()
				}
			}
		})
	}
	return senders.Wait, func(kind service.Kind, resource string) int64 {
		mu.Lock()
		defer mu.Unlock()
		return kinds[kind.String()+" "+resource]
	}
}

// neighbour sends commands to a service, one after the other, and returns how long each took.
func neighbour(t testing.TB, h *hosttest.Host, until func(sent int) bool) []time.Duration {
	t.Helper()
	var times []time.Duration
	for n := 0; !until(n); n++ {
		start := time.Now()
		h.MustSend(service.Command{Service: "victim", Key: service.Key(fmt.Sprint("key", n%100)), Type: "add"})
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times
}

// A service that writes as fast as it can is limited to its rate and then to its quota, by name. Its
// neighbour loses nothing.
func TestAServiceThatFillsTheDisk(t *testing.T) {
	const quota = 12 << 20
	h := hosttest.New(t, func(o *host.Options) { o.Journal.Codec = journal.CodecNone })
	h.MustDeploy("victim", testguest.Counter("victim"))
	d := service.Deployment{Service: filler, Module: testguest.BigEvent(string(filler)),
		Limits: service.Limits{DiskBytes: quota, DiskRate: 8 << 20}} // it has to wait, but not for long
	if _, err := h.Deploy(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	wait, refused := fill(ctx, h)
	patience, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	times := neighbour(t, h, func(sent int) bool {
		return patience.Err() != nil || sent > 100 && refused(service.KindQuota, "disk_bytes") > 0
	})
	cancel()
	wait()
	if rate, full := refused(service.KindOverloaded, "disk_bytes_per_second"),
		refused(service.KindQuota, "disk_bytes"); rate == 0 || full == 0 {
		t.Errorf("it was refused %d times for its rate and %d times for its quota", rate, full)
	}
	st, err := h.Status(filler)
	if bound := int64(quota + 2*5<<20); err != nil || st.LogBytes < quota || st.LogBytes > bound { // one per shard
		t.Errorf("it has written %d bytes, %v", st.LogBytes, err)
	}
	if st, err := h.Status("victim"); err != nil || int(st.Counters.Committed) != len(times) ||
		st.Counters.Failed != 0 {
		t.Errorf("its neighbour: %+v, %v", st.Counters, err)
	}
}

// BenchmarkDiskFill compares the times of a service's commands alone on the host and beside one that fills
// the disk with its default limits.
func BenchmarkDiskFill(b *testing.B) {
	const alone, beside = 2 * time.Second, 6 * time.Second
	for b.Loop() {
		h := hosttest.New(b, func(o *host.Options) { o.Journal.Codec = journal.CodecNone })
		h.MustDeploy("victim", testguest.Counter("victim"))
		h.MustDeploy(filler, testguest.BigEvent(string(filler)))
		during := func(d time.Duration) []time.Duration {
			end := time.Now().Add(d)
			return neighbour(b, h, func(int) bool { return time.Now().After(end) })
		}
		before := during(alone)
		ctx, cancel := context.WithCancel(b.Context())
		wait, _ := fill(ctx, h)
		among := during(beside)
		st, err := h.Status(filler)
		if err != nil {
			b.Fatal(err)
		}
		cancel()
		wait()
		h.Stop()
		quantile := func(of []time.Duration, percent int) float64 {
			return float64(of[len(of)*percent/100].Microseconds())
		}
		b.ReportMetric(quantile(before, 50), "us-p50-alone")
		b.ReportMetric(quantile(among, 50), "us-p50-beside")
		b.ReportMetric(quantile(before, 99), "us-p99-alone")
		b.ReportMetric(quantile(among, 99), "us-p99-beside")
		b.ReportMetric(float64(among[len(among)-1].Microseconds()), "us-max-beside")
		b.ReportMetric(float64(st.LogBytes)/beside.Seconds()/(1<<20), "MiB/s-written")
	}
}
