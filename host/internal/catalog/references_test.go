package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stored puts a module and sets its age.
func stored(t *testing.T, m *Modules, content string, age time.Duration) service.Digest {
	t.Helper()
	d, err := m.Put([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	aged(t, m, d, age)
	return d
}

func aged(t *testing.T, m *Modules, d service.Digest, age time.Duration) {
	t.Helper()
	then := time.Now().Add(-age)
	if err := os.Chtimes(m.path(d), then, then); err != nil {
		t.Fatal(err)
	}
}

const day = 24 * time.Hour

// The module that a service runs, and the one it ran before, stay however old they are. A module
// without references is collected a day after it lost the last one.
func TestModulesWithoutAReferenceAreCollected(t *testing.T) {
	dir, disk := t.TempDir(), journaltest.NewMemory()
	c, j := open(t, dir, disk)
	deploy := func(name service.Name, d service.Digest) {
		t.Helper()
		if err := c.Deploy(t.Context(), service.Spec{Service: name, Module: d}.WithDefaults(),
			Facts{Tariff: 1}, nil); err != nil {
			t.Fatal(err)
		}
	}
	first, second, third := stored(t, c.Modules, "first", 9*day), stored(t, c.Modules, "second", 9*day),
		stored(t, c.Modules, "third", 9*day)
	unused, young := stored(t, c.Modules, "unused", 2*day), stored(t, c.Modules, "young", time.Hour)
	deploy("bank", first)
	deploy("bank", second)
	deploy("orders", second)
	deploy("bank", third) // the first has lost its last reference just now

	// All this is known after a restart, too.
	if err := j.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	c, j = open(t, dir, disk.CrashClone(0))
	defer func() { _ = j.Close(context.Background()) }()
	use, err := c.ModuleUse()
	if err != nil {
		t.Fatal(err)
	}
	got := map[service.Digest]string{}
	for _, m := range use {
		got[m.Digest] = fmt.Sprint(m.Services, m.Earlier, m.Size)
	}
	for d, want := range map[service.Digest]string{first: "[] [] 5", second: "[orders] [bank] 6", third: "[bank] [] 5",
		unused: "[] [] 6", young: "[] [] 5"} {
		if got[d] != want {
			t.Errorf("%s has %s, want %s", d, got[d], want)
		}
	}
	collect := func(before time.Time, want ...service.Digest) {
		t.Helper()
		gone, err := c.Collect(before)
		if err != nil || fmt.Sprint(gone) != fmt.Sprint(want) {
			t.Errorf("collected %v, want %v: %v", gone, want, err)
		}
		for _, d := range want {
			if _, err := c.Get(d); service.KindOf(err) != service.KindNotFound {
				t.Errorf("%s is there after it was collected: %v", d, err)
			}
		}
	}
	collect(time.Now().Add(-day), unused)
	aged(t, c.Modules, first, 2*day)
	if _, err := c.Put([]byte("first")); err != nil { // renews its time
		t.Fatal(err)
	}
	collect(time.Now().Add(-day))

	for d, names := range map[service.Digest]string{second: "service orders runs it; service bank ran it before",
		third: "service bank runs it"} {
		err := c.DeleteModule(d, nil)
		if service.KindOf(err) != service.KindConflicting || !strings.Contains(err.Error(), names) {
			t.Errorf("deleting what is referred to: %v", err)
		}
	}
	if err := c.DeleteModule(young, nil); err != nil {
		t.Errorf("deleting what nothing refers to: %v", err)
	}
	if err := c.DeleteModule(young, nil); service.KindOf(err) != service.KindNotFound {
		t.Errorf("deleting it again: %v", err)
	}
	if err := c.DeleteModule(service.Digest{}, nil); service.KindOf(err) != service.KindNotFound {
		t.Errorf("deleting what never was: %v", err)
	}
	// A deleted service refers to nothing. The time of its modules is renewed then.
	if err := c.Delete(t.Context(), "bank"); err != nil {
		t.Fatal(err)
	}
	collect(time.Now().Add(-day))
	aged(t, c.Modules, third, 2*day)
	aged(t, c.Modules, second, 2*day) // orders runs it
	collect(time.Now().Add(-day), third)
}

// A module is kept while a deployment of it, or a reader of all modules, holds it.
func TestHeldModulesStay(t *testing.T) {
	c, j := open(t, t.TempDir(), journaltest.NewMemory())
	defer func() { _ = j.Close(context.Background()) }()
	d := stored(t, c.Modules, "module", 2*day)
	for name, hold := range map[string]func() func(){"one": func() func() { return c.Hold(d) }, "all": c.HoldAll} {
		release := hold()
		again := hold()
		again()
		again()
		if gone, err := c.Collect(time.Now()); err != nil || len(gone) != 0 {
			t.Errorf("%s: collected %v, %v", name, gone, err)
		}
		if err := c.DeleteModule(d, nil); service.KindOf(err) != service.KindConflicting {
			t.Errorf("%s: deleted: %v", name, err)
		}
		release()
	}
	if err := c.DeleteModule(d, nil); err != nil {
		t.Error(err)
	}
}

// Deployments by digest and collections run at the same time: what is deployed exists.
func TestDeployingWhileModulesAreCollected(t *testing.T) {
	c, j := open(t, t.TempDir(), journaltest.NewMemory())
	defer func() { _ = j.Close(context.Background()) }()
	var digests []service.Digest
	for i := range 20 {
		digests = append(digests, stored(t, c.Modules, fmt.Sprint("module ", i), 2*day))
	}
	var all sync.WaitGroup
	for worker := range 4 {
		name := service.Name(fmt.Sprint("service", worker))
		all.Go(func() {
			for _, d := range digests[worker*5:][:5] {
				release := c.Hold(d)
				if _, err := c.Get(d); err == nil {
					if err := c.Deploy(t.Context(), service.Spec{Service: name, Module: d}.WithDefaults(),
						Facts{Tariff: 1}, nil); err != nil {
						t.Error(err)
					}
				} else if service.KindOf(err) != service.KindNotFound {
					t.Error(err)
				}
				release()
			}
		})
	}
	for range 20 {
		if _, err := c.Collect(time.Now()); err != nil {
			t.Error(err)
		}
	}
	all.Wait()
	for _, spec := range c.Specs() {
		if _, err := c.Get(spec.Module); err != nil {
			t.Errorf("what %s runs: %v", spec.Service, err)
		}
	}
}

// Modules have a quota and leave the journal's room alone, also when that shrinks while they are
// written. A refused module leaves nothing, and is not counted.
func TestModulesAreBounded(t *testing.T) {
	host := budget.New(nil)
	room := func(int64) error { return nil }
	dir := t.TempDir()
	reopen := func() *Modules {
		m, err := OpenModules(dir, ModuleOptions{Account: host.Child("modules",
			budget.Limits{budget.DiskBytes: 10 << 20}), Room: func(n int64) error { return room(n) }})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := reopen()
	big := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, 4<<20) }
	for n := range 2 {
		if _, err := m.Put(big(n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Put(big(1)); err != nil || host.Used(budget.DiskBytes) != 8<<20 {
		t.Errorf("the same again: %v; %d bytes are counted", err, host.Used(budget.DiskBytes))
	}
	refused := func(what string, err error) {
		t.Helper()
		var e *service.Error
		if !errors.As(err, &e) || e.Kind != service.KindQuota || e.Resource != "disk_bytes" ||
			!strings.Contains(e.Message, "modules that nothing refers to can be deleted") {
			t.Errorf("%s: %v", what, err)
		}
		files, _ := os.ReadDir(dir)
		if len(files) != 2 || host.Used(budget.DiskBytes) != 8<<20 {
			t.Errorf("%s: %d files are there, %d bytes are counted", what, len(files), host.Used(budget.DiskBytes))
		}
	}
	_, err := m.Put(big(2))
	refused("beyond the quota", err)
	refused("asked before", m.MayPut(service.Digest{9}, 4<<20))
	m.opt.Account.SetLimit(budget.DiskBytes, 0)
	full := &service.Error{Kind: service.KindQuota, Resource: "disk_bytes", Message: "no room"}
	for fail := range 4 {
		n := 0
		room = func(int64) error {
			if n++; n > fail {
				return full
			}
			return nil
		}
		_, err := m.Put(big(2))
		refused(fmt.Sprint("no room from look ", fail), err)
	}
	room = func(int64) error { return nil }
	m.opt.Account.Close()
	if m = reopen(); host.Used(budget.DiskBytes) != 8<<20 {
		t.Errorf("after a restart %d bytes are counted", host.Used(budget.DiskBytes))
	}
	if removed, err := m.remove(service.DigestOf(big(0)), time.Now().Add(time.Minute), nil); err != nil || !removed ||
		host.Used(budget.DiskBytes) != 4<<20 {
		t.Errorf("removed: %v, %v; %d bytes are counted", removed, err, host.Used(budget.DiskBytes))
	}
	// A damaged file counts with its own size, and only once after it is replaced.
	if err := os.WriteFile(m.path(service.DigestOf(big(1))), []byte("cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.opt.Account.Set(budget.DiskBytes, 3)
	if _, err := m.Put(big(1)); err != nil || host.Used(budget.DiskBytes) != 4<<20 {
		t.Errorf("mended: %v; %d bytes are counted", err, host.Used(budget.DiskBytes))
	}
}

// The number of modules is bounded, too. Refused, removed and replaced modules are counted
// correctly.
func TestModulesAreCounted(t *testing.T) {
	dir := t.TempDir()
	reopen := func() *Modules {
		t.Helper()
		m, err := OpenModules(dir, ModuleOptions{Count: 2})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := reopen()
	first, second := stored(t, m, "first", 0), stored(t, m, "second", 0)
	stored(t, m, "second", 0) // again
	for range 2 {
		_, put := m.Put([]byte("third"))
		for what, err := range map[string]error{"put": put, "asked before": m.MayPut(service.Digest{9}, 5)} {
			var e *service.Error
			if !errors.As(err, &e) || e.Kind != service.KindQuota || e.Resource != "modules" || e.Used != 2 ||
				e.Limit != 2 {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := m.MayPut(first, 5); err != nil {
			t.Errorf("one that is there: %v", err)
		}
		m = reopen()
	}
	if err := os.WriteFile(m.path(second), []byte("cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	stored(t, m, "second", 0) // replaced
	if removed, err := m.remove(first, time.Now().Add(time.Minute), nil); err != nil || !removed {
		t.Fatal(removed, err)
	}
	stored(t, m, "third", 0)
	if u := m.Usage(); u.Resource != "modules" || u.Used != 2 || u.Limit != 2 || u.Refused != 0 {
		t.Errorf("it says %+v", u)
	}
	if _, err := m.Put([]byte("first")); service.KindOf(err) != service.KindQuota {
		t.Errorf("a third one: %v", err)
	}
}

// A deployment that begins while a module is deleted waits until the deletion is complete, so that
// nothing that the deployment makes is deleted with it.
func TestNobodyHoldsAModuleThatIsBeingDeleted(t *testing.T) {
	c, j := open(t, t.TempDir(), journaltest.NewMemory())
	defer func() { _ = j.Close(context.Background()) }()
	d := stored(t, c.Modules, "module", 0)
	begun, gone := make(chan struct{}), make(chan struct{})
	held := make(chan bool)
	go func() {
		<-begun
		defer c.Hold(d)()
		select {
		case <-gone:
			held <- c.Keeps(d)
		default:
			held <- false
		}
	}()
	err := c.DeleteModule(d, func(which service.Digest) error {
		if which != d {
			t.Errorf("what is removed beside it is of %s", which)
		}
		close(begun)
		for range 1000 {
			runtime.Gosched() // time in which the hold could succeed
		}
		close(gone)
		return nil
	})
	if !<-held || err != nil {
		t.Errorf("it was held before all of it was gone: %v", err)
	}
	failed := errors.New("failed")
	stored(t, c.Modules, "module", 0)
	if err := c.DeleteModule(d, func(service.Digest) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("what could not be removed beside it: %v", err)
	}
}
