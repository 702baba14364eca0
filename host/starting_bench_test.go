package host_test

import (
	"context"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// BenchmarkRestartBesideSlowStarts measures the time from a restart until the host is open, and until a
// well-behaved service answers, beside eight services whose sandboxes each take about eight seconds to start.
func BenchmarkRestartBesideSlowStarts(b *testing.B) {
	const slow, want = 8, 8 * time.Second
	h := hosttest.New(b)
	d := service.Deployment{Limits: service.Limits{Fuel: 1 << 50, CallTime: time.Hour}}
	deploy := func(name string, millions int32) time.Duration {
		d.Service, d.Module = service.Name(name), slowStart(name, millions)
		began := time.Now()
		if _, err := h.Deploy(b.Context(), d); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	const sample = 500
	millions := int32(float64(sample) * float64(want) / float64(deploy("sample", sample)))
	if err := h.Delete(b.Context(), "sample"); err != nil {
		b.Fatal(err)
	}
	for i := range slow {
		deploy(fmt.Sprint("slow", i), millions)
	}
	const quick = 3
	for i := range quick {
		h.MustDeploy(service.Name(fmt.Sprint("tally", i)), testguest.Counter(fmt.Sprint("tally", i)))
	}
	h.Stop()
	var open, answer time.Duration
	for b.Loop() {
		began := time.Now()
		again, err := host.Open(b.Context(), host.Options{Dir: h.Dir(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		open = max(open, time.Since(began))
		for i := range quick {
			c := add("k")
			c.Service = service.Name(fmt.Sprint("tally", i))
			if _, err := again.Send(b.Context(), c); err != nil {
				b.Fatal(err)
			}
		}
		answer = max(answer, time.Since(began))
		starting := 0
		for _, state := range again.States() {
			if state == service.StateStarting {
				starting++
			}
		}
		began = time.Now()
		if err := again.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(starting), "still-starting")
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-to-close")
	}
	b.ReportMetric(float64(open.Milliseconds()), "ms-to-open")
	b.ReportMetric(float64(answer.Milliseconds()), "ms-to-answers")
}

// BenchmarkThousandServices deploys a thousand services in a process that may have 1,024 open files, restarts
// the host, and sends each a query, twice.
func BenchmarkThousandServices(b *testing.B) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	low := limit
	low.Cur = 1024
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) }()
	const services = 1000
	name := func(i int) service.Name { return service.Name(fmt.Sprint("tally", i)) }
	for b.Loop() {
		h := hosttest.New(b)
		began := time.Now()
		for i := range services {
			h.MustDeploy(name(i), testguest.Counter(string(name(i))))
		}
		b.ReportMetric(time.Since(began).Seconds(), "s-to-deploy")
		h.Stop()
		began = time.Now()
		h.Restart()
		b.ReportMetric(time.Since(began).Seconds(), "s-to-restart")
		began = time.Now()
		for round := range 2 {
			for i := range services {
				c := add("k")
				c.Service = name(i)
				if r := h.MustSend(c); int(r.Version) != round+1 {
					b.Fatalf("%s answers %+v", c.Service, r)
				}
			}
		}
		b.ReportMetric(time.Since(began).Seconds(), "s-for-answers")
		h.Stop()
	}
}
