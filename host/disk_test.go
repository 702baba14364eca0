package host_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// usage is what the host reports of the disk.
func usage(h *hosttest.Host) service.ResourceUsage {
	for _, u := range h.Resources() {
		if u.Resource == "disk_bytes" {
			return u
		}
	}
	return service.ResourceUsage{}
}

// Stored modules are listed with what refers to them. They can be deleted when nothing does, and are
// collected when they have had no reference for long. All of this also holds after restarts.
func TestModulesComeAndGo(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.ModuleHistory = 1 })
	modules := func() map[service.Digest]service.StoredModule {
		t.Helper()
		m, err := h.Modules()
		if err != nil {
			t.Fatal(err)
		}
		all := map[service.Digest]service.StoredModule{}
		sum := int64(0)
		for _, s := range m.Modules {
			all[s.Digest] = s
			sum += s.Size
		}
		if m.Bytes != sum || m.Keep != 24*time.Hour || m.Limit < 256<<20 {
			t.Errorf("the modules have %d bytes together, and it says %+v", sum, m)
		}
		return all
	}
	version := func(v string) []byte { return testguest.CounterWith(manifestOf("tally", v), nil) }
	first := h.MustDeploy("tally", version("1")).Spec.Module
	second := h.MustDeploy("tally", version("2")).Spec.Module
	third := h.MustDeploy("tally", version("3")).Spec.Module
	h.Restart()
	all := modules()
	if len(all) != 3 || fmt.Sprint(all[first].Services, all[first].Earlier, all[second].Earlier,
		all[third].Services) != "[] [] [tally] [tally]" || all[third].CodeBytes < 0 {
		t.Errorf("%+v", all)
	}
	for _, d := range []service.Digest{second, third} {
		if err := h.DeleteModule(d); service.KindOf(err) != service.KindConflicting {
			t.Errorf("deleting a module that is referred to: %v", err)
		}
	}
	if err := h.DeleteModule(first); err != nil {
		t.Error(err)
	}
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Digest: first}); service.KindOf(
		err) != service.KindNotFound {
		t.Errorf("deploying a deleted module: %v", err)
	}
	// Returning to the previous module needs no upload.
	if _, err := h.Deploy(t.Context(), service.Deployment{Service: "tally", Digest: second}); err != nil {
		t.Error(err)
	}
	other, err := h.Upload(t.Context(), testguest.Counter("other"), nil)
	if err != nil {
		t.Fatal(err)
	}
	done, err := h.CollectModules(time.Now().Add(-time.Hour))
	if err != nil || len(done.Modules) != 0 {
		t.Errorf("what is young was collected: %+v, %v", done, err)
	}
	done, err = h.CollectModules(time.Now().Add(time.Hour))
	if err != nil || len(done.Modules) != 1 || done.Modules[0] != other.Digest {
		t.Errorf("collected %+v, %v", done, err)
	}
	h.Restart()
	h.MustSend(add("a"))
	if all := modules(); len(all) != 2 {
		t.Errorf("after a restart there are %v", all)
	}
}

// All modules share a quota, and a refused module is not compiled.
func TestModulesHaveAQuota(t *testing.T) {
	t.Parallel()
	module := testguest.Counter("tally")
	h := hosttest.New(t, func(o *host.Options) { o.Budget.ModuleBytes = int64(len(module)) + 10 })
	h.MustDeploy("tally", module)
	padded := testguest.CounterWith(manifestOf("tally", "2"), nil)
	_, uploaded := h.Upload(t.Context(), padded, nil)
	_, deployed := h.Deploy(t.Context(), service.Deployment{Service: "tally", Module: padded})
	for what, err := range map[string]error{"upload": uploaded, "deploy": deployed} {
		var e *service.Error
		if !errors.As(err, &e) || e.Kind != service.KindQuota || e.Resource != "disk_bytes" ||
			e.Used != int64(len(module)) || e.Limit != int64(len(module))+10 {
			t.Errorf("%s: %v", what, err)
		}
	}
	if u := usage(h); u.Refused < 2 || u.Used < int64(len(module)) {
		t.Errorf("the host says %+v", u)
	}
	h.MustSend(add("a"))
}

