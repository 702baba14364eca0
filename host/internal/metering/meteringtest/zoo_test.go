package meteringtest

import (
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// A module with everything computes the same when it is rewritten, for the same fuel on both engines,
// and the reason why it cannot be imaged is given.
func TestZoo(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	a := newArena(t)
	module := zoo()
	m, err := wasmbin.Parse(module, wasmbin.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	for arg := range uint64(8) {
		for _, keep := range []bool{true, false} {
			rewritten, err := metering.Rewrite(m, metering.Options{KeepNaN: keep})
			if err != nil {
				t.Fatal(err)
			}
			if rewritten.Imageable || !strings.Contains(rewritten.Why, "data segments") || !rewritten.Setup ||
				len(rewritten.Globals) != 2 {
				t.Errorf("imageable %v (%s), setup %v, globals %v", rewritten.Imageable, rewritten.Why, rewritten.Setup,
					rewritten.Globals)
			}
			tr := a.trace(a.metered[Compiler], m, rewritten, arg)
			if tr.start != "" || len(tr.calls) != 7 {
				t.Fatalf("start %q, %d calls", tr.start, len(tr.calls))
			}
			for i, c := range tr.calls {
				if c.trap != "" && i != 3 && i != 4 { // memory.init after data.drop; an indirect call of another type
					t.Errorf("call %d: %v", i, c)
				}
			}
			a.compare(t, m, rewritten, keep, arg)
		}
	}
}
