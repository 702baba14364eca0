package meteringtest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// start rewrites a module and instantiates it on an engine.
func start(t *testing.T, e Engine, module []byte, o metering.Options) (api.Module, *metering.Metered) {
	t.Helper()
	m, err := Rewrite(module, o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRuntime(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(t.Context()) })
	in, err := r.InstantiateWithConfig(t.Context(), m.Binary, wazero.NewModuleConfig())
	if err != nil {
		t.Fatal(err)
	}
	return in, m
}

// fibonacci is recursion without any loop.
func fibonacci() []byte {
	var b testguest.Builder
	f := b.Func(i32s, i32s, nil,
		testguest.Get(0), testguest.I32Const(2), testguest.Op(0x48), testguest.If(testguest.Get(0), testguest.Return),
		testguest.Get(0), testguest.I32Const(1), testguest.I32Sub, testguest.Call(0),
		testguest.Get(0), testguest.I32Const(2), testguest.I32Sub, testguest.Call(0), testguest.I32Add)
	b.Export("run", wasmbin.ExternFunc, f)
	return b.Bytes()
}

// Fuel is the same on both engines, and for all sizes of slices.
func TestFuelIsTheSameHoweverItIsGranted(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	for _, e := range Engines {
		in, _ := start(t, e, fibonacci(), metering.Options{})
		for _, slice := range []int64{1, 7, 1000, 1 << 40} {
			m := &Meter{Slice: slice, Limit: 1 << 40, Stack: 1 << 20}
			m.Begin(in)
			got, err := in.ExportedFunction("run").Call(m.Into(t.Context()), 15)
			// fib(15) makes 1973 calls. 987 end at once, after 4 and 2 instructions. 986 go on, for 4
			// and 9 instructions, and are charged for the 2 as well, as these are a short piece.
			if want := int64(987*6 + 986*15); err != nil || got[0] != 610 || m.Charged(in) != want {
				t.Errorf("%s, slices of %d: %v, %v, charged %d, want %d", e, slice, got, err, m.Charged(in), want)
			}
			if slice == 1000 && m.Refuels != 20 {
				t.Errorf("%s: %d refuels", e, m.Refuels)
			}
		}
	}
}

// A short piece after an if that is left by a branch is charged with the code before the if, whether
// or not the branch is taken. A longer piece is not.
func TestShortPieceAfterAnIfThatIsLeft(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	for _, c := range []struct {
		more        int // number of additional instructions after the if
		left, after int64
	}{{0, 2 + 2 + 3, 2 + 2 + 3}, {6, 2 + 2, 2 + 2 + 9}} {
		var b testguest.Builder
		b.Func(i32s, i32s, nil,
			testguest.Get(0), testguest.If(testguest.I32Const(5), testguest.Return),
			// i32.clz
			testguest.Get(0), testguest.I32Const(1), testguest.I32Add, bytes.Repeat(testguest.Op(0x67), c.more))
		b.Export("run", wasmbin.ExternFunc, 0)
		for _, e := range Engines {
			in, _ := start(t, e, b.Bytes(), metering.Options{})
			for arg, want := range map[uint64]int64{1: c.left, 0: c.after} {
				m := &Meter{Slice: 100, Limit: 100, Stack: 1 << 20}
				m.Begin(in)
				if _, err := in.ExportedFunction("run").Call(m.Into(t.Context()), arg); err != nil ||
					m.Charged(in) != want {
					t.Errorf("%s, %d more: run(%d) is charged %d, %v; want %d", e, c.more, arg, m.Charged(in), err,
						want)
				}
			}
		}
	}
}

// A call whose limit is exactly its cost succeeds; with one unit less it does not.
func TestTheLimitIsExact(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	for _, e := range Engines {
		in, _ := start(t, e, fibonacci(), metering.Options{})
		run := func(limit int64) (*Meter, error) {
			m := &Meter{Slice: 100, Limit: limit, Stack: 1 << 20}
			m.Begin(in)
			_, err := in.ExportedFunction("run").Call(m.Into(t.Context()), 10)
			return m, err
		}
		full, err := run(1 << 40)
		if err != nil {
			t.Fatal(err)
		}
		charged := full.Charged(in)
		if _, err := run(charged); err != nil {
			t.Errorf("%s: with %d: %v", e, charged, err)
		}
		m, err := run(charged / 2)
		if over := m.Charged(in) - charged/2; !errors.Is(err, ErrFuel) || over <= 0 || over > 15 {
			t.Errorf("%s: with half: %v, charged %d more", e, err, over)
		}
	}
}

