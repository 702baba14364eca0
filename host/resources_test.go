package host_test

import (
	"io"
	"log/slog"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// There is a line for each limited resource of the host, whether it is an account of the budget or not.
func TestEachResourceHasALine(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) {
		o.RecentEventBytes, o.Logger = 1<<20, slog.New(slog.NewTextHandler(io.Discard, nil))
	})
	lines := func() map[string]service.ResourceUsage {
		all := map[string]service.ResourceUsage{}
		for _, u := range h.Resources() {
			if _, twice := all[u.Resource]; twice {
				t.Errorf("there are two lines for %s", u.Resource)
			}
			all[u.Resource] = u
		}
		return all
	}
	h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("k1"))
	h.Logger().Info("a line", "service", "tally")
	all := lines()
	for _, name := range []string{"bytes_in_flight", "sandboxes", "sandbox_bytes", "journal_memory_bytes",
		"descriptors", "disk_bytes", "readers", "recent_event_bytes", "log_bytes"} {
		if _, ok := all[name]; !ok {
			t.Errorf("there is no line for %s", name)
		}
	}
	if u := all["recent_event_bytes"]; u.Limit != 1<<20 || u.Used == 0 || len(u.Holders) != 1 ||
		u.Holders[0] != (service.ResourceHolder{Name: "tally", Used: u.Used}) {
		t.Errorf("recent events: %+v", u)
	}
	if u := all["log_bytes"]; u.Limit == 0 || u.Refused != 0 {
		t.Errorf("the log: %+v", u)
	}
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	if u := lines()["recent_event_bytes"]; u.Used != 0 || len(u.Holders) != 0 {
		t.Errorf("recent events of a service that is gone: %+v", u)
	}
}
