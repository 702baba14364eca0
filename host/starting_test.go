package host_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// heldCompiler is the command of a compiler that waits until a file exists; the second result is the file's
// name.
func heldCompiler(t *testing.T) (command []string, release func()) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "go-on")
	script := `until test -e "$0"; do sleep 0.01; done; exec "$@"`
	return []string{"/bin/sh", "-c", script, file, self, "compile"}, func() {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// restarted is a host that was just opened on a directory with deployed counters. Their compiled code is
// gone, so that they start when release is called.
func restarted(t *testing.T, names ...service.Name) (h *host.Host, release func()) {
	before := hosttest.New(t)
	for _, name := range names {
		before.MustDeploy(name, testguest.Counter(string(name)))
		c := add("k")
		c.Service = name
		before.MustSend(c)
	}
	before.Stop()
	if err := os.RemoveAll(filepath.Join(before.Dir(), "cache")); err != nil {
		t.Fatal(err)
	}
	compiler, release := heldCompiler(t)
	o := host.Options{Dir: before.Dir(), Compiler: compiler, Logger: slog.New(slog.DiscardHandler),
		StartWait: time.Hour}
	o.Limits.CompileTime = time.Hour
	h, err := host.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h, release
}

// The host is open before any service has started. Commands and queries wait no longer than their time,
// events on disk can be read, and a stop waits for nothing.
func TestOpenDoesNotWaitForServices(t *testing.T) {
	h, release := restarted(t, "tally", "other")
	if err := h.Ready(); err != nil {
		t.Errorf("while services start: %v", err)
	}
	if states := h.States(); len(states) != 2 || states["tally"] != service.StateStarting ||
		states["other"] != service.StateStarting {
		t.Errorf("states %v", states)
	}
	st, err := h.Status("tally")
	if err != nil || st.State != service.StateStarting || st.Head != 1 || st.Manifest.Encoding != "application/json" ||
		st.Manifest.ABI != 0 {
		t.Errorf("status %+v, %v", st, err)
	}
	if events, err := h.EntityEvents(t.Context(), "tally", "k", 0, 0); err != nil || len(events) != 1 {
		t.Errorf("events of a service that starts: %d, %v", len(events), err)
	}
	ended, end := context.WithCancelCause(t.Context())
	why := errors.New("waited enough")
	end(why)
	if err := h.Started(ended); err != why {
		t.Errorf("waiting for the start: %v", err)
	}
	over, end2 := context.WithDeadline(t.Context(), time.Now())
	defer end2()
	if _, err := h.Send(over, add("k")); service.KindOf(err) != service.KindDeadline {
		t.Errorf("a command whose time was over: %v", err)
	}
	unavailable(t, "a command whose time is over while it waits", withinTime(func(wait time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		_, err := h.Send(ctx, add("k"))
		return err
	}))
	unavailable(t, "a query", withinTime(func(wait time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		_, err := h.Query(ctx, service.Query{Service: "tally", Key: "k", Type: "count"})
		return err
	}))
	unavailable(t, "a command that nobody takes back", withinTime(func(wait time.Duration) error {
		c := add("k")
		c.Deadline = time.Now().Add(wait)
		refused := make(chan error, 1)
		if err := h.SendAsync(c, func(_ service.Reply, err error) { refused <- err }); err != nil {
			return err
		}
		return <-refused
	}))
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := h.Send(gone, add("k")); service.KindOf(err) != service.KindCanceled {
		t.Errorf("a command whose sender has gone: %v", err)
	}
	m := testguest.CounterManifest("tally")
	m.Events[0].Name, m.Events[0].Aliases = "renamed", nil
	strange := testguest.CounterWith(m.AppendJSON(nil), nil)

	waiting := make(chan service.Reply, 1)
	waits := add("k")
	waits.Deadline = time.Now().Add(time.Hour)
	if err := h.SendAsync(waits, func(r service.Reply, err error) {
		if err != nil {
			t.Error(err)
		}
		waiting <- r
	}); err != nil {
		t.Fatal(err)
	}
	release()
	if r := <-waiting; r.Version != 2 {
		t.Errorf("what waited was carried out as %+v; nothing before it should have been", r)
	}
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: strange}); service.KindOf(
		err) != service.KindConflicting {
		t.Errorf("a module that does not know the events: %v", err)
	}
	if err := h.Started(t.Context()); err != nil {
		t.Error(err)
	}
}

// withinTime makes a request with a short time, and repeats it with a longer one if the time passed before
// the request could begin to wait.
func withinTime(request func(time.Duration) error) error {
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		if err := request(wait); service.KindOf(err) != service.KindDeadline {
			return err
		}
	}
}

