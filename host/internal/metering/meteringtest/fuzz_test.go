package meteringtest

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// bytesSource takes random numbers from a fuzzer's bytes, so that the fuzzer can steer the generator.
type bytesSource struct {
	b    []byte
	more *rand.PCG
}

func (s *bytesSource) Uint64() uint64 {
	if len(s.b) == 0 {
		return s.more.Uint64()
	}
	var v [8]byte
	n := copy(v[:], s.b[:min(len(s.b), 2)])
	s.b = s.b[n:]
	return binary.LittleEndian.Uint64(v[:]) * 0x9e3779b97f4a7c15
}

// FuzzGenerated compares valid modules with the slow interpreter, on both engines, original and
// rewritten.
func FuzzGenerated(f *testing.F) {
	raced.Skip(f, "it has one goroutine")
	for i := range 10 {
		f.Add([]byte{byte(i), byte(i * 37), 3, 4, 5, 6, 7, 8, 9, 10}, uint32(i), uint32(1000*i))
	}
	a := newArena(f)
	f.Fuzz(func(t *testing.T, random []byte, x, y uint32) {
		module := Generate(rand.New(&bytesSource{b: random, more: rand.NewPCG(1, 2)}))
		a.hold(t, module, uint64(x), uint64(y))
	})
}

// corpus returns the seeds of FuzzModules.
func corpus(f *testing.F) [][]byte {
	all := [][]byte{testguest.Counter("c"), testguest.Liar{}.Bytes(), fibonacci(), zoo()}
	for _, c := range testguest.Traps() {
		all = append(all, c.Module)
	}
	for i := range uint64(12) {
		all = append(all, Generate(rand.New(rand.NewPCG(i, 3))))
	}
	out := specDir(f)
	for _, suite := range specSuites {
		files, err := filepath.Glob(filepath.Join(out, suite, "testdata", "*.wasm"))
		if err != nil || len(files) == 0 {
			f.Fatalf("suite %s: %v", suite, err)
		}
		for i := 0; i < len(files); i += max(1, len(files)/20) {
			b, err := os.ReadFile(files[i])
			if err != nil {
				f.Fatal(err)
			}
			if len(b) < 4096 {
				all = append(all, b)
			}
		}
	}
	return all
}