// The number of modules is a separate resource.
func TestModulesAreAResource(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Budget.Modules = 1 })
	h.MustDeploy("tally", testguest.Counter("tally"))
	other := testguest.Counter("other")
	_, uploaded := h.Upload(t.Context(), other, nil)
	_, deployed := h.Deploy(t.Context(), service.Deployment{Service: "other", Module: other})
	for what, err := range map[string]error{"upload": uploaded, "deploy": deployed} {
		var e *service.Error
		if !errors.As(err, &e) || e.Kind != service.KindQuota || e.Resource != "modules" || e.Used != 1 ||
			e.Limit != 1 {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.MustDeploy("tally", testguest.Counter("tally")) // the module is stored already
	all := h.Resources()
	if last := all[len(all)-1]; last.Resource != "modules" || last.Used != 1 || last.Limit != 1 || last.Refused != 2 {
		t.Errorf("the host says %+v", last)
	}
}

// A service's quota of disk survives a restart, is shown, and is freed by a retention. The bytes of a deleted
// service's log still count.
func TestAQuotaOfDiskSurvivesARestart(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	h := hosttest.New(t, func(o *host.Options) {
		o.Journal.Clock = func() journal.UnixNano { return journal.UnixNano(now.Load()) }
		o.Journal.Codec = journal.CodecNone
	})
	const limit = 16 << 10
	d := service.Deployment{Service: "tally", Module: testguest.Counter("tally"),
		Limits: service.Limits{DiskBytes: limit}, Settings: service.Settings{Shards: 1}}
	if _, err := h.Deploy(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	send := func() error {
		c := add("a")
		c.Data = append(bytes.Repeat([]byte(" "), 999), '1')
		_, err := h.Send(t.Context(), c)
		return err
	}
	var full error
	for n := 0; full == nil && n < limit; n++ {
		full = send()
	}
	h.Restart()
	for range 2 {
		var e *service.Error
		if !errors.As(full, &e) || e.Kind != service.KindQuota || e.Service != "tally" || e.Limit != limit ||
			e.Used < limit {
			t.Fatalf("the refusal is %v", full)
		}
		full = send()
	}
	st, err := h.Status("tally")
	if err != nil || st.LogBytes < limit || st.Spec.Limits.DiskBytes != limit {
		t.Errorf("%+v, %v", st, err)
	}
	if u := usage(h); u.Used < limit || u.Refused == 0 {
		t.Errorf("the host says %+v", u)
	}
	now.Add(int64(25 * time.Hour))
	if _, err := h.Retain(t.Context(), "tally", service.Retention{Before: st.Head}); err != nil {
		t.Fatal(err)
	}
	if err := send(); err != nil {
		t.Errorf("after a retention: %v", err)
	}
	before := usage(h).Used
	if err := h.Delete(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	if u := usage(h); u.Used < before { // the host's own log has grown
		t.Errorf("with the service deleted, %d bytes count instead of %d", u.Used, before)
	}
}

// Four services that fill the disk are refused before others are: a service that has written little goes on
// while something is left.
func TestFourThatFillTheDiskLeaveSome(t *testing.T) {
	t.Parallel()
	const limit = 4 << 20
	h := hosttest.New(t, func(o *host.Options) { o.Journal.Codec, o.Budget.DiskBytes = journal.CodecNone, limit })
	h.MustDeploy("tally", testguest.Counter("tally"))
	send := func(name service.Name) error {
		_, err := h.Send(t.Context(), service.Command{Service: name, Key: "a", Type: "add",
			Data: append(bytes.Repeat([]byte(" "), 16<<10-1), '1')})
		return err
	}
	fillers := map[service.Name]bool{} // whether each is refused
	for n := range 4 {
		name := service.Name(fmt.Sprint("filler-", n))
		h.MustDeploy(name, testguest.Counter(string(name)))
		fillers[name] = false
	}
	for left, n := len(fillers), 0; left > 0; n++ {
		if n > 2*limit/(16<<10) {
			t.Fatal("nobody refuses them")
		}
		for name, full := range fillers {
			if full {
				continue
			}
			var e *service.Error
			if err := send(name); errors.As(err, &e) {
				if e.Kind != service.KindQuota || e.Resource != "disk_bytes" || e.Limit != limit || e.Used >= limit {
					t.Fatalf("%s is refused as %+v", name, e)
				}
				fillers[name], left = true, left-1
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 8 {
		if err := send("tally"); err != nil {
			t.Errorf("who has written little: %v", err)
		}
	}
	if u := usage(h); u.Used <= limit/2 || u.Used >= limit {
		t.Errorf("the host says %+v", u)
	}
}

// Without a configured limit the disk is the limit, and the host knows it from its start on.
func TestTheDiskIsTheLimit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	size, free, known, err := storage.Disk(dir)
	if err != nil || !known {
		if runtime.GOOS == "linux" {
			t.Fatal("the disk is not known: ", err)
		}
		t.Skip("the disk is not known: ", err)
	}
	h := hosttest.New(t, func(o *host.Options) { o.Dir, o.ReserveBytes = dir, free/2 })
	limit := h.Account().Limit(budget.DiskBytes)
	if limit <= 0 || limit > size-free/2 {
		t.Errorf("of a disk of %d with %d left it may have %d", size, free, limit)
	}
	h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("a"))
	h.Change(func(o *host.Options) { o.Budget.DiskBytes = 1 << 50 })
	if limit := h.Account().Limit(budget.DiskBytes); limit <= 0 || limit > size-free/2 {
		t.Errorf("with a limit above the disk it may have %d", limit)
	}
}