// unavailable checks the error of a request that should be tried again.
func unavailable(t *testing.T, what string, err error) {
	t.Helper()
	e, ok := err.(*service.Error)
	if !ok || e.Kind != service.KindUnavailable || e.RetryAfter <= 0 {
		t.Errorf("%s: %v, want unavailable and when to come again", what, err)
	}
}

// A host that is stopped while services start does not wait for them. Commands that wait get an error.
func TestCloseDoesNotWaitForStarts(t *testing.T) {
	h, _ := restarted(t, "tally", "other", "third")
	told := make(chan error, 1)
	if err := h.SendAsync(add("k"), func(_ service.Reply, err error) { told <- err }); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-told; service.KindOf(err) != service.KindUnavailable {
		t.Errorf("a command that waited: %v", err)
	}
}

// A failed start is tried again without help; a deployment replaces the attempts.
func TestAFailedStartIsTriedAgain(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) {
		o.StartRetry, o.StartRetryMax = time.Millisecond, 20*time.Millisecond
	})
	for _, name := range []service.Name{"tally", "other"} {
		h.MustDeploy(name, testguest.Counter(string(name)))
	}
	h.MustSend(service.Command{Service: "other", Key: "k", Type: "add"})
	modules, err := filepath.Glob(filepath.Join(h.Dir(), "modules", "*.wasm"))
	if err != nil || len(modules) != 2 {
		t.Fatalf("modules %v, %v", modules, err)
	}
	h.Stop()
	whole := map[string][]byte{}
	for _, file := range modules {
		if whole[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.Restart()
	var st service.Status
	until(t, func() bool {
		st, err = h.Status("tally")
		return err == nil && st.Failed >= 3 && st.State == service.StateFailed
	})
	if !strings.Contains(st.Problem, "damaged") || st.NextAttempt.IsZero() ||
		h.States()["tally"] != service.StateFailed {
		t.Errorf("status %+v", st)
	}
	if _, err := h.Send(t.Context(), add("k")); service.KindOf(err) != service.KindUnavailable ||
		!strings.Contains(err.Error(), "could not be started (") || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a command gets %v", err)
	}
	if err := h.Ready(); err != nil {
		t.Errorf("a service that cannot be started makes the host unready: %v", err)
	}
	m := testguest.CounterManifest("other")
	m.Events[0].Name, m.Events[0].Aliases = "renamed", nil
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "other",
		Module: testguest.CounterWith(m.AppendJSON(nil), nil)}); service.KindOf(err) != service.KindConflicting {
		t.Errorf("a module that does not know the events of one that cannot be started: %v", err)
	}
	if st := h.MustDeploy("other", testguest.CounterWith(manifestOf("other", "2"),
		nil)); st.State != service.StateRunning || st.Attempts != (service.Attempts{}) {
		t.Errorf("deployed over the attempts: %+v", st)
	}
	for file, content := range whole {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	until(t, func() bool { return h.States()["tally"] == service.StateRunning })
	if r := h.MustSend(add("k")); r.Version != 1 {
		t.Errorf("%+v", r)
	}
	if st, err := h.Status("other"); err != nil || st.Manifest.Version != "2" {
		t.Errorf("what was replaced has come back: %+v, %v", st, err)
	}
}

// slowStart is a counter whose _initialize counts to so many millions, in each shard, as its table changes.
func slowStart(name string, millions int32) []byte {
	const n, m = 0, 1
	count := func(local uint32, to int32, body ...[]byte) []byte {
		return testguest.Code(testguest.I32Const(to), testguest.Set(local), testguest.Loop(testguest.Code(body...),
			testguest.Get(local), testguest.I32Const(1), testguest.I32Sub, testguest.Set(local), testguest.Get(local),
			testguest.BrIf(0)))
	}
	return testguest.CounterWith(manifestOf(name, "1"), func(b *testguest.Builder) {
		b.Table(1)
		b.Export(abi.ExportInitialize, wasmbin.ExternFunc,
			b.Func(nil, nil, testguest.Types(testguest.I32, testguest.I32),
				testguest.I32Const(0), testguest.Op(0xd0, 0x70), testguest.Op(0x26, 0), // table.set
				count(m, millions, count(n, 1_000_000))))
	})
}

