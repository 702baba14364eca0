package sandbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// A refusal has the same text, whether this process or the compiler process finds it.
func TestRefusalsAreTheSameApart(t *testing.T) {
	here, apart := shared(), newRuntime(t, Options{Compiler: compilerCommand()})
	for _, c := range append(testguest.Statically(), testguest.Grabbers()...) {
		_, want := here.Compile(t.Context(), "liar", c.Module, quick, service.Settings{}, nil)
		_, got := apart.Compile(t.Context(), "liar", c.Module, quick, service.Settings{}, nil)
		var w, g *service.Error
		if !errors.As(want, &w) || !errors.As(got, &g) || g.Kind != service.KindBadModule || g.Message != w.Message ||
			!slices.Equal(g.Reasons, w.Reasons) {
			t.Errorf("%s:\n%v\nin this process, and apart:\n%v", c.Name, want, got)
		}
	}
}

// The rewritten module, and parsing it, take no memory of this process.
func TestTheHostDoesNotLookIntoModules(t *testing.T) {
	raced.Skip(t, "it compiles large modules, and has one goroutine")
	prove.SkipShort(t, "it compiles large modules")
	const size = 1 << 20
	r := newRuntime(t, Options{Compiler: compilerCommand()})
	for _, b := range testguest.Growers(size) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := compileWith(t, r, b.Module, service.Limits{CompileTime: inTime.CompileTime, CompileBytes: 64 << 20})
		runtime.ReadMemStats(&after)
		taken := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d bytes taken for %d, %v", b.Name, taken, len(b.Module), err)
		if err != nil && service.KindOf(err) != service.KindBadModule {
			t.Errorf("%s: %v", b.Name, err)
		}
		if taken > size/2 {
			t.Errorf("%s: the host took %d bytes for a module of %d", b.Name, taken, len(b.Module))
		}
	}
}

// A module that grows too much is refused by name, in this process and in the compiler process.
func TestGrowthIsRefused(t *testing.T) {
	for _, r := range []*Runtime{shared(), newRuntime(t, Options{Compiler: compilerCommand()})} {
		b := testguest.Growers(1 << 20)[0]
		_, err := r.Compile(t.Context(), "", b.Module, quick, service.Settings{}, nil)
		var e *service.Error
		if !errors.As(err, &e) || e.Kind != service.KindBadModule || len(e.Reasons) != 1 ||
			!strings.Contains(e.Reasons[0], "grows too much") ||
			!strings.Contains(e.Reasons[0], fmt.Sprint(3*len(b.Module)+1<<20)) {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}

// Two modules that differ only in their code do not get each other's code.
func TestModulesThatDifferInCodeAlone(t *testing.T) {
	r := newRuntime(t, Options{CacheDir: t.TempDir(), Compiler: compilerCommand()})
	const at = testguest.LiarScratch
	var programs []*Program
	for _, v := range []int32{1, 2} {
		module := testguest.Liar{Initialize: testguest.Code(testguest.I32Const(at), testguest.I32Const(v),
			testguest.Store8(0))}.Bytes()
		p, err := r.Compile(t.Context(), "", module, quick, service.Settings{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close(context.Background())
		programs = append(programs, p)
	}
	for n, p := range programs {
		if got := instantiate(t, p, nil).memory.b[at]; int(got) != n+1 {
			t.Errorf("module %d has initialised itself to %d", n+1, got)
		}
	}
}

// A form that was built for a service with more memory is checked against the limit of the next one.
func TestAStoredModuleIsHeldToTheLimits(t *testing.T) {
	r := newRuntime(t, Options{CacheDir: t.TempDir(), Compiler: compilerCommand()})
	module := testguest.Liar{}.Bytes()
	for _, c := range []struct {
		bytes int64
		want  string
	}{{8 << 20, ""}, {admission.PageBytes, "this service's limit is 65536"}, {8 << 20, ""}} {
		l := quick
		l.MemoryBytes = c.bytes
		err := compileWith(t, r, module, l)
		if c.want == "" && err != nil || c.want != "" &&
			(service.KindOf(err) != service.KindBadModule || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("with %d bytes: %v", c.bytes, err)
		}
	}
	if n := r.compiler.Compilations(); n != 1 {
		t.Errorf("compiled %d times", n)
	}
}

// A program loaded from its skeleton behaves like one that was compiled as a whole: the same errors, fuel and
// stacks.
func TestSkeletonsRunLikeWholeModules(t *testing.T) {
	prove.SkipShort(t, "it builds and compiles Go guests")
	stored := newRuntime(t, Options{CacheDir: t.TempDir()})
	limits := service.Limits{Fuel: 200_000, CallTime: inTime.CallTime, MemoryBytes: 8 << 20}
	var all []testguest.Misbehaviour
	for _, list := range [][]testguest.Misbehaviour{testguest.Traps(), testguest.Spinners(), testguest.Recursions(),
		testguest.Reachers()} {
		all = append(all, list...)
	}
	for _, c := range all {
		run := func(r *Runtime) (told, stack string, fuel uint64) {
			p, err := r.Compile(t.Context(), "", c.Module, limits, service.Settings{}, nil)
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			defer p.Close(context.Background())
			i, err := p.Instantiate(t.Context(), nil)
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			defer i.Close(context.Background())
			err = ask(i, c.Asked, testguest.LiarSlot)
			return fmt.Sprint(service.KindOf(err)), detail(err), i.Fuel() // the message contains times
		}
		told, stack, fuel := run(shared())
		if gotTold, gotStack, gotFuel := run(stored); gotTold != told || gotStack != stack || gotFuel != fuel {
			t.Errorf("%s:\n%s with %d of fuel, whole, and by its skeleton\n%s with %d\n%s\n%s", c.Name, told, fuel,
				gotTold, gotFuel, stack, gotStack)
		}
	}
	if n := stored.compiler.Compilations(); n != int64(len(all)) {
		t.Errorf("%d of %d were loaded from the store", n, len(all))
	}
}
