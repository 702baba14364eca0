package host_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// forge records a deployment that no host has checked, the second one of the service, and restarts the host.
func forge(t *testing.T, h *hosttest.Host, spec service.Spec) {
	t.Helper()
	h.Stop()
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := storage.Open(host.JournalDir(h.Dir()), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	j, err := commitlog.Open(t.Context(), opened, commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var version journal.Version
	err = j.Read(t.Context(), "_host", 0, 0, func(e *journal.Event) error {
		if e.Key == string(spec.Service) {
			version = e.Version
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = journaltest.Append(j, &journal.Commit{Log: "_host", Expected: version,
		Command: journal.Command{ID: "forged", Type: "deploy", Key: string(spec.Service)},
		Events:  []journal.NewEvent{{Type: "service_deployed", Data: data}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Restart()
}

// forgeModule is forge of an uploaded module.
func forgeModule(t *testing.T, h *hosttest.Host, module []byte) {
	t.Helper()
	m, err := h.Upload(t.Context(), module, nil)
	if err != nil {
		t.Fatal(err)
	}
	st, err := h.Status("tally")
	if err != nil {
		t.Fatal(err)
	}
	st.Spec.Module = m.Digest
	forge(t, h, st.Spec)
}

// wantUnfit checks that the tally was not started for these reasons.
func wantUnfit(t *testing.T, h *hosttest.Host, reasons ...string) {
	t.Helper()
	st, err := h.Status("tally")
	if err != nil || st.State != service.StateFailed || st.NextAttempt.IsZero() {
		t.Errorf("the service is %s, %+v, %v", st.State, st.Attempts, err)
	}
	for _, reason := range reasons {
		if !strings.Contains(st.Problem, reason) {
			t.Errorf("the problem is %s; it does not say %q", st.Problem, reason)
		}
	}
	_, err = h.Send(t.Context(), add("k"))
	if service.KindOf(err) != service.KindUnavailable ||
		!strings.Contains(err.Error(), "the service could not be started (conflict: ") {
		t.Errorf("a command: %v", err)
	}
}

// The host's own log may have been restored from anywhere. A deployment in it that no host would accept fails
// with the reason, and nothing else does.
func TestADeploymentThatNobodyAcceptedFails(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("other", testguest.Counter("other"))
	status := h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("a"))
	spec := status.Spec
	spec.Settings.Shards = 1_000_000_000
	forge(t, h, spec)
	status, err := h.Status("tally")
	if err != nil || status.State != service.StateFailed || !strings.Contains(status.Problem, "shards is 1000000000") {
		t.Errorf("the service with a billion shards is %s: %s, %v", status.State, status.Problem, err)
	}
	h.MustSend(service.Command{Service: "other", Key: "a", Type: "add", ID: "1"})
	h.MustDeploy("tally", testguest.Counter("tally")) // deployed again, it runs
	h.MustSend(add("b"))
}

// A recorded module does not start if the log has events that it does not know. It starts as soon as the log
// no longer has them.
func TestARecordedModuleMustKnowTheLog(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", knowing("1", "added"))
	h.MustSend(add("k"))
	forgeModule(t, h, knowing("2", "counted"))
	unknown := []string{"the service's log has events that the module does not know", `1 event of type "added", the first at position 1`}
	wantUnfit(t, h, unknown...)
	h.Restart()
	wantUnfit(t, h, unknown...)
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 2, Force: true}); err != nil ||
		done.First != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	if r := h.MustSend(add("other")); r.Version != 1 {
		t.Errorf("%+v", r)
	}
}

// A recorded module does not start if it could not restore entities of which a retention has left only
// snapshots.
func TestARecordedModuleMustTakeWhatIsLeftOfEntities(t *testing.T) {
	h := forgetful(t)
	forgeModule(t, h, testguest.CounterWith(ofSchema("2", 2), nil))
	lost := []string{`entity "k0", whose events up to version 2 are deleted`, "of state schema 1, and the module has 2", "3 of 3 such entities"}
	wantUnfit(t, h, lost...)
	h.Restart()
	wantUnfit(t, h, lost...)
	h.MustDeploy("tally", testguest.CounterWith(ofSchema("3", 1), nil))
	wantCounts(t, h, "2")
	h.Restart()
	wantCounts(t, h, "2")
}

// A module starts again even if a forced retention has deleted what it needs.
func TestAModuleStartsAgainAfterAForcedRetention(t *testing.T) {
	h, _ := refusing(t)
	if done, err := h.Retain(t.Context(), "tally", service.Retention{Before: 2, Force: true}); err != nil ||
		done.First != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	h.Restart()
	if st, err := h.Status("tally"); err != nil || st.State != service.StateRunning {
		t.Errorf("%s: %s, %v", st.State, st.Problem, err)
	}
}

// So it does if the host is killed when the events are deleted, and before anything else is done.
func TestAModuleStartsAgainAfterAForcedRetentionAndAKill(t *testing.T) {
	h, _ := refusing(t)
	killed := t.TempDir()
	kill := func(p service.Progress) {
		if p.Stage == "writing what is kept of entities" && p.Done == 0 {
			if err := os.CopyFS(killed, os.DirFS(h.Dir())); err != nil {
				t.Error(err)
			}
		}
	}
	r := service.Retention{Before: 2, Force: true, Progress: kill}
	if _, err := h.Retain(t.Context(), "tally", r); err != nil {
		t.Fatal(err)
	}
	// What the retention writes next is the last that the killed host writes.
	opened, err := storage.Open(host.JournalDir(killed), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	j, err := commitlog.Open(t.Context(), opened, commitlog.Options{AnswerWindow: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	done, err := j.Retain(t.Context(), "tally", journal.Retention{Before: 2, Force: true})
	if err := errors.Join(err, j.Close(t.Context())); err != nil || done.First != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	h.Change(func(o *host.Options) { o.Dir = killed })
	if st, err := h.Status("tally"); err != nil || st.State != service.StateRunning {
		t.Errorf("%s: %s, %v", st.State, st.Problem, err)
	}
}
