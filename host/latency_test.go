package host_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// counted is how many commands were counted, by service and type.
func counted(h *hosttest.Host) map[string]uint64 {
	all := map[string]uint64{}
	for _, l := range h.Latencies() {
		for _, n := range l.Buckets {
			all[string(l.Service)+"/"+string(l.Type)] += n
		}
		if l.Sum <= 0 {
			all["without time"]++
		}
	}
	return all
}

// Commands of embedding programs are counted in the latencies, too. A deployment keeps the counts; a deletion
// removes them.
func TestCountersGoOnAcrossDeployments(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	for range 3 {
		h.MustSend(add("k1"))
	}
	c := add("k1")
	c.Type = "reject"
	if _, err := h.Send(t.Context(), c); service.KindOf(err) != service.KindRejected {
		t.Fatal(err)
	}
	c.Type = "made up"
	if _, err := h.Send(t.Context(), c); service.KindOf(err) != service.KindUnknownType {
		t.Fatal(err)
	}
	check := func(adds uint64) {
		t.Helper()
		got := counted(h)
		if len(got) != 2 || got["tally/add"] != adds || got["tally/reject"] != 1 {
			t.Errorf("%v, want %d of add and one of reject", got, adds)
		}
		status, err := h.Status("tally")
		if err != nil {
			t.Fatal(err)
		}
		if n := status.Counters; n.Committed != adds || n.Events != adds || n.Rejected != 1 || n.Fuel < adds*10 {
			t.Errorf("%+v, want %d commands", n, adds)
		}
	}
	check(3)
	for _, typ := range []service.Type{"count", "count", "made up"} {
		_, err := h.Query(t.Context(), service.Query{Service: "tally", Key: "k1", Type: typ})
		if (err == nil) != (typ == "count") {
			t.Fatal(err)
		}
	}
	queries := func() {
		t.Helper()
		got := map[service.Type]uint64{}
		for _, l := range h.QueryLatencies() {
			for _, n := range l.Buckets {
				got[l.Type] += n
			}
		}
		if len(got) == 0 || len(got) > 2 || got["count"] != 2 {
			t.Errorf("%v, want two queries of count", got)
		}
	}
	queries()
	before, _ := h.Status("tally")
	for _, shards := range []int{2, 3} {
		_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: testguest.Counter("tally"),
			Settings: service.Settings{Shards: shards}})
		if err != nil {
			t.Fatal(err)
		}
		check(3)
		queries()
		if now, _ := h.Status("tally"); now.Counters.Fuel < before.Counters.Fuel {
			t.Errorf("%d units of fuel have become %d", before.Counters.Fuel, now.Counters.Fuel)
		}
	}
	h.MustSend(add("k1"))
	check(4)
	if err := h.Delete(t.Context(), "tally"); err != nil { // it is stopped, and listed
		t.Fatal(err)
	}
	if got := counted(h); got["tally/add"] != 4 {
		t.Errorf("of a service that is stopped there is %v", got)
	}
}
