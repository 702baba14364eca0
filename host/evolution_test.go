package host_test

import (
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/bulkhead-wasm/bulkhead/journal"
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

// hold sends a command to the later build of "seats".
func hold(key service.Key) service.Command {
	return service.Command{Service: "seats", Key: key, Type: "hold", ID: service.NewCommandID(),
		Data: []byte(`{"seats":["B1","B2"],"for":"Ada"}`)}
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
	wantHall(t, h, "gala", `{"taken":" A1 A2","reserved":2}`)
	h.MustDeploy("seats", later)
	h.MustSend(hold("gala"))
	h.Restart()
	wantHall(t, h, "gala", `{"seats":["A1","A2","B1","B2"],"times":3}`)
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "seats", Module: first}); service.
		KindOf(err) != service.KindConflicting {
		t.Errorf("a build that does not know all types: %v", err)
	}
}

// A snapshot that stands for deleted events is read by a module with another state schema that has upcasters
// for it. The entity goes on with that module, also when a retention has deleted more.
func TestAModuleThatUpcastsStates(t *testing.T) {
	t.Parallel()
	first, later := seats(t, "1"), seats(t, "2")
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	h.MustDeploy("seats", first)
	for _, key := range []service.Key{"gala", "matinee"} {
		for _, seat := range []string{"A1", "A2", "A3"} {
			h.MustSend(reserve(key, seat))
		}
	}
	retain := func(before journal.Position) {
		t.Helper()
		done, err := h.Retain(t.Context(), "seats", service.Retention{Before: before})
		if err != nil || done.First != before {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	retain(6) // gala has no event left, matinee one
	st := h.MustDeploy("seats", later)
	if len(st.Manifest.EarlierSchemas) != 2 {
		t.Errorf("the earlier schemas are %v", st.Manifest.EarlierSchemas)
	}
	want := func(more, times string) {
		t.Helper()
		for _, key := range []service.Key{"gala", "matinee"} {
			wantHall(t, h, key, `{"seats":["A1","A2","A3"`+more+`],"times":`+times+`}`)
		}
	}
	want("", "3")
	h.MustDeploy("seats", first) // nothing was written
	h.MustDeploy("seats", later)
	h.Restart()
	want("", "3")
	h.MustSend(hold("gala"))
	h.MustSend(hold("matinee"))
	want(`,"B1","B2"`, "4")
	if st, err := h.Status("seats"); err != nil || st.Counters.SnapshotsRefused > 0 || st.Counters.SnapshotsUsed == 0 {
		t.Errorf("%+v, %v", st.Counters, err)
	}
	retain(8) // now the snapshots are of the later build
	h.Restart()
	want(`,"B1","B2"`, "4")
	h.MustSend(hold("gala"))
}
