package host_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// wantQuota checks that err refuses a resource, and that it has its limit.
func wantQuota(t *testing.T, err error, r budget.Resource, limit int64) {
	t.Helper()
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindQuota || e.Resource != r.String() || e.Limit != limit ||
		e.Used > limit || e.Used == 0 {
		t.Errorf("want the refusal of %v, got %+v", r, err)
	}
}

// counters deploys limit counters with so many shards, or until one is refused. It returns the number of deployed
// ones, and the refusal.
func counters(t *testing.T, h *hosttest.Host, limit, shards int) (n int, refused error) {
	t.Helper()
	for ; n < limit; n++ {
		name := service.Name(fmt.Sprint("many-", n))
		_, err := h.Deploy(t.Context(), service.Deployment{Service: name, Module: testguest.Counter(string(name)),
			Settings: service.Settings{Shards: shards}})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// However many sandboxes deployments ask for, they are refused by name from some number on. Existing services
// go on, and what one gives back another may take.
func TestDeploymentsBeyondTheSandboxes(t *testing.T) {
	t.Parallel()
	const limit = 64
	h := hosttest.New(t, func(o *host.Options) { o.Budget.Sandboxes = limit })
	h.MustDeploy("tally", testguest.Counter("tally")) // two shards
	n, err := counters(t, h, 24, 16)
	if n != 2 { // the third would hold more than would be left
		t.Fatalf("%d services of 16 shards are there: %v", n, err)
	}
	wantQuota(t, err, budget.Sandboxes, limit)
	if got := h.Account().Used(budget.Sandboxes); got != 2+2*16 {
		t.Errorf("%d sandboxes are taken", got)
	}
	if len(h.Services()) != 3 {
		t.Errorf("there are %d services", len(h.Services()))
	}
	// A deployment that does not fit leaves the running service unchanged.
	before, err := h.Status("tally")
	if err != nil {
		t.Fatal(err)
	}
	if r := h.MustSend(add("a")); r.Version != 1 {
		t.Errorf("%+v", r)
	}
	// what it replaces counts as free
	_, err = h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: testguest.Counter("tally"),
		Settings: service.Settings{Shards: 17}})
	wantQuota(t, err, budget.Sandboxes, limit)
	after, err := h.Status("tally")
	if err != nil || after.State != service.StateRunning || after.Spec != before.Spec || after.Since != before.Since {
		t.Errorf("the service was %+v and is %+v, %v", before, after, err)
	}
	if r := h.MustSend(add("a")); r.Version != 2 {
		t.Errorf("%+v", r)
	}
	// A small service still gets something.
	h.MustDeploy("small", testguest.Counter("small"))
	if err := h.Delete(t.Context(), "many-0"); err != nil {
		t.Fatal(err)
	}
	if _, err = h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: testguest.Counter("tally"),
		Settings: service.Settings{Shards: 12}}); err != nil {
		t.Errorf("after another service has gone: %v", err)
	}
	h.Restart()
	if r := h.MustSend(add("a")); r.Version != 3 {
		t.Errorf("after a restart: %+v", r)
	}
}

