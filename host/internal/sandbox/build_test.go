package sandbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// A refusal says the same, whoever has found it out.
func TestRefusalsAreTheSameApart(t *testing.T) {
	here, apart := shared(), newRuntime(t, Options{Compiler: compilerCommand()})
	for _, c := range append(testguest.Statically(), testguest.Grabbers()...) {
		_, want := here.Compile(t.Context(), "liar", c.Module, quick, service.Settings{}, nil)
		_, got := apart.Compile(t.Context(), "liar", c.Module, quick, service.Settings{}, nil)
		var w, g *service.Error
		if !errors.As(want, &w) || !errors.As(got, &g) || g.Kind != service.KindBadModule || g.Message != w.Message || !slices.Equal(g.Reasons, w.Reasons) {
			t.Errorf("%s:\n%v\nin this process, and apart:\n%v", c.Name, want, got)
		}
	}
}

// What a module would become when it is rewritten, and that it is looked into at all, is
// no memory of this process.
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

// A module that grows too much is refused by name, here and apart.
func TestGrowthIsRefused(t *testing.T) {
	for _, r := range []*Runtime{shared(), newRuntime(t, Options{Compiler: compilerCommand()})} {
		b := testguest.Growers(1 << 20)[0]
		_, err := r.Compile(t.Context(), "", b.Module, quick, service.Settings{}, nil)
		var e *service.Error
		if !errors.As(err, &e) || e.Kind != service.KindBadModule || len(e.Reasons) != 1 ||
			!strings.Contains(e.Reasons[0], "grows too much") || !strings.Contains(e.Reasons[0], fmt.Sprint(maxGrowth(int64(len(b.Module))))) {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}

// Two modules that differ in nothing but their code do not get each other's.
func TestModulesThatDifferInCodeAlone(t *testing.T) {
	r := newRuntime(t, Options{CacheDir: t.TempDir(), Compiler: compilerCommand()})
	const at = testguest.LiarScratch
	var programs []*Program
	for _, v := range []int32{1, 2} {
		module := testguest.Liar{Initialize: testguest.Code(testguest.I32Const(at), testguest.I32Const(v), testguest.Store8(0))}.Bytes()
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

// A form that was built for a service with more memory is held to the limit of the next.
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
		if c.want == "" && err != nil || c.want != "" && (service.KindOf(err) != service.KindBadModule || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("with %d bytes: %v", c.bytes, err)
		}
	}
	if n := r.compilations.Load(); n != 1 {
		t.Errorf("compiled %d times", n)
	}
}

func TestOrders(t *testing.T) {
	for _, o := range []order{{1, 1, false}, {1 << 32, 100_000, true}} {
		if got, err := parseOrder(o.args()); err != nil || got != o {
			t.Errorf("%+v came back as %+v, %v", o, got, err)
		}
	}
	for _, args := range [][]string{nil, {"--memory-limit=0", "--table-elements=1"}, {"more"}, append(order{1, 1, true}.args(), "more")} {
		if _, err := parseOrder(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	d := service.DigestOf([]byte("module"))
	base := order{1, 2, false}
	if base.name(d) != (order{2, 2, false}).name(d) {
		t.Error("the code depends on the limit of memory")
	}
	for _, other := range []order{{1, 3, false}, {1, 2, true}} {
		if other.name(d) == base.name(d) {
			t.Errorf("the code does not depend on %+v", other)
		}
	}
}

// What is made of modules is what formVersion, and the version of the tariff, say it is.
// If this fails as the rewriting has changed, raise formVersion, or programs would go on
// with the code that an earlier one has stored; then write down the new hash.
func TestFormVersion(t *testing.T) {
	const want = "3 3 2b6b2147d2ef2e50"
	h := sha256.New()
	modules := [][]byte{testguest.Counter("c"), testguest.Liar{}.Bytes()}
	for _, m := range testguest.Spinners() {
		modules = append(modules, m.Module)
	}
	for _, module := range modules {
		f, whole := prepared(t, module)
		loads, err := skeleton(whole)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(append(appendForm(nil, f), loads...))
	}
	if got := fmt.Sprintf("%d %d %s", formVersion, metering.TariffVersion, hex.EncodeToString(h.Sum(nil)[:8])); got != want {
		t.Errorf("form version, tariff and hash are %q; they were %q", got, want)
	}
}

// A skeleton declares what its module declares.
func TestSkeleton(t *testing.T) {
	_, whole := prepared(t, testguest.Counter("c"))
	small, err := skeleton(whole)
	if err != nil {
		t.Fatal(err)
	}
	m, err := wasmbin.Parse(whole, wasmbin.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := wasmbin.Parse(small, wasmbin.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CheckCode(wasmbin.DefaultLimits()); err != nil {
		t.Error(err)
	}
	if len(s.Bodies) != len(m.Bodies) || !slices.Equal(s.Functions, m.Functions) || len(s.Exports) != len(m.Exports) || len(s.Data) != len(m.Data) {
		t.Error("they differ in more than their code")
	}
	sum := sha256.Sum256(whole)
	if got, ok := s.Custom(wholeSection); !ok || !bytes.Equal(got, sum[:]) {
		t.Errorf("it has the hash %x", got)
	}
	if _, err := skeleton(whole[:len(whole)-1]); err == nil {
		t.Error("there is a skeleton of half a module")
	}
}

func sampleFacts() *facts {
	return &facts{
		tariff: 1, setup: true, why: "it imports a table", memoryPages: 17, hasManifest: true, manifest: []byte(`{"service":"c"}`),
		globals: []metering.Global{{Export: "bulkhead_meter_v1.global.0", Type: wasmbin.I32}, {Export: "bulkhead_meter_v1.global.7", Type: wasmbin.F64}},
		modules: []string{abi.ImportModule, admission.WASI},
	}
}

func FuzzParseForm(f *testing.F) {
	f.Add(append(appendForm(nil, sampleFacts()), "\x00asm"...))
	f.Add(appendForm(nil, &facts{}))
	f.Add([]byte(formMagic))
	f.Add([]byte(formMagic + "\x01\x02\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, module, err := parseForm(b)
		if err != nil {
			return
		}
		text := appendForm(nil, got)
		again, rest, err := parseForm(append(text, module...))
		if err != nil || !bytes.Equal(rest, module) || !reflect.DeepEqual(again, got) {
			t.Errorf("%+v came back as %+v, %v", got, again, err)
		}
		if len(text) > maxFactBytes {
			t.Errorf("%d bytes of facts", len(text))
		}
	})
}

func TestForm(t *testing.T) {
	want := sampleFacts()
	b := append(appendForm(nil, want), "module"...)
	got, module, err := parseForm(b)
	if err != nil || string(module) != "module" || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %q, %v", got, module, err)
	}
	for n := range len(b) - len("module") {
		if _, _, err := parseForm(b[:n]); err == nil {
			t.Fatalf("cut at %d it was taken", n)
		}
	}
	for name, change := range map[string]func(*facts){
		"a module that is not offered": func(f *facts) { f.modules[0] = "nowhere" },
		"a module twice":               func(f *facts) { f.modules[0] = f.modules[1] },
		"a global of the module's own": func(f *facts) { f.globals[0].Export = "memory" },
		"a global of a strange type":   func(f *facts) { f.globals[0].Type = wasmbin.FuncRef },
		"a long reason":                func(f *facts) { f.why = strings.Repeat("x", maxWhy+1) },
		"too much memory":              func(f *facts) { f.memoryPages = 65537 },
		"a manifest that is not there": func(f *facts) { f.hasManifest = false },
		"too large a manifest":         func(f *facts) { f.manifest = make([]byte, abi.MaxManifestSize+1) },
	} {
		f := sampleFacts()
		change(f)
		if _, _, err := parseForm(appendForm(nil, f)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzParseRefusal(f *testing.F) {
	f.Add(appendRefusal(nil, "no", []string{"one", "two"}))
	f.Add(appendRefusal(nil, "", nil))
	f.Add([]byte(refusalMagic + "\x00\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		message, reasons, err := parseRefusal(b)
		if err != nil {
			return
		}
		again, all, err := parseRefusal(appendRefusal(nil, message, reasons))
		if len(message) > maxReasonBytes { // what was not UTF-8 has become longer
			return
		}
		if err != nil || again != message || len(all) != len(reasons) {
			t.Errorf("%q and %d reasons came back as %q and %d, %v", message, len(reasons), again, len(all), err)
		}
	})
}

// A refusal is bounded, whatever its reasons are.
func TestRefusalsAreBounded(t *testing.T) {
	long := strings.Repeat("ä", maxReasonBytes)
	var reasons []string
	for range 2 * admission.MaxReasons {
		reasons = append(reasons, long)
	}
	b := appendRefusal(nil, long, reasons)
	message, got, err := parseRefusal(b)
	if err != nil || len(b) > maxRefusalBytes || len(got) != admission.MaxReasons+1 || message != long[:maxReasonBytes] || got[0] != long[:maxReasonBytes] {
		t.Errorf("%d bytes, %d reasons, %v", len(b), len(got), err)
	}
	if _, err := readAtMost(os.DevNull, 10); err == nil {
		t.Error("a device was read")
	}
}

// A program that was loaded by its skeleton does what one does that was compiled whole:
// the same errors, the same fuel and the same stacks.
func TestSkeletonsRunLikeWholeModules(t *testing.T) {
	prove.SkipShort(t, "it builds and compiles Go guests")
	stored := newRuntime(t, Options{CacheDir: t.TempDir()})
	limits := service.Limits{Fuel: 200_000, CallTime: inTime.CallTime, MemoryBytes: 8 << 20}
	var all []testguest.Misbehaviour
	for _, list := range [][]testguest.Misbehaviour{testguest.Traps(), testguest.Spinners(), testguest.Recursions(), testguest.Reachers()} {
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
			return fmt.Sprint(service.KindOf(err)), detail(err), i.Fuel() // the message has times in it
		}
		told, stack, fuel := run(shared())
		if gotTold, gotStack, gotFuel := run(stored); gotTold != told || gotStack != stack || gotFuel != fuel {
			t.Errorf("%s:\n%s with %d of fuel, whole, and by its skeleton\n%s with %d\n%s\n%s", c.Name, told, fuel, gotTold, gotFuel, stack, gotStack)
		}
	}
	if n := stored.compilations.Load(); n != int64(len(all)) {
		t.Errorf("%d of %d were loaded from the store", n, len(all))
	}
}
