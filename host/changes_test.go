package host_test

import (
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A deployment of a module whose events lack a former member warns once.
func TestADeploymentTellsOfChangedEvents(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	deploy := func(schema string) []string {
		m := testguest.CounterManifest("tally")
		for i := range m.Events {
			m.Events[i].Schema = schema
		}
		st, err := h.Deploy(t.Context(),
			service.Deployment{Service: "tally", Module: testguest.CounterWith(m.AppendJSON(nil), nil)})
		if err != nil {
			t.Fatal(err)
		}
		return st.Warnings
	}
	if got := deploy(`{"type":"object","properties":{"amount":{"type":"integer"}}}`); got != nil {
		t.Errorf("the first deployment: %q", got)
	}
	got := deploy(`{"type":"object","properties":{"cents":{"type":"integer"}}}`)
	event := testguest.CounterManifest("tally").Events[0].Name
	if want := "event " + event +
		": the member amount is gone; what earlier events have there is ignored"; !slices.Contains(got, want) {
		t.Errorf("with another member: %q, want %s", got, want)
	}
	if st, err := h.Status("tally"); err != nil || st.Warnings != nil {
		t.Errorf("later: %q, %v", st.Warnings, err)
	}
}
