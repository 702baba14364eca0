package host_test

import (
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// seats is the module of a build of the service "seats".
func seats(t *testing.T, build string) []byte {
	t.Helper()
	raced.Skip(t, "it compiles Go guests")
	return hosttest.Module(t, "github.com/bulkhead-wasm/bulkhead/host/testdata/seats"+build)
}

// reserve sends a command to the first build of "seats".
func reserve(key service.Key, seat string) service.Command {
	return service.Command{Service: "seats", Key: key, Type: "reserve", ID: service.NewCommandID(),
		Data: []byte(`{"seat":"` + seat + `"}`)}
}

// wantHall checks the state of an entity of "seats", as its query answers it.
func wantHall(t *testing.T, h *hosttest.Host, key service.Key, want string) {
	t.Helper()
	q, err := h.Query(t.Context(), service.Query{Service: "seats", Key: key, Type: "hall", Data: []byte(`{}`)})
	if err != nil || string(q.Data) != want {
		t.Errorf("%s is %s, %v; want %s", key, q.Data, err, want)
	}
}

// A module takes over a log whose events it knows only through upcasters, and the first build takes over
// again as long as nothing of another type was written.
func TestAModuleThatUpcastsEvents(t *testing.T) {
	t.Parallel()
	first, later := seats(t, "1"), seats(t, "2")
	h := hosttest.New(t)
	h.MustDeploy("seats", first)
	h.MustSend(reserve("gala", "A1"))
	h.MustSend(reserve("gala", "A2"))
	st := h.MustDeploy("seats", later)
	if !slices.ContainsFunc(st.Manifest.Events, func(e abi.EventType) bool {
		return e.Name == "reserved" && e.UpcastTo == "reserved-2"
	}) {
		t.Errorf("the events are %+v", st.Manifest.Events)
	}
	wantHall(t, h, "gala", `{"seats":["A1","A2"],"times":2}`)
	h.MustDeploy("seats", first)
	wantHall(t, h, "gala", `{"last":"A2","reserved":2}`)
	h.MustDeploy("seats", later)
	h.MustSend(service.Command{Service: "seats", Key: "gala", Type: "hold", ID: service.NewCommandID(),
		Data: []byte(`{"seats":["B1","B2"],"for":"Ada"}`)})
	h.Restart()
	wantHall(t, h, "gala", `{"seats":["A1","A2","B1","B2"],"times":3}`)
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "seats", Module: first}); service.
		KindOf(err) != service.KindConflicting {
		t.Errorf("a build that does not know all types: %v", err)
	}
}
