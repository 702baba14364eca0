package hosttest_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// hostile are services that take what they can get. Each gets one kind of command, by many senders, as fast
// as it answers.
var hostile = map[service.Name]service.Type{
	"spinner": "spin", // uses all its fuel, each time
	"looper":  "spin",
	"hoarder": "grow", // takes all memory, and traps
	"flooder": "nop",  // short calls without a pause
}

// raid makes the hostile services run at full speed until ctx ends, and returns a function that waits for
// them.
func raid(ctx context.Context, t testing.TB, h *hosttest.Host) (wait func()) {
	var senders sync.WaitGroup
	for name, typ := range hostile {
		h.MustDeploy(name, testguest.Counter(string(name)))
		for n := range 4 {
			senders.Go(func() {
				for ctx.Err() == nil {
					_, _ = h.Send(ctx, service.Command{Service: name, Key: service.Key(fmt.Sprint("key", n)),
						Type: typ})
				}
			})
		}
	}
	return senders.Wait
}

// A service among hostile ones loses nothing: its commands are carried out in order, and none is refused.
func TestNeighboursLoseNothing(t *testing.T) {
	h := hosttest.New(t)
	h.MustDeploy("victim", testguest.Counter("victim"))
	ctx, cancel := context.WithCancel(t.Context())
	wait := raid(ctx, t, h)
	var clients sync.WaitGroup
	for n := range 4 {
		clients.Go(func() {
			for k := range 100 {
				r, err := h.Send(t.Context(), service.Command{Service: "victim", Key: service.Key(fmt.Sprint("key", n)),
					Type: "add"})
				if err != nil || r.Version != service.Version(k+1) || string(r.Data) != fmt.Sprint(k+1) || r.Fuel == 0 {
					t.Errorf("command %d of client %d: %+v, %v", k, n, r, err)
					return
				}
			}
		})
	}
	clients.Wait()
	cancel()
	wait()
	// The command of a sender that gave up may still be in progress; it is counted when it has ended.
	patience, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for name := range hostile {
		for {
			st, err := h.Status(name)
			c := st.Counters
			if err == nil && c.Fuel > 0 && (name == "flooder" || c.Failed > 0) {
				break
			}
			if err != nil || patience.Err() != nil {
				t.Errorf("%s was not at it: %+v, %v", name, c, err)
				break
			}
			runtime.Gosched()
		}
	}
	if st, err := h.Status("victim"); err != nil || st.Counters.Committed != 400 || st.Counters.Failed != 0 {
		t.Errorf("%+v, %v", st.Counters, err)
	}
}

// BenchmarkNeighbours compares the times of a service's commands alone on the host and among four hostile
// services at full speed.
func BenchmarkNeighbours(b *testing.B) {
	const commands = 4000
	for b.Loop() {
		var p50, p99 [2]time.Duration
		for k, among := range []bool{false, true} {
			h := hosttest.New(b, func(o *host.Options) {})
			h.MustDeploy("victim", testguest.Counter("victim"))
			ctx, cancel := context.WithCancel(b.Context())
			wait := func() {}
			if among {
				wait = raid(ctx, b, h)
			}
			times := make([]time.Duration, 0, commands)
			for n := range commands {
				start := time.Now()
				h.MustSend(service.Command{Service: "victim", Key: service.Key(fmt.Sprint("key", n%100)), Type: "add"})
				times = append(times, time.Since(start))
			}
			cancel()
			wait()
			h.Stop()
			slices.Sort(times)
			p50[k], p99[k] = times[commands/2], times[commands*99/100]
		}
		b.ReportMetric(float64(p50[0].Microseconds()), "us-p50-alone")
		b.ReportMetric(float64(p50[1].Microseconds()), "us-p50-among")
		b.ReportMetric(float64(p99[0].Microseconds()), "us-p99-alone")
		b.ReportMetric(float64(p99[1].Microseconds()), "us-p99-among")
		b.ReportMetric(float64(p99[1])/float64(p99[0]), "x-p99")
	}
}
