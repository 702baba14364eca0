package catalog

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// shown is a history in a short form: number, first byte of the module, version, and marks.
func shown(all []service.DeploymentEntry) (s []string) {
	for _, e := range all {
		one := fmt.Sprintf("%d:%d:%s", e.Number, e.Module[0], e.ModuleVersion)
		if e.Current {
			one += "*"
		}
		if !e.Stopped.IsZero() {
			one += "!"
		}
		s = append(s, one)
	}
	return s
}

// A history has an entry for each deployment and for each start after a stop, but none for what the host learnt
// later. Pages go from the newest to the oldest.
func TestHistory(t *testing.T) {
	c, j := open(t, t.TempDir(), journaltest.NewMemory())
	defer func() { _ = j.Close(context.Background()) }()
	ctx := t.Context()
	spec := func(m byte) service.Spec {
		return service.Spec{Service: "bank", Module: service.Digest{m}}.WithDefaults()
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Deploy(ctx, spec(1), Facts{Tariff: 1}, nil))
	must(c.Started(ctx, spec(1), Facts{Tariff: 2, ModuleVersion: "one"})) // record 2
	must(c.Deploy(ctx, service.Spec{Service: "other", Module: service.Digest{9}}.WithDefaults(), Facts{}, nil))
	must(c.Deploy(ctx, spec(2), Facts{ModuleVersion: "two"}, nil))
	must(c.Delete(ctx, "bank")) // record 4
	must(c.Deploy(ctx, spec(2), Facts{ModuleVersion: "two"}, nil))
	page := func(before service.Version, limit int, more bool, want ...string) {
		t.Helper()
		got, was, err := c.History(ctx, "bank", before, limit)
		if err != nil || was != more || fmt.Sprint(shown(got)) != fmt.Sprint(want) {
			t.Errorf("before %d: %v, %t, %v, want %v, %t", before, shown(got), was, err, want, more)
		}
	}
	page(0, 10, false, "5:2:two*", "3:2:two!", "1:1:one")
	page(0, 2, true, "5:2:two*", "3:2:two!")
	page(3, 2, false, "1:1:one")
	page(1, 2, false)

	entry := func(number, want service.Version, kind service.Kind) {
		t.Helper()
		e, err := c.Entry(ctx, "bank", number)
		if e.Number != want || service.KindOf(err) != kind {
			t.Errorf("entry %d is %d, %v, want %d", number, e.Number, err, want)
		}
	}
	entry(0, 1, 0) // entry 3 is the same as the last one
	entry(3, 3, 0)
	entry(2, 0, service.KindNotFound)
	entry(99, 0, service.KindNotFound)
	must(c.Delete(ctx, "bank"))
	page(0, 1, true, "5:2:two!")
	entry(0, 1, 0)
	if _, err := c.Entry(ctx, "other", 0); service.KindOf(err) != service.KindNotFound {
		t.Errorf("one deployment only: %v", err)
	}
}

// The entry before the last one is found even if it is on a later page.
func TestEntryOnALaterPage(t *testing.T) {
	c, j := open(t, t.TempDir(), journaltest.NewMemory())
	defer func() { _ = j.Close(context.Background()) }()
	for i := range entryPage + 2 {
		m := byte(2)
		if i == 0 {
			m = 1
		}
		spec := service.Spec{Service: "bank", Module: service.Digest{m}}.WithDefaults()
		if err := c.Deploy(t.Context(), spec, Facts{}, nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(t.Context(), "bank"); err != nil {
			t.Fatal(err)
		}
	}
	if e, err := c.Entry(t.Context(), "bank", 0); err != nil || e.Number != 1 {
		t.Errorf("entry %d, %v", e.Number, err)
	}
}

func TestShortVersion(t *testing.T) {
	if got := ShortVersion("1.2.3"); got != "1.2.3" {
		t.Errorf("%q", got)
	}
	if got := ShortVersion(strings.Repeat("é", 1000) + "x"); got != strings.Repeat("é", maxVersion/2)+"…" {
		t.Errorf("%q", got)
	}
	if got := ShortVersion("x" + strings.Repeat("é", 1000)); got != "x"+strings.Repeat("é", maxVersion/2-1)+"…" {
		t.Errorf("%q", got)
	}
}

// The last modules before the present one have references, each once; a deletion ends them all.
func TestEarlierModulesHaveReferences(t *testing.T) {
	c, j := open(t, t.TempDir(), journaltest.NewMemory())
	defer func() { _ = j.Close(context.Background()) }()
	c.opt.Earlier = 2
	deploy := func(m byte) {
		t.Helper()
		spec := service.Spec{Service: "bank", Module: service.Digest{m}}.WithDefaults()
		if err := c.Deploy(t.Context(), spec, Facts{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	kept := func(want ...byte) {
		t.Helper()
		var got []byte
		for m := byte(1); m < 9; m++ {
			if _, earlier := c.references(service.Digest{m}); len(earlier) > 0 {
				got = append(got, m)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("kept %v, want %v", got, want)
		}
	}
	for _, m := range []byte{1, 2, 3} {
		deploy(m)
	}
	kept(1, 2)
	deploy(2) // as a rollback does
	kept(1, 3)
	deploy(3)
	kept(1, 2)
	deploy(4)
	kept(2, 3)
	if err := c.Delete(t.Context(), "bank"); err != nil {
		t.Fatal(err)
	}
	kept()
}
