package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func weakly(version string, w testguest.Weaknesses) []byte {
	return testguest.CounterOf(ofSchema(version, 1), w, nil)
}

func count(ctx context.Context, h *hosttest.Host, key service.Key) (string, error) {
	q, err := h.Query(ctx, service.Query{Service: "tally", Key: key, Type: "count"})
	return string(q.Data), err
}

// An entity is hydrated even if its replay takes longer than a call may take, more fuel than one may spend,
// and longer than any of its clients waits.
func TestAnEntityThatWasWrittenComesBack(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	limits := service.Limits{CallTime: 100 * time.Millisecond, Fuel: 4_000_000, EventFuel: 1000}
	settings := service.Settings{SnapshotEvery: -1}
	deployed := service.Deployment{Service: "tally", Module: weakly("1", testguest.Weaknesses{Toil: 300_000}),
		Limits: limits, Settings: settings}
	if _, err := h.Deploy(t.Context(), deployed); err != nil {
		t.Fatal(err)
	}
	const events = 500 // about ten of them fit into a request
	for range events {
		h.MustSend(add("long"))
	}
	before, err := h.Status("tally")
	if err != nil {
		t.Fatal(err)
	}
	h.Restart()
	began := time.Now()
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		got, err := count(ctx, h, "long")
		cancel()
		if err == nil {
			if got != fmt.Sprint(events) {
				t.Errorf("it counts %s", got)
			}
			t.Logf("it came back in %v with the %d. try", time.Since(began), try)
			break
		}
		if kind := service.KindOf(err); kind != service.KindDeadline && kind != service.KindUnavailable {
			t.Fatalf("try %d: %v", try, err)
		}
		if time.Since(began) > time.Minute {
			t.Fatal("it does not come back")
		}
	}
	st, err := h.Status("tally")
	if err != nil || st.Counters.Resets != 0 || st.Counters.Hydrated != 1 || !st.Faults.IsZero() {
		t.Errorf("%+v, %v", st.Counters, err)
	}
	if st.Counters.Fuel < uint64(4*limits.Fuel) || before.Counters.Fuel < st.Counters.Fuel/2 {
		t.Errorf("it took %d fuel, after commands of %d, which proves nothing", st.Counters.Fuel, before.Counters.Fuel)
	}
}

// An entity whose events the module cannot apply costs one hydration and one log line, however often it is
// used. Other entities of the service are served meanwhile.
func TestABrokenEntityCostsLittle(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, unverified)
	h.MustDeploy("tally", weakly("1", testguest.Weaknesses{}))
	const events = 500
	for range events {
		h.MustSend(add("broken"))
	}
	h.MustSend(add("good"))
	h.MustDeploy("tally", weakly("2", testguest.Weaknesses{FaultAt: 101}))
	began := time.Now()
	for range 10 {
		_, err := count(t.Context(), h, "broken")
		var fault *service.Error
		if !errors.As(err, &fault) || fault.Kind != service.KindFault || fault.Code != "bad_event" ||
			fault.RetryAfter <= 0 ||
			!strings.Contains(fault.Message, `entity "broken"`) || !strings.Contains(fault.Message, `"added" at version 101, position 101`) {
			t.Fatalf("%+v", err)
		}
	}
	if got, err := count(t.Context(), h, "good"); err != nil || got != "1" {
		t.Errorf("%s, %v", got, err)
	}
	st, err := h.Status("tally")
	// the first wait is at least 750 ms
	if bound := 1 + uint64(time.Since(began)/(700*time.Millisecond)); st.Counters.Failed > bound {
		t.Errorf("%d hydrations failed", st.Counters.Failed)
	}
	if err != nil || st.Counters.Resets != 0 || st.Faults.Count != 1 || st.Faults.Latest[0].Key != "broken" ||
		st.Faults.Latest[0].Version != 101 {
		t.Errorf("%+v, %v", st.Faults, err)
	}
	h.MustDeploy("tally", weakly("3", testguest.Weaknesses{}))
	if got, err := count(t.Context(), h, "broken"); err != nil || got != fmt.Sprint(events) {
		t.Errorf("a new deployment tries again: %s, %v", got, err)
	}
	if st, err := h.Status("tally"); err != nil || !st.Faults.IsZero() {
		t.Errorf("%+v, %v", st.Faults, err)
	}
}

