package host_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// versions are the versions in a service's history, the newest first.
func versions(t *testing.T, h *hosttest.Host) (s string) {
	t.Helper()
	p, err := h.Deployments(t.Context(), "tally", 0, 0)
	if err != nil || p.Before != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	for i, e := range p.Deployments {
		if !e.Stored || e.Current != (i == 0) || e.Service != "tally" || time.Since(e.Time) > time.Hour {
			t.Errorf("entry %+v", e)
		}
		s += e.ModuleVersion + " "
	}
	return strings.TrimSpace(s)
}

// A newer module that wrote nothing can be rolled back, and one whose events the earlier module does not know cannot.
func TestRollback(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	first := h.MustDeploy("tally", knowing("1", "added"))
	h.MustSend(add("k"))
	h.MustDeploy("tally", knowing("2", "counted", "added"))
	if got := versions(t, h); got != "2 1" {
		t.Errorf("history %s", got)
	}
	var stages []string
	st, err := h.Rollback(t.Context(), service.Rollback{Service: "tally", Progress: func(p service.Progress) {
		stages = append(stages, p.Stage)
	}})
	if err != nil || st.Spec != first.Spec || st.State != service.StateRunning || len(stages) == 0 {
		t.Fatalf("%+v, %v, %v", st, err, stages)
	}
	if r := h.MustSend(add("k")); r.Version != 2 {
		t.Errorf("after the rollback: %+v", r)
	}
	if _, err := h.Rollback(t.Context(), service.Rollback{Service: "tally"}); err != nil {
		t.Fatal(err)
	}
	if got := versions(t, h); got != "2 1 2 1" {
		t.Errorf("history %s", got)
	}
	h.MustSend(add("k")) // an event of type counted
	for range 2 {
		_, err = h.Rollback(t.Context(), service.Rollback{Service: "tally", To: 1})
		if service.KindOf(err) != service.KindConflicting || !strings.Contains(err.Error(), `1 event of type "counted"`) {
			t.Errorf("got %v", err)
		}
		if got := versions(t, h); got != "2 1 2 1" {
			t.Errorf("history %s", got)
		}
		h.Restart()
	}
	if r := h.MustSend(add("k")); r.Version != 4 {
		t.Errorf("the refused rollback has changed something: %+v", r)
	}
	if _, err := h.Rollback(t.Context(), service.Rollback{Service: "tally", To: 77}); service.KindOf(
		err) != service.KindNotFound {
		t.Errorf("no such deployment: %v", err)
	}
	if _, err := h.Rollback(t.Context(), service.Rollback{Service: "bakery"}); service.KindOf(
		err) != service.KindNotFound {
		t.Errorf("no such service: %v", err)
	}
}

// A rollback restores limits and settings, too. A module beyond the history is removed, and can be rolled back to when
// it has been uploaded again. A stopped service starts with the earlier module.
func TestRollbackToARemovedModule(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.ModuleHistory = 1 })
	deployed, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: knowing("1", "added"),
		Limits: service.Limits{Events: 77}, Settings: service.Settings{Shards: 3}})
	if err != nil {
		t.Fatal(err)
	}
	h.MustDeploy("tally", knowing("2", "added"))
	h.MustDeploy("tally", knowing("3", "added"))
	h.MustSend(add("k"))
	gone, err := h.CollectModules(time.Now().Add(time.Hour))
	if err != nil || len(gone.Modules) != 1 || gone.Modules[0] != deployed.Spec.Module {
		t.Fatalf("collected %v, %v", gone, err)
	}
	back := service.Rollback{Service: "tally", To: 1}
	_, err = h.Rollback(t.Context(), back)
	if service.KindOf(err) != service.KindNotFound || !strings.Contains(err.Error(), "is no longer stored; upload it") {
		t.Errorf("got %v", err)
	}
	p, err := h.Deployments(t.Context(), "tally", 0, 1)
	if err != nil || len(p.Deployments) != 1 || !p.Deployments[0].Stored || p.Before != p.Deployments[0].Number {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = h.Deployments(t.Context(), "tally", p.Before, 9)
	if err != nil || len(p.Deployments) != 2 || !p.Deployments[0].Stored || p.Deployments[1].Stored || p.Before != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := h.Upload(t.Context(), knowing("1", "added"), nil); err != nil {
		t.Fatal(err)
	}
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	st, err := h.Rollback(t.Context(), back)
	if err != nil || st.Spec != deployed.Spec || st.State != service.StateRunning || len(st.Shards) != 3 {
		t.Errorf("%+v, %v", st, err)
	}
	if r := h.MustSend(add("k")); r.Version != 2 {
		t.Errorf("%+v", r)
	}
}
