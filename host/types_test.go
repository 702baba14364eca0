package host_test

import (
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// knowing is a build of the counter whose event has a name and aliases.
func knowing(version string, event string, aliases ...string) []byte {
	m := testguest.CounterManifest("tally")
	m.Version = version
	m.Events = []abi.EventType{{Name: event, Aliases: aliases}}
	return testguest.CounterWith(m.AppendJSON(nil), nil)
}

// refusedFor deploys a module that does not know the types in the log.
func refusedFor(t *testing.T, h *hosttest.Host, module []byte, reasons ...string) {
	t.Helper()
	_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: module})
	said := ""
	for _, reason := range reasons {
		said += "; " + reason + ": keep the type, name it as an alias of another one, or upcast it to another one"
	}
	if service.KindOf(err) != service.KindConflicting ||
		!strings.HasSuffix(err.Error(), "has events that the module does not know"+said) {
		t.Errorf("got %v, want reasons %s", err, said)
	}
}

// Only the log decides which types a module must know: not what ran before, what that declared, or whether
// anything runs.
func TestTheLogSaysWhatAModuleMustKnow(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", knowing("1", "added"))
	h.MustDeploy("tally", knowing("2", "counted")) // nothing was written
	h.MustDeploy("tally", knowing("1", "added"))
	h.MustSend(add("k"))
	refusedFor(t, h, knowing("2", "counted"), `1 event of type "added", the first at position 1`)
	h.MustDeploy("tally", knowing("3", "counted", "added"))
	for range 2 {
		h.MustSend(add("k"))
	}
	refusedFor(t, h, knowing("2", "counted"), `1 event of type "added", the first at position 1`)
	refusedFor(t, h, knowing("1", "added"), `2 events of type "counted", the first at position 2`)
	refusedFor(t, h, knowing("4", "other"),
		`1 event of type "added", the first at position 1`, `2 events of type "counted", the first at position 2`)
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	refusedFor(t, h, knowing("2", "counted"), `1 event of type "added", the first at position 1`)
	h.MustDeploy("tally", knowing("5", "more", "added", "counted"))
	if r := h.MustSend(add("k")); r.Version != 4 {
		t.Errorf("%+v", r)
	}
	h.Restart()
	refusedFor(t, h, knowing("3", "counted", "added"), `1 event of type "more", the first at position 4`)
	// Types that a retention has deleted need not be known.
	if _, err := h.Retain(t.Context(), "tally", service.Retention{Before: 2, Force: true}); err != nil {
		t.Fatal(err)
	}
	h.MustDeploy("tally", knowing("6", "more", "counted"))
}

// Events that the running module writes while the next one waits for it to end count, too: the next one is
// refused, and the old one goes on.
func TestATypeThatIsWrittenDuringTheSwap(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	st := h.MustDeploy("tally", knowing("1", "added"))
	sub, err := h.Subscribe(t.Context(), service.Selection{Service: "tally"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: knowing("2", "counted"),
		Progress: func(p service.Progress) {
			if p.Stage == "draining" {
				h.MustSend(add("k"))
			}
		}})
	if service.KindOf(err) != service.KindConflicting || !strings.Contains(err.Error(), `1 event of type "added"`) {
		t.Errorf("got %v", err)
	}
	for version := range 2 {
		if r := h.MustSend(add("k")); int(r.Version) != version+2 {
			t.Errorf("the old module goes on with %+v", r)
		}
		now, err := h.Status("tally")
		if err != nil || now.Spec != st.Spec || now.State != service.StateRunning || now.Problem != "" {
			t.Errorf("%+v, %v", now, err)
		}
		if version == 0 {
			events, err := sub.Next(t.Context(), 2)
			if err != nil || len(events) == 0 {
				t.Errorf("the subscriber got %v, %v", events, err)
			}
			h.Restart() // the old one is still recorded
		}
	}
	h.MustDeploy("tally", knowing("3", "counted", "added"))
}

// A module must also know the types of kept events. A service with only kept events is readable, so it is not
// removed.
func TestKeptEventsSayWhatAModuleMustKnow(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = 1 })
	h.MustDeploy("tally", weakly("1", testguest.Weaknesses{NaNAt: 1}))
	h.MustSend(add("nan"))
	done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 2})
	if err != nil || done.First != 2 || done.Kept != 1 || done.KeptEvents != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	for range 2 {
		refusedFor(t, h, knowing("2", "counted"), `1 event of type "added", the first at position 1`)
		for range 2 {
			if err := h.Delete(t.Context(), "tally"); err != nil {
				t.Fatal(err)
			}
		}
		if st := h.States()["tally"]; st != service.StateStopped {
			t.Errorf("it is %q", st)
		}
		if events, err := h.EntityEvents(t.Context(), "tally", "nan", 0, 0); err != nil || len(events) != 1 ||
			events[0].Version != 1 {
			t.Errorf("%d events, %v", len(events), err)
		}
		h.Restart()
	}
	h.MustDeploy("tally", knowing("3", "counted", "added"))
	if got, err := count(t.Context(), h, "nan"); err != nil || got != "1" {
		t.Errorf("it counts %s, %v", got, err)
	}
	// The new module takes a snapshot, so there are no more kept events.
	done, err = h.Retain(t.Context(), "tally", service.Retention{OlderThan: 1})
	if first, wrong := h.EntityFirst(t.Context(), "tally", "nan"); err != nil || done.Batches == 0 || done.Kept != 0 ||
		wrong != nil || first != 2 {
		t.Errorf("%+v, %v; it begins at %d, %v", done, err, first, wrong)
	}
}
