package host_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// quarantined are the keys of the quarantined entities.
func quarantined(t *testing.T, h *hosttest.Host) (keys []service.Key) {
	t.Helper()
	p, err := h.Quarantine("tally", "", 0)
	if err != nil || p.Count != len(p.Entities) || p.After != "" || h.Quarantined()["tally"] != p.Count {
		t.Errorf("%+v, %v, %v", p, err, h.Quarantined())
	}
	if st, err := h.Status("tally"); err != nil || st.Faults.Quarantined != p.Count {
		t.Errorf("status %+v, %v", st.Faults, err)
	}
	for _, x := range p.Entities {
		keys = append(keys, x.Key)
		if x.Cannot != service.CannotHydrate || x.Version != 3 || x.Event != "added" || x.Position == 0 ||
			x.NextAttempt.IsZero() || x.Since.IsZero() || x.Problem == "" {
			t.Errorf("entry %+v", x)
		}
	}
	return keys
}

// Entities whose events a module cannot apply are listed by key, and others are not. Releasing one tries at once, and
// fails again. A module that mends it begins with an empty list. Neither makes the host unready.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, unverified)
	h.MustDeploy("tally", weakly("1", testguest.Weaknesses{}))
	for key, n := range map[service.Key]int{"c": 4, "a/1": 3, "b": 5, "short": 2} {
		for range n {
			h.MustSend(add(key))
		}
	}
	h.MustDeploy("tally", weakly("2", testguest.Weaknesses{FaultAt: 3}))
	if got := quarantined(t, h); len(got) != 0 {
		t.Errorf("nothing was tried: %v", got)
	}
	for _, key := range []service.Key{"c", "b", "a/1"} {
		if _, err := count(t.Context(), h, key); service.KindOf(err) != service.KindFault {
			t.Errorf("%s: %v", key, err)
		}
	}
	if got, err := count(t.Context(), h, "short"); err != nil || got != "2" {
		t.Errorf("it counts %s, %v", got, err)
	}
	if got := quarantined(t, h); fmt.Sprint(got) != "[a/1 b c]" {
		t.Errorf("quarantined: %v", got)
	}
	p, err := h.Quarantine("tally", "a/1", 1)
	if err != nil || len(p.Entities) != 1 || p.Entities[0].Key != "b" || p.After != "b" || p.Count != 3 {
		t.Errorf("%+v, %v", p, err)
	}
	before := p.Entities[0]
	_, err = h.Release(t.Context(), "tally", "b")
	if service.KindOf(err) != service.KindFault || !strings.Contains(err.Error(), `event of type "added" at version 3`) {
		t.Errorf("released: %v", err)
	}
	if p, err = h.Quarantine("tally", "a/1", 1); err != nil || p.Entities[0].Failed != before.Failed+1 ||
		!p.Entities[0].NextAttempt.After(before.NextAttempt) || !p.Entities[0].Since.Equal(before.Since) {
		t.Errorf("%+v, %v; before it was %+v", p, err, before)
	}
	if r, err := h.Release(t.Context(), "tally", "short"); err != nil || r.Quarantined {
		t.Errorf("not quarantined: %+v, %v", r, err)
	}
	if err := h.Ready(); err != nil {
		t.Error(err)
	}

	h.MustDeploy("tally", weakly("3", testguest.Weaknesses{}))
	if got := quarantined(t, h); len(got) != 0 {
		t.Errorf("after a mending deployment: %v", got)
	}
	for key, want := range map[service.Key]string{"c": "4", "a/1": "3", "b": "5"} {
		if got, err := count(t.Context(), h, key); err != nil || got != want {
			t.Errorf("%s counts %s, %v", key, got, err)
		}
	}
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	if got := quarantined(t, h); len(got) != 0 {
		t.Errorf("stopped: %v", got)
	}
	if _, err := h.Release(t.Context(), "tally", "b"); service.KindOf(err) != service.KindConflicting {
		t.Errorf("released while the service is stopped: %v", err)
	}
	for _, wrong := range []error{second(h.Release(t.Context(), "none", "b")), second(h.Quarantine("none", "", 1))} {
		if service.KindOf(wrong) != service.KindNotFound {
			t.Errorf("no such service: %v", wrong)
		}
	}
	if _, err := h.Release(t.Context(), "tally", ""); service.KindOf(err) != service.KindInvalid {
		t.Errorf("no key: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
