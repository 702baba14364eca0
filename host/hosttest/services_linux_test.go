package hosttest_test

import (
	"flag"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

var manyServices = flag.Int("services", 1000, "services of BenchmarkManyServices, which has 1,024 descriptors")

// deployMany deploys services to a host with few descriptors, and sends each a query.
func deployMany(t testing.TB, f *few, n int) {
	t.Helper()
	c := f.client()
	name := func(i int) service.Name { return service.Name(fmt.Sprint("service", i)) }
	for i := range n {
		if _, err := c.Deploy(t.Context(),
			service.Deployment{Service: name(i), Module: testguest.Counter(string(name(i)))}); err != nil {
			t.Fatalf("service %d, with %d descriptors in use: %v", i, f.open(), err)
		}
	}
	for i := range n {
		if r, err := c.Send(t.Context(), service.Command{Service: name(i), Key: "a", Type: "add"}); err != nil ||
			r.Version != 1 {
			t.Fatalf("service %d: %+v, %v", i, r, err)
		}
	}
	if open := f.open(); open > f.limit-4 {
		t.Errorf("%d descriptors are open of %d", open, f.limit)
	}
}

// A service needs no descriptor: there can be as many services as descriptors.
func TestManyServicesWithFewDescriptors(t *testing.T) {
	t.Parallel()
	prove.SkipShort(t, "it starts a whole host")
	f := startFew(t, 128)
	deployMany(t, f, 100)
	f.stop()
}

// BenchmarkManyServices runs a thousand services with 1,024 descriptors.
func BenchmarkManyServices(b *testing.B) {
	for b.Loop() {
		f := startFew(b, 1024)
		deployMany(b, f, *manyServices)
		b.ReportMetric(float64(f.open()), "descriptors")
		f.stop()
	}
}
