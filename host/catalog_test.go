package host_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/badgerengine"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// The host's own log may have been restored from anywhere. A deployment in it that no host would have accepted
// fails, with the reason, and nothing else does.
func TestADeploymentThatNobodyAcceptedFails(t *testing.T) {
	h := hosttest.New(t)
	h.MustDeploy("other", testguest.Counter("other"))
	status := h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("a"))
	h.Stop()
	spec := status.Spec
	spec.Settings.Shards = 1_000_000_000
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	engine, err := badgerengine.Open(host.JournalDir(h.Dir()), badgerengine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), engine, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = journaltest.Append(j, &journal.Commit{Log: "_host", Expected: 1,
		Command: journal.Command{ID: "forged", Type: "deploy", Key: "tally"},
		Events:  []journal.NewEvent{{Type: "service_deployed", Data: data}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Restart()
	status, err = h.Status("tally")
	if err != nil || status.State != service.StateFailed || !strings.Contains(status.Problem, "shards is 1000000000") {
		t.Errorf("the service with a billion shards is %s: %s, %v", status.State, status.Problem, err)
	}
	h.MustSend(service.Command{Service: "other", Key: "a", Type: "add", ID: "1"})
	h.MustDeploy("tally", testguest.Counter("tally")) // deployed again, it runs
	h.MustSend(add("b"))
}