func TestStackIsGivenBackOnEveryWayOut(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	callee := func(b *testguest.Builder) uint32 { return b.Func(i32s, i32s, nil, testguest.Get(0)) }
	for name, code := range map[string][]byte{
		"falls through": testguest.Code(testguest.Get(0), testguest.Call(0)),
		"return":        testguest.Code(testguest.Get(0), testguest.Call(0), testguest.Return),
		"inner return": testguest.Code(testguest.Get(0), testguest.Call(0), testguest.Drop,
			testguest.Block(testguest.Loop(testguest.Get(0), testguest.Return)), testguest.Unreachable),
		"br": testguest.Code(testguest.Get(0), testguest.Call(0), testguest.Br(0)),
		"inner br": testguest.Code(testguest.Block(testguest.Get(0), testguest.Call(0), testguest.Br(1)),
			testguest.Unreachable),
		"br_if": testguest.Code(testguest.Get(0), testguest.Call(0), testguest.I32Const(1), testguest.BrIf(0)),
		"br_table": testguest.Code(testguest.Block(testguest.Get(0), testguest.Call(0), testguest.I32Const(5),
			testguest.BrTable(1, 1)), testguest.Unreachable),
		"tail call": testguest.Code(testguest.Get(0), testguest.Call(0), testguest.Op(0x12, 0)),
		"tail call, any": testguest.Code(testguest.Get(0), testguest.Call(0), testguest.I32Const(0),
			testguest.Op(0x13, 0, 0)),
	} {
		var b testguest.Builder
		f := callee(&b)
		run := b.Func(i32s, i32s, nil, code)
		b.Table(1)
		b.Element(f)
		b.Export("run", wasmbin.ExternFunc, run)
		for _, e := range Engines {
			in, _ := start(t, e, b.Bytes(), metering.Options{})
			m := &Meter{Slice: 1000, Limit: 1000, Stack: 5000}
			m.Begin(in)
			got, err := in.ExportedFunction("run").Call(m.Into(t.Context()), 41)
			if err != nil || got[0] != 41 {
				t.Errorf("%s, %s: %v %v", name, e, got, err)
			}
			if left := global(in, metering.ExportStack).Get(); left != 5000 {
				t.Errorf("%s, %s: %d bytes of 5000 are left", name, e, left)
			}
		}
	}
}

// The setup does what instantiation did: data segments in order, then the start function.
func TestSetup(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	var b testguest.Builder
	b.Memory(1, 0)
	g := b.GlobalI32(7)
	b.Data(100, []byte("abcdef"))
	b.Data(102, []byte("XY")) // overlaps the first one: they are not joined
	f := b.Func(nil, nil, nil, testguest.I32Const(200), testguest.I32Const(100), testguest.Load32(0),
		testguest.Store32(0),
		testguest.I32Const(9), testguest.GlobalSet(g))
	b.Start(f)
	b.Export("memory", wasmbin.ExternMemory, 0)
	b.Export("start", wasmbin.ExternFunc, f)
	for _, e := range Engines {
		in, m := start(t, e, b.Bytes(), metering.Options{})
		if !m.Setup || !m.Imageable || len(m.Globals) != 1 || m.Globals[0].Type != testguest.I32 {
			t.Fatalf("%+v", m)
		}
		captured := global(in, m.Globals[0].Export)
		if b, _ := in.Memory().Read(100, 1); b[0] != 0 || captured.Get() != 7 {
			t.Errorf("%s: something has run at instantiation", e)
		}
		meter := &Meter{Slice: 100, Limit: 1000, Stack: 1000}
		meter.Begin(in)
		if _, err := in.ExportedFunction(metering.ExportSetup).Call(meter.Into(t.Context())); err != nil {
			t.Fatal(err)
		}
		if b, _ := in.Memory().Read(100, 6); string(b) != "abXYef" {
			t.Errorf("%s: memory is %q", e, b)
		}
		if b, _ := in.Memory().Read(200, 4); string(b) != "abXY" || captured.Get() != 9 {
			t.Errorf("%s: start has left %q and %d", e, b, captured.Get())
		}
		// Two segments of 6 and 2 bytes, then 5 instructions of the start function.
		if charged, want := meter.Charged(in),
			int64(5+6/metering.BytesPerUnit+5+2/metering.BytesPerUnit+6); charged != want {
			t.Errorf("%s: charged %d, want %d", e, charged, want)
		}
	}
}

func TestReservedNamesAreRefused(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	var b testguest.Builder
	b.ImportFunc("bulkhead_meter_v1", "refuel", nil, nil)
	b.ImportFunc("bulkhead_meter_v2", "anything", nil, nil)
	f := b.Func(nil, nil, nil)
	b.Export("bulkhead_meter_v1.fuel", wasmbin.ExternFunc, f)
	b.Export("bulkhead_meter", wasmbin.ExternFunc, f)
	b.Export("bulkhead_v1_call", wasmbin.ExternFunc, f)
	_, err := Rewrite(b.Bytes(), metering.Options{})
	var refused *metering.Error
	if !errors.As(err, &refused) || len(refused.Reasons) != 4 || strings.Contains(err.Error(), "bulkhead_v1_call") {
		t.Errorf("%v", err)
	}
}