// The memory of all services together is bounded, and each reports what it holds.
func TestServicesBeyondTheMemory(t *testing.T) {
	t.Parallel()
	const limit = 64 << 20
	h := hosttest.New(t, func(o *host.Options) { o.Budget.SandboxBytes = limit })
	h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("a"))
	st, err := h.Status("tally")
	if err != nil {
		t.Fatal(err)
	}
	var linear int64
	for _, s := range st.Shards {
		linear += s.MemoryBytes
	}
	if st.CodeBytes == 0 || st.ImageBytes == 0 || linear == 0 || st.SandboxBytes < st.CodeBytes+st.ImageBytes+linear ||
		st.SandboxBytes > h.Account().Used(budget.SandboxBytes) {
		t.Errorf("the service holds %d bytes with an image of %d and memories of %d", st.SandboxBytes, st.ImageBytes,
			linear)
	}
	n := 0
	for err = nil; err == nil && n < 100; n++ { // each takes memory at its first use
		if _, err = counters(t, h, n+1, 2); err != nil {
			break
		}
		for key := range 4 {
			if _, e := h.Send(t.Context(), service.Command{Service: service.Name(fmt.Sprint("many-", n)),
				Key: service.Key(fmt.Sprint(key)), Type: "add"}); e != nil {
				err = e
			}
		}
	}
	wantQuota(t, err, budget.SandboxBytes, limit)
	// A guest that grows without end is refused only what is not there, and no other guest is affected.
	_, err = h.Send(t.Context(), service.Command{Service: "many-0", Key: "a", Type: "grow"})
	wantQuota(t, err, budget.SandboxBytes, limit)
	if r := h.MustSend(add("a")); r.Version != 2 {
		t.Errorf("%+v", r)
	}
	if _, err := h.Send(t.Context(), service.Command{Service: "many-0", Key: "a", Type: "add"}); err != nil {
		t.Errorf("the guest that wanted too much: %v", err)
	}
	for k := range n {
		if err := h.Delete(t.Context(), service.Name(fmt.Sprint("many-", k))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Send(t.Context(), service.Command{Service: "tally", Key: "a", Type: "grow"}); service.KindOf(
		err) != service.KindQuota && service.KindOf(err) != service.KindGuestMemory {
		t.Error(err)
	}
	h.MustSend(add("b"))
}

// No deployment exceeds the ceiling, whatever it asks for and whenever it was made.
func TestNoServiceIsAboveTheCeilings(t *testing.T) {
	t.Parallel()
	ceiling := service.Ceiling{Limits: service.Limits{MemoryBytes: 8 << 20, Fuel: 10_000_000}, Shards: 4}
	h := hosttest.New(t, func(o *host.Options) { o.Ceiling = ceiling })
	st := h.MustDeploy("tally", testguest.Counter("tally"))
	if l := st.Spec.Limits; l.MemoryBytes != 8<<20 || l.Fuel != 10_000_000 ||
		l.Events != service.DefaultLimits().Events {
		t.Errorf("a service that sets no limits has %+v", l)
	}
	_, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: testguest.Counter("tally"),
		Limits:   service.Limits{MemoryBytes: 4 << 30, Fuel: 10_000_000, CallTime: time.Hour},
		Settings: service.Settings{Shards: 1024}})
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindInvalid || !slices.Equal(e.Reasons, []string{
		"memory_bytes is 4294967296; this host allows 8388608", "shards is 1024; this host allows 4"}) {
		t.Errorf("above the ceilings: %+v", err)
	}
	if now, err := h.Status("tally"); err != nil || now.State != service.StateRunning || now.Spec != st.Spec {
		t.Errorf("the service is %+v, %v", now, err)
	}
	h.MustSend(add("a"))
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "wide", Module: testguest.Counter("wide"),
		Settings: service.Settings{Shards: 4}}); err != nil {
		t.Fatal(err)
	}

	// A service that was deployed under a higher ceiling does not start, and says why.
	h.Change(func(o *host.Options) { o.Ceiling.Shards = 3 })
	if st, err := h.Status("wide"); err != nil || st.State != service.StateFailed ||
		!strings.Contains(st.Problem, "ceilings") || !strings.Contains(st.Problem, "shards is 4; this host allows 3") {
		t.Errorf("a service above a ceiling that was lowered: %+v, %v", st, err)
	}
	if r := h.MustSend(add("a")); r.Version != 2 {
		t.Errorf("the other service: %+v", r)
	}
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "wide", Module: testguest.Counter("wide"),
		Settings: service.Settings{Shards: 3}}); err != nil {
		t.Errorf("deployed again within it: %v", err)
	}

	_, err = host.Open(t.Context(), host.Options{Dir: t.TempDir(), Limits: service.Limits{MemoryBytes: 64 << 20},
		Ceiling: ceiling})
	if service.KindOf(err) != service.KindInvalid {
		t.Errorf("a default above its ceiling: %v", err)
	}
}

// A service that was deployed when connections could carry more does not start, and says why.
func TestNoServiceIsAboveWhatAConnectionCarries(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: testguest.Counter("tally"),
		Limits: service.Limits{CommandBytes: 4 << 20}}); err != nil {
		t.Fatal(err)
	}
	h.Change(func(o *host.Options) { o.Budget.ConnectionBytes = 5 << 20 })
	if st, err := h.Status("tally"); err != nil || st.State != service.StateFailed ||
		!strings.Contains(st.Problem, "command_bytes is 4194304; with 5242880 bytes for one connection") {
		t.Errorf("a service with commands that no connection carries: %+v, %v", st, err)
	}
}

// Services that ran together start together in any order, even if the last one would be too large for a new
// service. A service that holds much can be deployed again.
func TestWhatRanStartsAgain(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Budget.Sandboxes = 64 })
	deploy := func(name service.Name, shards int) error {
		_, err := h.Deploy(t.Context(),
			service.Deployment{Service: name, Module: testguest.CounterWith(manifestOf(string(name), "1"), nil),
				Settings: service.Settings{Shards: shards}})
		return err
	}
	names := []service.Name{"a", "b", "c"}
	for _, name := range names {
		if err := deploy(name, 16); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "c",
		Module: testguest.CounterWith(manifestOf("c", "2"), nil), Settings: service.Settings{Shards: 16}}); err != nil {
		t.Errorf("deployed again: %v", err)
	}
	h.Change(func(o *host.Options) { o.Budget.Sandboxes = 60 })
	for _, name := range names {
		if st, err := h.Status(name); err != nil || st.State != service.StateRunning {
			t.Errorf("%s: %s, %s, %v", name, st.State, st.Problem, err)
		}
	}
	if err := deploy("new", 7); service.KindOf(err) != service.KindQuota {
		t.Errorf("a new one: %v", err)
	}
	if err := deploy("new", 6); err != nil {
		t.Errorf("a new one that leaves others as much: %v", err)
	}
}