// Entities whose states cannot be encoded, or are too large for a snapshot, do not affect others' snapshots
// and do not hold up a retention, which keeps their events. They are hydrated from these, also after a
// restart of the host.
func TestStatesWithoutSnapshots(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = time.Nanosecond })
	if _, err := h.Deploy(t.Context(),
		service.Deployment{Service: "tally", Module: weakly("1", testguest.Weaknesses{NaNAt: 2, HugeAt: 3}),
			Settings: service.Settings{SnapshotEvery: 1, Shards: 1}}); err != nil {
		t.Fatal(err)
	}
	h.MustSend(add("good"))
	for key, n := range map[service.Key]int{"nan": 2, "huge": 3} {
		for range n {
			h.MustSend(add(key))
		}
	}
	for i := range 5 {
		h.MustSend(add(service.Key(fmt.Sprint("more", i))))
	}
	last := h.MustSend(add("good2")).Position
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: last, MaxKept: -1}); err != nil ||
		done.First != 2 || done.Held != 2 || fmt.Sprint(done.HeldBy) != "[huge nan]" {
		t.Errorf("without room for them: %+v, %v", done, err)
	}
	was := map[service.Key][]*service.Event{}
	for _, key := range []service.Key{"nan", "huge"} {
		events, err := h.EntityEvents(t.Context(), "tally", key, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		was[key] = events
	}
	done, err := h.Retain(t.Context(), "tally", service.Retention{Before: last})
	if err != nil || done.First != last || done.Held != 0 || done.Kept != 2 ||
		fmt.Sprint(done.KeptOf) != "[huge nan]" || done.KeptEvents < 2 {
		t.Errorf("%+v, %v", done, err)
	}
	st, err := h.Status("tally")
	if err != nil || st.Counters.Resets != 0 || st.Faults.Count != 2 {
		t.Errorf("%+v, %+v, %v", st.Counters, st.Faults, err)
	}
	for _, f := range st.Faults.Latest {
		if code := map[service.Key]string{"nan": "NaN",
			"huge": "it may have 16777216"}[f.Key]; f.Cannot != service.CannotSnapshot ||
			!strings.Contains(f.Problem, code) {
			t.Errorf("%+v", f)
		}
	}
	// Their states are the same before and after a restart.
	for range 2 {
		for key, n := range map[service.Key]string{"good": "1", "nan": "2", "huge": "3", "more3": "1"} {
			if got, err := count(t.Context(), h, key); err != nil || got != n {
				t.Errorf("%s counts %s, %v", key, got, err)
			}
		}
		for key, want := range was {
			events, err := h.EntityEvents(t.Context(), "tally", key, 0, 0)
			if err != nil || len(events) == 0 || len(events) > len(want) {
				t.Fatalf("%d events of %s, %v", len(events), key, err)
			}
			want = want[len(want)-len(events):] // there is a snapshot of the state before these
			for i, e := range events {
				if e.Cursor() != want[i].Cursor() || e.Position != want[i].Position || e.Version != want[i].Version ||
					!bytes.Equal(e.Data, want[i].Data) {
					t.Errorf("event %d of %s is %+v, not %+v", i, key, e, want[i])
				}
				if v, ok, err := h.KeptVersion(t.Context(), "tally", key, e.Cursor().String()); !ok || v != e.Version ||
					err != nil {
					t.Errorf("the cursor of version %d is of %d, %v, %v", e.Version, v, ok, err)
				}
				if _, ok, err := h.KeptVersion(t.Context(), "tally", "good", e.Cursor().String()); ok || err != nil {
					t.Errorf("the cursor of another entity: %v, %v", ok, err)
				}
			}
		}
		h.Restart()
	}
	for key, n := range map[service.Key]int{"nan": 2, "huge": 1} { // commands until nothing is wrong with it
		for range n {
			h.MustSend(add(key))
		}
	}
	for key, n := range map[service.Key]string{"good": "1", "nan": "4", "huge": "4", "more3": "1"} {
		if got, err := count(t.Context(), h, key); err != nil || got != n {
			t.Errorf("%s counts %s, %v", key, got, err)
		}
	}
	done, err = h.Retain(t.Context(), "tally", service.Retention{Before: last})
	if err != nil || done.First != last || done.Held != 0 {
		t.Errorf("%+v, %v", done, err)
	}
}
