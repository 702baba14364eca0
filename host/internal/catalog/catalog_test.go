package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

func open(t *testing.T, dir string, disk *journaltest.Memory) (*Catalog, *commitlog.Journal) {
	t.Helper()
	j, err := commitlog.Open(t.Context(), disk.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := OpenModules(dir, ModuleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), m, j)
	if err != nil {
		t.Fatal(err)
	}
	return c, j
}

func names(c *Catalog) string {
	var all []string
	for _, s := range c.Specs() {
		all = append(all, string(s.Service)+"@"+s.Module.String()[7:9])
	}
	return strings.Join(all, " ")
}

func TestDeploymentsAreTheFoldOfTheirEvents(t *testing.T) {
	dir, disk := t.TempDir(), journaltest.NewMemory()
	c, j := open(t, dir, disk)
	deploy := func(name service.Name, first byte) {
		if err := c.Deploy(t.Context(), service.Spec{Service: name, Module: service.Digest{first}}.WithDefaults(),
			Facts{Tariff: int(first)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	deploy("bank", 1)
	deploy("orders", 2)
	deploy("bank", 3)
	if err := c.Delete(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	deploy("counter", 4)
	for range 2 {
		if got := names(c); got != "bank@03 counter@04" {
			t.Errorf("deployed are %s", got)
		}
		if rest := c.Stopped(); len(rest) != 1 || rest[0].Spec.Service != "orders" || rest[0].Facts.Tariff != 2 {
			t.Errorf("stopped are %+v", rest)
		}
		if err := j.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		disk = disk.CrashClone(0)
		c, j = open(t, dir, disk)
	}
	tariffs := ""
	err := j.Read(t.Context(), Log, 0, 0, func(e *journal.Event) error {
		var d struct{ Tariff int }
		err := json.Unmarshal(e.Data, &d)
		tariffs += fmt.Sprint(d.Tariff, " ")
		return err
	})
	if err != nil || tariffs != "1 2 3 0 4 " {
		t.Errorf("the deployments were recorded with tariffs %s, %v", tariffs, err)
	}
	if got := j.Head(Log); got != 5 {
		t.Errorf("%d events tell of 5 deployments", got)
	}
	deploy("orders", 5) // continues at the version where it was deleted
	if err := j.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// A service that starts under another tariff is recorded again, once.
func TestATariffIsRecordedWhenItChanges(t *testing.T) {
	dir, disk := t.TempDir(), journaltest.NewMemory()
	c, j := open(t, dir, disk)
	bank := service.Spec{Service: "bank", Module: service.Digest{1}}.WithDefaults()
	if err := c.Deploy(t.Context(), bank, Facts{Tariff: 1}, nil); err != nil {
		t.Fatal(err)
	}
	replaced := bank
	replaced.Module = service.Digest{2}
	for range 2 {
		for _, start := range []struct {
			spec   service.Spec
			tariff int
		}{{bank, 1}, {bank, 2}, {bank, 2}, {replaced, 3}, {service.Spec{Service: "orders"}, 2}} {
			if j.Head(Log) > 1 && start.tariff == 1 {
				continue // an older program
			}
			if err := c.Started(t.Context(), start.spec, Facts{Tariff: start.tariff}); err != nil {
				t.Fatal(err)
			}
		}
		if got := j.Head(Log); got != 2 || names(c) != "bank@01" {
			t.Errorf("%d events tell of a deployment under two tariffs; deployed are %s", got, names(c))
		}
		if err := j.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		disk = disk.CrashClone(0)
		c, j = open(t, dir, disk)
	}
	if err := j.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestFactsAreKept(t *testing.T) {
	disk := journaltest.NewMemory()
	c, j := open(t, t.TempDir(), disk)
	want := Facts{Tariff: 2, Start: 3 * time.Second, Encoding: "text/plain", StateSchema: 7, KeptFrom: 5}
	if err := c.Deploy(t.Context(), service.Spec{Service: "bank"}.WithDefaults(), want, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if all := c.Deployments(); len(all) != 1 || !reflect.DeepEqual(all[0].Facts, want) ||
			all[0].Spec.Service != "bank" {
			t.Errorf("got %+v, want the facts %+v", all, want)
		}
		if err := j.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		disk = disk.CrashClone(0)
		c, j = open(t, t.TempDir(), disk)
	}
	// Facts that an earlier version did not record are recorded after the start.
	bank := service.Spec{Service: "bank", Module: service.Digest{2}}.WithDefaults()
	if err := c.Deploy(t.Context(), bank, Facts{Tariff: 2}, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Started(t.Context(), bank, want); err != nil {
			t.Fatal(err)
		}
	}
	if all := c.Deployments(); !reflect.DeepEqual(all[0].Facts, want) || j.Head(Log) != 3 {
		t.Errorf("after the start: %+v, with %d events", all, j.Head(Log))
	}
	if err := j.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestADeploymentThatIsNotOnDiskDoesNotCount(t *testing.T) {
	disk := journaltest.NewMemory()
	c, j := open(t, t.TempDir(), disk)
	disk.FailAt(1)
	err := c.Deploy(t.Context(), service.Spec{Service: "bank"}.WithDefaults(), Facts{Tariff: 1}, nil)
	if k := service.KindOf(err); k != service.KindUnknown && k != service.KindUnavailable {
		t.Errorf("deploying on a broken disk: %v", err)
	}
	if got := names(c); got != "" {
		t.Errorf("deployed are %s", got)
	}
	_ = j.Close(context.Background())
}

func TestModuleFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "modules")
	c, j := open(t, dir, journaltest.NewMemory())
	defer func() {
		if err := j.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	d, err := c.Put([]byte("module"))
	if err != nil || d != service.DigestOf([]byte("module")) {
		t.Fatalf("put: %v, %v", d, err)
	}
	if again, err := c.Put([]byte("module")); err != nil || again != d {
		t.Errorf("put again: %v, %v", again, err)
	}
	if got, err := c.Get(d); err != nil || string(got) != "module" {
		t.Errorf("get: %q, %v", got, err)
	}
	if _, err := c.Get(service.Digest{}); service.KindOf(err) != service.KindNotFound {
		t.Errorf("a module that was never stored: %v", err)
	}
	if all, err := c.List(); err != nil || len(all) != 1 || all[0] != d {
		t.Errorf("list: %v, %v", all, err)
	}
	// A damaged file is not served, and an upload replaces it.
	if err := os.WriteFile(c.path(d), []byte("modulo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(d); service.KindOf(err) != service.KindUnavailable || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged module: %v", err)
	}
	if _, err := c.Check(d); service.KindOf(err) != service.KindUnavailable ||
		!strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged module that is checked: %v", err)
	}
	if _, err := c.Check(service.DigestOf([]byte("nowhere"))); service.KindOf(err) != service.KindNotFound {
		t.Errorf("a module that is not there is checked: %v", err)
	}
	if _, err := c.Put([]byte("module")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(d); err != nil {
		t.Errorf("a mended module: %v", err)
	}
	// Opening removes partly written files, which are never listed.
	half := filepath.Join(dir, "abc.wasm.123.unfinished")
	if err := os.WriteFile(half, []byte("mod"), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, _ := c.List(); len(all) != 1 {
		t.Errorf("a half-written module is listed: %v", all)
	}
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("a half-written module is still there: %v", err)
	}
}