// Of a service whose shards each start slowly, only the used shards are started.
func TestOnlyShardsThatAreUsedStart(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	const slow = 3
	d := service.Deployment{Settings: service.Settings{Shards: 64}, Limits: service.Limits{CallTime: time.Minute}}
	for i := range slow {
		d.Service = service.Name(fmt.Sprint("slow", i))
		d.Module = slowStart(string(d.Service), 20)
		if _, err := h.Deploy(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	h.Restart()
	for i := range slow {
		c := add("k")
		c.Service = service.Name(fmt.Sprint("slow", i))
		if r := h.MustSend(c); r.Version != 1 {
			t.Errorf("%+v", r)
		}
		st, err := h.Status(c.Service)
		if err != nil {
			t.Fatal(err)
		}
		running := 0
		for _, s := range st.Shards {
			if s.State == service.StateRunning {
				running++
			}
		}
		if running != 1 || len(st.Shards) != 64 {
			t.Errorf("%d of %d shards of %s run", running, len(st.Shards), c.Service)
		}
	}
}

// An unused service has no image: neither a descriptor nor a mapping.
func TestServicesWithoutUseHoldNothing(t *testing.T) { // not beside others, as it looks at the whole process
	held := func() (descriptors, mappings int) {
		const name = "bulkhead-image"
		links, err := filepath.Glob("/proc/self/fd/*")
		if err != nil || len(links) == 0 {
			if runtime.GOOS == "linux" {
				t.Fatal("no descriptors in /proc/self/fd: ", err)
			}
			t.Skip("this system does not tell what a process holds")
		}
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && strings.Contains(to, name) {
				descriptors++
			}
		}
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return descriptors, strings.Count(string(maps), name)
	}
	if d, m := held(); d+m > 0 {
		t.Fatalf("%d descriptors and %d mappings of other tests", d, m)
	}
	h := hosttest.New(t)
	const services = 20
	for i := range services {
		name := fmt.Sprint("tally", i)
		h.MustDeploy(service.Name(name), testguest.Counter(name))
	}
	nothing := func(when string) {
		t.Helper()
		if d, m := held(); d > 1 || m > 1 { // at most one for all of them
			t.Errorf("%s: %d descriptors and %d mappings", when, d, m)
		}
	}
	nothing("deployed")
	h.Restart()
	nothing("restarted")
	for i := range services {
		c := add("k")
		c.Service = service.Name(fmt.Sprint("tally", i))
		if r := h.MustSend(c); r.Version != 1 {
			t.Errorf("%+v", r)
		}
	}
	if d, _ := held(); d > services {
		t.Errorf("%d services hold %d descriptors", services, d)
	}
	h.Stop()
	nothing("stopped")
}

// Stored modules are read, at a deployment or a start, only when they must be compiled, and then within the
// bytes in flight. A module that runs already is not read.
func TestStoredModulesAreReadWithinTheBudget(t *testing.T) {
	h, release := restarted(t, "tally", "other")
	module := testguest.Counter("tally")
	flight := func() int64 { return h.Account().Used(budget.FlightBytes) }
	until(t, func() bool { return flight() > 0 })
	if bound := int64(len(module) + len(testguest.Counter("other"))); flight() > bound {
		t.Errorf("%d bytes of modules with %d are in flight", flight(), bound)
	}
	d := service.Deployment{Service: "tally", Digest: service.DigestOf(module), Settings: service.Settings{Shards: 3}}
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "none",
		Digest: service.DigestOf(nil)}); service.KindOf(err) != service.KindNotFound {
		t.Errorf("a module that is not stored: %v", err)
	}
	if _, err := h.Status("none"); service.KindOf(err) != service.KindNotFound {
		t.Errorf("the service that was not deployed: %v", err)
	}
	release()
	st, err := h.Deploy(t.Context(), d)
	if err != nil || st.State != service.StateRunning {
		t.Fatalf("%+v, %v", st, err)
	}
	until(t, func() bool { return h.States()["other"] == service.StateRunning })
	if n := flight(); n != 0 {
		t.Errorf("%d bytes were not given back", n)
	}
}

// A deployment of what runs already does not read the module.
func TestWhatRunsIsNotRead(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	st := h.MustDeploy("tally", testguest.Counter("tally"))
	modules, err := filepath.Glob(filepath.Join(h.Dir(), "modules", "*.wasm"))
	if err != nil || len(modules) != 1 {
		t.Fatalf("modules %v, %v", modules, err)
	}
	if err := os.Rename(modules[0], modules[0]+".away"); err != nil {
		t.Fatal(err)
	}
	if again, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Digest: st.Spec.Module,
		Settings: st.Spec.Settings}); err != nil || again.Since != st.Since {
		t.Errorf("what runs already: %+v, %v", again, err)
	}
	if err := os.Rename(modules[0]+".away", modules[0]); err != nil {
		t.Fatal(err)
	}
}
