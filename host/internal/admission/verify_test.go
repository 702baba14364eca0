package admission

import (
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func TestReservedNames(t *testing.T) {
	for name, want := range map[string]bool{
		"bulkhead_v1_more": true, "bulkhead_": true, "bulkhead_fuel": true, "bulkhead_v_call": true,
		"bulkhead_v02_call": true, "bulkhead_v2": true,
		"bulkhead.fuel": true, "bulkhead_v+2_call": true, "bulkhead_vv2_call": true,
		"bulkhead_v2_call": false, "bulkhead_v10_reserve": false, "bulkhead": false, "memory": false,
		"_initialize": false,
	} {
		if reserved(name) != want {
			t.Errorf("reserved(%q) is %v", name, !want)
		}
	}
}

// An inspection has problems exactly for the modules that Verify refuses.
func TestInspectAgreesWithVerify(t *testing.T) {
	o := metering.Options{TableMax: 100_000, MaxBytes: 64 << 20}
	l := service.DefaultLimits()
	refused := 0
	for _, c := range testguest.Statically() {
		_, err := Verify(c.Module, l)
		if err == nil {
			continue // only a compiler finds this
		}
		refused++
		if i := Inspect(c.Module, l, o); len(i.Problems) == 0 {
			t.Errorf("%s: no problem found, and it is refused: %v", c.Name, err)
		}
	}
	if refused < 20 {
		t.Errorf("only %d modules are refused", refused)
	}
	module := testguest.Counter("c")
	m, err := Verify(module, l)
	i := Inspect(module, l, o)
	if err != nil || len(i.Problems) > 0 || m == nil || i.Functions.Count != len(m.Bodies) || i.Metering == nil {
		t.Errorf("%v; %+v", err, i)
	}
	for _, x := range i.Imports {
		if !x.Offered {
			t.Errorf("%s.%s is said not to be offered", x.Module, x.Name)
		}
	}
}

// A refusal with very many violations is cut, and says so.
func TestManyViolations(t *testing.T) {
	var v Violations
	if v.Err() != nil {
		t.Error("a module without violations is refused")
	}
	for range MaxReasons + 3 {
		v.Add("no %s", abi.ExportCall)
	}
	if e := v.Err().(*service.Error); e.Kind != service.KindBadModule || len(e.Reasons) != MaxReasons+1 ||
		!strings.Contains(e.Reasons[MaxReasons], "3 more") {
		t.Errorf("%+v", e)
	}
}
