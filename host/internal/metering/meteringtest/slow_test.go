package meteringtest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

var (
	seed  = flag.Uint64("seed", 1, "of the random modules")
	count = flag.Int("modules", 200, "how many random modules to hold against the slow interpreter")
)

// arena runs one module in all engines and forms.
type arena struct {
	original wazero.Runtime
	metered  map[Engine]wazero.Runtime
}

func newArena(tb testing.TB) *arena {
	tb.Helper()
	ctx := context.Background()
	start := func(e Engine) wazero.Runtime {
		r, err := NewRuntime(ctx, e)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { r.Close(ctx) })
		return r
	}
	a := &arena{original: start(Compiler), metered: map[Engine]wazero.Runtime{}}
	for _, e := range Engines {
		a.metered[e] = start(e)
	}
	return a
}

// outcome is the result of a call.
type outcome struct {
	results []uint64
	trap    string
	memory  []byte
	charged int64
}

func (o outcome) same(p outcome) bool {
	return slices.Equal(o.results, p.results) && o.trap == p.trap && bytes.Equal(o.memory, p.memory)
}

func (o outcome) String() string {
	return fmt.Sprintf("%x, trap %q, %d bytes of memory, charged %d", o.results, o.trap, len(o.memory), o.charged)
}

// run calls "run" of an instance.
func run(ctx context.Context, m api.Module, args ...uint64) (o outcome) {
	results, err := m.ExportedFunction("run").Call(ctx, args...)
	o.results, o.trap = results, Trap(err)
	view, _ := m.Memory().Read(0, m.Memory().Size())
	o.memory = bytes.Clone(view)
	return o
}

// hold compares a generated module with the slow interpreter, in all engines. It returns the outcome,
// and false if the module runs too long for the original.
func (a *arena) hold(t *testing.T, module []byte, args ...uint64) (outcome, bool) {
	t.Helper()
	const steps = 100_000
	slow, err := NewSlow(module, steps)
	if err != nil {
		t.Fatal(err)
	}
	results, err := slow.Call("run", args...)
	want := outcome{results: results, trap: Trap(err), memory: slow.Memory(), charged: slow.Charged}
	ends := want.trap != string(ErrSteps) && want.trap != string(ErrDepth)
	if want.trap == "" && slow.Executed > slow.Charged {
		t.Errorf("the slow interpreter charges %d for %d executed", slow.Charged, slow.Executed)
	}
	ctx := context.Background()
	instantiate := func(r wazero.Runtime, b []byte) api.Module {
		m, err := r.InstantiateWithConfig(ctx, b, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			t.Fatalf("%v\n%x", err, module)
		}
		return m
	}
	if ends {
		m := instantiate(a.original, module)
		defer m.Close(ctx)
		if got := run(ctx, m, args...); !got.same(want) {
			t.Fatalf("the original gives %v, the slow interpreter %v", got, want)
		}
	}
	rewritten, err := Rewrite(module, metering.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var first outcome
	for i, e := range Engines {
		m := instantiate(a.metered[e], rewritten.Binary)
		defer m.Close(ctx)
		meter := &Meter{Slice: 997, Limit: 3_000_000, Stack: 1 << 20}
		meter.Begin(m)
		got := run(meter.Into(ctx), m, args...)
		got.charged = meter.Charged(m)
		if !ends {
			if i == 0 {
				first = got
			} else if stacked := isStack(got.trap) || isStack(first.trap); !stacked &&
				(!got.same(first) || got.charged != first.charged) {
				t.Fatalf("%s gives %v, %s %v", Engines[0], first, e, got)
			}
			continue
		}
		if !got.same(want) || got.charged != want.charged {
			t.Fatalf("%s gives %v, the slow interpreter %v", e, got, want)
		}
		if left := int64(global(m, metering.ExportStack).Get()); got.trap == "" && left != meter.Stack {
			t.Fatalf("%s: %d bytes of %d of the stack are left", e, left, meter.Stack)
		}
	}
	return want, ends
}

// The slow interpreter, which was written from the tariff's text, charges exactly the same as the
// rewriter, on random modules; and rewritten modules compute the same.
func TestSlowMeterAgrees(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	prove.SkipShort(t, "it interprets 200 modules")
	a := newArena(t)
	ended, trapped := 0, map[string]int{}
	var fuel int64
	for i := range *count {
		s := *seed + uint64(i)
		rng := rand.New(rand.NewPCG(s, 1))
		module := Generate(rng)
		o, ends := a.hold(t, module, uint64(rng.Uint32()), uint64(rng.Uint32()))
		if t.Failed() {
			t.Fatalf("seed %d (-seed %d -modules 1)", s, s)
		}
		if ends {
			ended++
			trapped[o.trap]++
			fuel += o.charged
		}
	}
	t.Logf("seed %d: %d modules, %d of them ended, after %d units; by trap: %v", *seed, *count, ended, fuel, trapped)
	if ended < *count/2 || trapped[""] < *count/4 || *count > 100 && len(trapped) < 4 {
		t.Error("too few modules ended, or they all ended in the same way")
	}
}
