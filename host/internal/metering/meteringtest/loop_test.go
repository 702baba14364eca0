package meteringtest

import (
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// A loop that asks for fuel keeps the values of its locals, of all types: the bits of signalling NaNs,
// and more locals than are copied.
func TestLoopsKeepTheirLocals(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	const many = 80
	locals := slices.Concat(
		testguest.Types(testguest.I32, wasmbin.F32, wasmbin.F32, wasmbin.F64, wasmbin.F64, testguest.I64),
		slices.Repeat(i64s, many))
	const first, f32a, f32b, f64a, f64b, sum, more = 0, 2, 3, 4, 5, 6, 7
	swap := func(a, b uint32) []byte {
		return testguest.Code(testguest.Get(a), testguest.Get(b), testguest.Set(a), testguest.Set(b))
	}
	var turn []byte
	for i := range uint32(many) {
		add := testguest.Code(testguest.I64Const(int64(i)), testguest.I64Add)
		turn = append(turn, testguest.Code(testguest.Get(more+i), add, testguest.Set(more+i))...)
	}
	results := slices.Concat(testguest.Types(testguest.I32, testguest.I32), slices.Repeat(i64s, 4))
	var b testguest.Builder
	b.Func(i32s, results, locals,
		testguest.Op(0x43, 1, 0, 0xa0, 0x7f), testguest.Set(f32a), // f32.const, a signalling NaN
		testguest.Op(0x43, 2, 0, 0xa0, 0xff), testguest.Set(f32b),
		testguest.Op(0x44, 3, 0, 0, 0, 0, 0, 0xf4, 0x7f), testguest.Set(f64a),
		testguest.Op(0x44, 4, 0, 0, 0, 0, 0, 0, 0x80), testguest.Set(f64b), // a denormal number
		testguest.Loop(
			swap(f32a, f32b), swap(f64a, f64b), turn,
			testguest.Get(sum), testguest.I64Const(-3), testguest.I64Add, testguest.Set(sum),
			testguest.Get(first), testguest.I32Const(1), testguest.I32Sub, testguest.Op(0x22, first),
			testguest.BrIf(0)),
		testguest.Get(f32a), testguest.Op(0xbc), testguest.Get(f32b), testguest.Op(0xbc),
		testguest.Get(f64a), testguest.Op(0xbd), testguest.Get(f64b), testguest.Op(0xbd),
		testguest.Get(sum), testguest.Get(more+many-1))
	b.Export("run", wasmbin.ExternFunc, 0)
	const turns = 1001
	want := []uint64{0xffa00002, 0x7fa00001, 0x8000000000000004, 0x7ff4000000000003, 1<<64 - 3*turns,
		(many - 1) * turns}
	for _, e := range Engines {
		in, _ := start(t, e, b.Bytes(), metering.Options{})
		for _, slice := range []int64{1, 1 << 40} {
			m := &Meter{Slice: slice, Limit: 1 << 40, Stack: 1 << 20}
			m.Begin(in)
			got, err := in.ExportedFunction("run").Call(m.Into(t.Context()), turns)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s, slices of %d: %x, %v; want %x", e, slice, got, err, want)
			}
			if slice == 1 && m.Refuels < turns {
				t.Errorf("%s: asked for fuel %d times", e, m.Refuels)
			}
		}
	}
}

// Branches out of loops go to the right constructs, also unreachable ones.
func TestBranchesOutOfLoops(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	const i32 = byte(wasmbin.I32)
	equals := func(n int32) []byte {
		return testguest.Code(testguest.Get(0), testguest.I32Const(n), testguest.Op(0x46))
	}
	work := testguest.Code(
		testguest.Op(0x03, i32), // no branch goes back to this loop
		testguest.Op(0x02, i32),
		testguest.Op(0x03, 0x40),
		testguest.Op(0x03, 0x40),
		testguest.Get(1), testguest.I32Const(1), testguest.I32Add, testguest.Op(0x22, 1),
		testguest.I32Const(5), testguest.Op(0x48), testguest.BrIf(1),
		equals(0), testguest.If(
			testguest.I32Const(10), testguest.Get(1), testguest.I32Add, testguest.Return, testguest.Br(2)),
		equals(1), testguest.If(
			testguest.I32Const(20), testguest.Br(3), testguest.Br(1), testguest.I32Const(0),
			testguest.BrTable(1, 2, 0)),
		testguest.Block(
			testguest.Block(
				testguest.Get(0), testguest.I32Const(2), testguest.I32Sub, testguest.Op(0x22, 0),
				testguest.BrTable(0, 1, 3)),
			testguest.I32Const(30), testguest.Br(3)),
		testguest.I32Const(40), testguest.Br(2),
		testguest.End(), testguest.End(), testguest.Unreachable, testguest.End(), testguest.End())
	var b testguest.Builder
	b.Func(i32s, i32s, i32s, work)
	b.Func(i32s, i32s, i32s, equals(99), testguest.If(testguest.Get(0), testguest.Call(1), testguest.Return), work)
	// The label of an unreachable branch would have another type if it were not changed.
	b.Func(nil, nil, nil, testguest.Loop(
		testguest.Op(0x02, i32),
		testguest.Loop(testguest.Unreachable, testguest.I64Const(1), testguest.Br(2)), testguest.Unreachable,
		testguest.End(), testguest.Op(0x1a)))
	b.Export("run", wasmbin.ExternFunc, 0)
	b.Export("counted", wasmbin.ExternFunc, 1) // its stack is counted
	for _, e := range Engines {
		in, _ := start(t, e, b.Bytes(), metering.Options{})
		for _, name := range []string{"run", "counted"} {
			for n, want := range []uint64{15, 20, 30, 40, 30, 40} {
				m := &Meter{Slice: 1, Limit: 1 << 20, Stack: 1 << 20}
				m.Begin(in)
				if got, err := in.ExportedFunction(name).Call(m.Into(t.Context()), uint64(n)); err != nil ||
					got[0] != want {
					t.Errorf("%s, %s(%d): %d, %v; want %d", e, name, n, got, err, want)
				}
			}
		}
	}
}
