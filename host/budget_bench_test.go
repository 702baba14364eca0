package host_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// held is what this process holds of the machine's limited resources. Values are 0 where the system does not
// tell.
type held struct{ mappings, descriptors, memory int }

func holding(b *testing.B) held {
	b.Helper()
	runtime.GC()
	var h held
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil {
		h.mappings = bytes.Count(maps, []byte("\n"))
	}
	if all, err := os.ReadDir("/proc/self/fd"); err == nil {
		h.descriptors = len(all)
	}
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		var all int
		if _, err := fmt.Sscan(string(statm), &all, &h.memory); err != nil {
			b.Fatal(err)
		}
		h.memory *= os.Getpagesize()
	}
	return h
}

// BenchmarkManyServices deploys a thousand services with two shards each under the default budget of this
// machine, and sends a query to each shard. It reports what the host takes of the machine per service, and
// how much of the budget all hold together.
func BenchmarkManyServices(b *testing.B) {
	const services = 1000
	for b.Loop() {
		h := hosttest.New(b)
		before := holding(b)
		for k := range services {
			name := service.Name(fmt.Sprint("many-", k))
			h.MustDeploy(name, testguest.Counter(string(name)))
		}
		for k := range services {
			for key := range 4 {
				h.MustSend(service.Command{Service: service.Name(fmt.Sprint("many-", k)),
					Key: service.Key(fmt.Sprint(key)), Type: "add"})
			}
		}
		after := holding(b)
		b.ReportMetric(float64(after.mappings-before.mappings)/services, "mappings/service")
		b.ReportMetric(float64(after.descriptors-before.descriptors)/services, "descriptors/service")
		b.ReportMetric(float64(after.memory-before.memory)/services/(1<<10), "RSS-KiB/service")
		used, limit := h.Account().Used(budget.SandboxBytes), h.Account().Limit(budget.SandboxBytes)
		b.ReportMetric(float64(used)/services/(1<<10), "budget-KiB/service")
		b.ReportMetric(100*float64(used)/float64(limit), "%-of-budget")
		h.Stop()
	}
}

// BenchmarkWideDeployments deploys services of 1,024 shards, 24 of them, or until one is refused. The host
// and the service that was there before must survive. It reports the number of services, and the process's
// mappings at the end.
func BenchmarkWideDeployments(b *testing.B) {
	for b.Loop() {
		h := hosttest.New(b)
		h.MustDeploy("tally", testguest.Counter("tally"))
		wide, refused := 0, error(nil)
		for ; wide < 24; wide++ {
			name := service.Name(fmt.Sprint("wide-", wide))
			_, refused = h.Deploy(b.Context(), service.Deployment{Service: name,
				Module: testguest.Counter(string(name)), Settings: service.Settings{Shards: service.GreatestShards}})
			if refused != nil {
				break
			}
		}
		if service.KindOf(refused) != service.KindQuota {
			b.Fatalf("after %d services of %d shards: %v", wide, service.GreatestShards, refused)
		}
		h.MustSend(add("a"))
		b.ReportMetric(float64(wide), "deployments")
		b.ReportMetric(float64(holding(b).mappings), "mappings")
		h.Stop()
	}
}