// FuzzModules mutates modules. The rewriter never panics. A valid module is still valid when it is
// rewritten, and an invalid one does not become valid. Calls have the same results, original or
// rewritten, on both engines, for the same fuel.
func FuzzModules(f *testing.F) {
	raced.Skip(f, "it has one goroutine")
	for _, m := range corpus(f) {
		f.Add(m, uint64(3))
	}
	a := newArena(f)
	f.Fuzz(func(t *testing.T, module []byte, arg uint64) {
		m, err := wasmbin.Parse(module, wasmbin.DefaultLimits())
		if err == nil {
			err = m.CheckCode(wasmbin.DefaultLimits())
		}
		if err != nil {
			var e *wasmbin.Error
			if !errors.As(err, &e) {
				t.Fatal(err)
			}
			return
		}
		ctx := context.Background()
		bare, err := wasmbin.Parse(withoutCustom(m), wasmbin.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		compiled, invalid := a.metered[Interpreter].CompileModule(ctx, bare.Bytes)
		if invalid == nil {
			compiled.Close(ctx)
		}
		for _, o := range []metering.Options{{KeepNaN: true}, {}} {
			rewritten, err := metering.Rewrite(m, o)
			if err != nil {
				if _, named := refusedByName(err); invalid == nil && !named && len(metering.Check(m, o)) == 0 {
					t.Fatalf("a valid module is refused: %v", err)
				}
				continue
			}
			c, err := a.metered[Interpreter].CompileModule(ctx, rewritten.Binary)
			if (err == nil) != (invalid == nil) {
				t.Fatalf("the original: %v; rewritten: %v", invalid, err)
			}
			if err == nil {
				c.Close(ctx)
				a.compare(t, bare, rewritten, o.KeepNaN, arg)
			}
		}
	})
}

// withoutCustom removes custom sections. wazero reads them and may refuse a module for a broken list
// of names; the rewriter drops them.
func withoutCustom(m *wasmbin.Module) []byte {
	w := wasmbin.NewWriter(len(m.Bytes))
	for _, s := range m.Sections {
		if s.ID != wasmbin.SectionCustom {
			w.Raw(m.Slice(s.Entry))
		}
	}
	return w.Bytes()
}

// compare calls all exports of a module in all worlds.
func (a *arena) compare(t *testing.T, m *wasmbin.Module, rewritten *metering.Metered, original bool, arg uint64) {
	for _, mem := range m.Memories {
		if mem.Min > 16 {
			return
		}
	}
	for _, x := range m.Imports {
		if x.Kind != wasmbin.ExternFunc {
			return
		}
	}
	var all []trace
	for _, e := range Engines {
		all = append(all, a.trace(a.metered[e], m, rewritten, arg))
	}
	// The interpreter's stack ends long before the compiler's.
	if slices.Contains(all[0].traps(), "stack") || slices.Contains(all[1].traps(), "stack") {
		return
	}
	all[0].equal(t, all[1], true, "compiler and interpreter")
	if slices.Contains(all[0].traps(), ErrFuel.Error()) || !original {
		return // the original may never end
	}
	all[0].equal(t, a.trace(a.original, m, nil, arg), false, "rewritten and original")
}

// trace is what happened to one instance.
type trace struct {
	start string
	calls []outcome
}

func (tr trace) traps() []string {
	list := []string{tr.start}
	for _, c := range tr.calls {
		list = append(list, c.trap)
	}
	return list
}

func (tr trace) equal(t *testing.T, other trace, fuel bool, who string) {
	t.Helper()
	if tr.start != other.start || len(tr.calls) != len(other.calls) {
		t.Fatalf("%s: start %q and %q", who, tr.start, other.start)
	}
	for i, c := range tr.calls {
		if d := other.calls[i]; !c.same(d) || fuel && c.charged != d.charged {
			t.Fatalf("%s: call %d: %v and %v", who, i, c, d)
		}
	}
}

// trace instantiates a module, original or rewritten, and calls its exports in order.
func (a *arena) trace(r wazero.Runtime, m *wasmbin.Module, rewritten *metering.Metered, arg uint64) (tr trace) {
	meter := &Meter{Slice: 10_000, Limit: 200_000, Stack: 1 << 14}
	ctx := meter.Into(context.Background())
	binary := m.Bytes
	if rewritten != nil {
		binary = rewritten.Binary
	}
	stubs, err := stub(ctx, r, m)
	defer func() {
		for _, s := range stubs {
			s.Close(ctx)
		}
	}()
	if err != nil {
		tr.start = "imports"
		return tr
	}
	in, err := r.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if in != nil {
		defer in.Close(ctx)
	}
	if err == nil && rewritten != nil {
		meter.Begin(in)
		if rewritten.Setup {
			_, err = in.ExportedFunction(metering.ExportSetup).Call(ctx)
		}
	}
	if err != nil {
		tr.start = sameTrap(err)
		if rewritten == nil || tr.start != ErrFuel.Error() && tr.start != "stack" {
			tr.start = "failed"
		}
		return tr
	}
	for _, x := range m.Exports {
		if sig, _ := m.FuncTypeOf(x.Index); x.Kind == wasmbin.ExternFunc && plain(sig) {
			tr.calls = append(tr.calls, a.callOne(ctx, in, x.Name, len(sig.Params), arg, rewritten != nil, meter))
		}
	}
	return tr
}

func (a *arena) callOne(ctx context.Context, in api.Module, name string, params int, arg uint64, metered bool,
	meter *Meter) (o outcome) {
	if metered {
		meter.Begin(in)
	}
	args := make([]uint64, params)
	for i := range args {
		args[i] = uint64(uint32(arg)) + uint64(i)
	}
	results, err := in.ExportedFunction(name).Call(ctx, args...)
	o.results, o.trap = results, sameTrap(err)
	if e := in.ExportedMemory("memory"); e != nil {
		view, _ := e.Read(0, e.Size())
		o.memory = slices.Clone(view)
	}
	if metered {
		o.charged = meter.Charged(in)
	}
	return o
}

// plain reports whether a signature has only numbers.
func plain(t wasmbin.FuncType) bool {
	for _, list := range [][]wasmbin.ValType{t.Params, t.Results} {
		if len(list) > 8 {
			return false
		}
		for _, v := range list {
			if v < wasmbin.F64 {
				return false
			}
		}
	}
	return true
}

// stub defines what a module imports, as functions that return zeros.
func stub(ctx context.Context, r wazero.Runtime, m *wasmbin.Module) (made []api.Module, err error) {
	builders := map[string]wazero.HostModuleBuilder{}
	seen := map[[2]string]bool{}
	for _, x := range m.Imports {
		key := [2]string{x.Module, x.Name}
		if x.Module == "" || seen[key] {
			return nil, errors.New("not one that can be stubbed")
		}
		seen[key] = true
		b := builders[x.Module]
		if b == nil {
			b = r.NewHostModuleBuilder(x.Module)
			builders[x.Module] = b
		}
		sig := m.Types[x.Type]
		n := len(sig.Params)
		f := api.GoModuleFunc(func(_ context.Context, _ api.Module, stack []uint64) {
			clear(stack[:max(n, len(sig.Results))])
		})
		b.NewFunctionBuilder().WithGoModuleFunction(f, apiTypes(sig.Params), apiTypes(sig.Results)).Export(x.Name)
	}
	for _, b := range builders {
		in, err := b.Instantiate(ctx)
		if err != nil {
			return made, err
		}
		made = append(made, in)
	}
	return made, nil
}

func apiTypes(types []wasmbin.ValType) []api.ValueType {
	list := make([]api.ValueType, len(types))
	for i, t := range types {
		list[i] = api.ValueType(t)
	}
	return list
}
