package meteringtest

import (
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

var (
	i32s = testguest.Types(testguest.I32)
	i64s = testguest.Types(testguest.I64)
)

// zoo is a module with everything that the rewriter handles specially: floats and vectors, bulk and
// table instructions, segments of every kind, references to functions, tail calls, loops with
// parameters.
func zoo() []byte {
	var b testguest.Builder
	f64s := testguest.Types(testguest.F64)
	host := b.ImportFunc("env", "host", i32s, i32s)
	double := b.TypeIndex(i32s, i32s)
	loop := b.TypeIndex(i32s, nil)
	b.Memory(1, 4)
	b.Table(10)
	g := b.GlobalI32(5)
	b.GlobalRaw(append([]byte{byte(wasmbin.I64), 1}, testguest.Code(testguest.I64Const(-1), testguest.End())...))
	b.GlobalRaw([]byte{byte(wasmbin.FuncRef), 0, 0xd2, 1, 0x0b}) // ref.func 1
	b.DataCount()
	b.Data(10, []byte("active"))
	b.DataRaw(append([]byte{1, 7}, "passive"...))
	f := b.Func(i32s, i32s, nil, testguest.Get(0), testguest.Call(host), testguest.GlobalGet(g), testguest.I32Add)
	floats := b.Func(f64s, f64s, nil, testguest.Get(0), testguest.Get(0), testguest.Op(0xa3), testguest.Get(0),
		testguest.Op(0xa2, 0x9f, 0x9a, 0xb6, 0xbb))
	b.Func(nil, i64s, nil, testguest.Op(0xfd, 12, 0, 0, 0xc0, 0x7f, 1, 0, 0, 0, 0, 0, 0x80, 0xff, 0, 0, 0, 0),
		testguest.Op(0xfd, 12), make([]byte, 16),
		// f32x4.div, f64x2.promote_low_f32x4, i64x2.extract_lane
		testguest.Op(0xfd, 0xe7, 1, 0xfd, 0x5f, 0xfd, 0x1d, 0))
	bulk := b.Func(i32s, i32s, nil,
		testguest.I32Const(0), testguest.I32Const(1), testguest.I32Const(4), testguest.Op(0xfc, 8, 1, 0), // memory.init
		testguest.I32Const(100), testguest.I32Const(0), testguest.I32Const(40), testguest.MemoryCopy,
		testguest.I32Const(200), testguest.Get(0), testguest.I32Const(40), testguest.MemoryFill,
		testguest.Op(0xd0, 0x70), testguest.I32Const(3), testguest.Op(0xfc, 15, 0), // table.grow
		// table.fill
		testguest.I32Const(1), testguest.Op(0xd2, byte(f)), testguest.I32Const(2), testguest.Op(0xfc, 17, 0),
		testguest.I32Const(4), testguest.I32Const(0), testguest.I32Const(1), testguest.Op(0xfc, 12, 1, 0), // table.init
		testguest.Op(0xfc, 13, 1, 0xfc, 9, 1), // elem.drop, data.drop
		testguest.I32Const(1), testguest.MemoryGrow, testguest.I32Add)
	b.Func(i32s, i32s, nil, testguest.Get(0), testguest.Get(0), testguest.I32Const(7), testguest.I32And,
		testguest.Op(0x13, byte(double), 0))
	count := b.Func(i32s, i32s, i32s, testguest.Get(0), testguest.I32Const(15), testguest.I32And,
		wasmbin.AppendU32([]byte{0x03}, loop), testguest.Op(0x22, 1), testguest.Get(1), testguest.I32Eqz,
		testguest.If(testguest.GlobalGet(g), testguest.Return),
		testguest.I32Const(1), testguest.I32Sub, testguest.Br(0), testguest.End(), testguest.Unreachable)
	b.ElementRaw(append([]byte{0}, testguest.Code(testguest.I32Const(0), testguest.End(), []byte{3},
		[]byte{byte(f), byte(bulk), byte(count)})...)...)
	b.ElementRaw(5, 0x70, 2, 0xd2, byte(f), 0x0b, 0xd0, 0x70, 0x0b)     // passive, expressions
	b.ElementRaw(3, 0, 1, byte(floats))                                 // declarative
	b.ElementRaw(6, 0, 0x41, 6, 0x0b, 0x70, 1, 0xd2, byte(count), 0x0b) // active with a table, expressions
	for i := range uint32(6) {
		b.Export(string(rune('a'+i)), wasmbin.ExternFunc, f+i)
	}
	b.Export("memory", wasmbin.ExternMemory, 0)
	b.Export("imported", wasmbin.ExternFunc, host)
	return b.Bytes()
}
