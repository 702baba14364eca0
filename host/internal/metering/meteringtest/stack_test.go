package meteringtest

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/tetratelabs/wazero/api"
)

// deep are functions that call themselves without end. Each has a frame in wazero that is as large as
// possible for the bytes that are counted.
func deep() map[string]func(b *testguest.Builder) {
	v128s := testguest.Types(wasmbin.V128)
	many := func(t wasmbin.ValType, n int) []wasmbin.ValType {
		l := make([]wasmbin.ValType, n)
		for i := range l {
			l[i] = t
		}
		return l
	}
	repeat := func(n int, f func(i int) []byte) []byte {
		var code []byte
		for i := range n {
			code = append(code, f(i)...)
		}
		return code
	}
	self := testguest.Call(0)
	vector := testguest.Op(0xfd, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
	return map[string]func(b *testguest.Builder){
		"nothing": func(b *testguest.Builder) { b.Func(nil, nil, nil, self) },
		"parameters by register": func(b *testguest.Builder) {
			b.Func(i32s, i32s, nil, testguest.Get(0), self, testguest.Get(0), testguest.I32Add)
		},
		"3,000 locals that live across the call": func(b *testguest.Builder) {
			b.Func(nil, nil, many(testguest.I64, 3000),
				repeat(3000, func(i int) []byte {
					return testguest.Code(testguest.I32Const(int32(i)), testguest.Load64(0), testguest.Set(uint32(i)))
				}), self,
				repeat(3000, func(i int) []byte {
					return testguest.Code(testguest.I32Const(int32(i)), testguest.Get(uint32(i)), testguest.Store64(0))
				}))
		},
		"a stack of 3,000 operands": func(b *testguest.Builder) {
			b.Func(nil, i64s, nil,
				repeat(3000, func(i int) []byte {
					return testguest.Code(testguest.I32Const(int32(i)), testguest.Load64(0))
				}), self,
				repeat(3000, func(int) []byte { return testguest.I64Add }))
		},
		"a stack of 2,000 vectors": func(b *testguest.Builder) {
			b.Func(nil, v128s, nil,
				repeat(2000, func(i int) []byte {
					return testguest.Code(testguest.I32Const(int32(i)), testguest.Op(0xfd, 0, 0, 0))
				}), self,
				repeat(2000, func(int) []byte { return testguest.Op(0xfd, 0x51) })) // v128.xor
		},
		"a value that dies after each of 2,000 calls": func(b *testguest.Builder) {
			b.Func(i64s, i64s, nil, testguest.Get(0),
				repeat(2000, func(int) []byte { return testguest.Code(testguest.Get(0), self, testguest.I64Add) }))
		},
		"500 parameters": func(b *testguest.Builder) {
			b.Func(many(testguest.I64, 500), nil, nil, repeat(500, func(i int) []byte {
				return testguest.Get(uint32(i))
			}), self)
		},
		"500 results": func(b *testguest.Builder) {
			b.Func(nil, many(testguest.I64, 500), nil, self)
		},
		"500 vectors": func(b *testguest.Builder) {
			b.Func(many(wasmbin.V128, 500), many(wasmbin.V128, 500), nil, repeat(500, func(i int) []byte {
				return testguest.Get(uint32(i))
			}), self)
		},
		"100 locals merged in 100 places": func(b *testguest.Builder) {
			b.Func(i32s, nil, many(testguest.I64, 100),
				repeat(100, func(i int) []byte {
					return testguest.Code(testguest.Get(0), testguest.I32Const(int32(i)), testguest.Op(0x46),
						testguest.If(
							repeat(100, func(k int) []byte {
								return testguest.Code(testguest.I32Const(int32(i*k)), testguest.Load64(8),
									testguest.Set(uint32(1+k)))
							})))
				}),
				testguest.Get(0), self,
				repeat(100, func(k int) []byte {
					return testguest.Code(testguest.I32Const(0), testguest.Get(uint32(1+k)), testguest.Store64(0))
				}))
		},
		"nested loops": func(b *testguest.Builder) {
			code := testguest.Code(testguest.Get(0), self)
			for i := range 40 {
				turn := repeat(40, func(k int) []byte {
					return testguest.Code(testguest.Get(uint32(1+k)), testguest.I64Const(int64(i)), testguest.I64Add,
						testguest.Set(uint32(1+k)))
				})
				code = testguest.Loop(code, turn, testguest.Get(0), testguest.BrIf(0))
			}
			b.Func(i32s, nil, many(testguest.I64, 40), code)
		},
		"a tail call that is none": func(b *testguest.Builder) {
			b.Func(many(testguest.I64, 20), nil, nil, repeat(20, func(i int) []byte {
				return testguest.Get(uint32(i))
			}), testguest.Op(0x12, 0))
		},
		"mutual recursion by a table": func(b *testguest.Builder) {
			b.Func(nil, nil, nil, testguest.I32Const(1), testguest.Op(0x11, 0, 0))
			b.Func(nil, nil, nil, testguest.I32Const(0), testguest.Op(0x11, 0, 0))
		},
		"vectors across a call": func(b *testguest.Builder) {
			b.Func(v128s, v128s, nil, testguest.Get(0), vector, testguest.Op(0xfd, 0x51), self, testguest.Get(0),
				testguest.Op(0xfd, 0x51))
		},
	}
}

// THREATS, Calls: deep recursion with many locals ends as "stack exhausted". Until then, wazero's own
// stack is at most [StackMultiple] times what was counted.
func TestDeepRecursionEndsAtTheLimit(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	const stack = 1 << 20
	for name, build := range deep() {
		t.Run(name, func(t *testing.T) {
			var b testguest.Builder
			b.Memory(2, 2)
			b.Table(2)
			build(&b)
			b.Element(0, 0)
			b.Export("run", wasmbin.ExternFunc, 0)
			in, _ := start(t, Compiler, b.Bytes(), metering.Options{})
			heap := func() int64 {
				var s runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&s)
				return int64(s.HeapAlloc)
			}
			before, deepest := heap(), int64(0)
			m := &Meter{Slice: 1 << 30, Limit: 1 << 40, Stack: stack}
			m.Deepest = func(api.Module) { deepest = heap() }
			m.Begin(in)
			if err := callWithZeros(m.Into(t.Context()), in); !errors.Is(err, ErrStack) {
				t.Fatalf("%v", err)
			}
			t.Logf("wazero's stack took %.2f MiB", float64(deepest-before)/(1<<20))
			// Twice, as the stack grows by doubling.
			if used := deepest - before; used > 2*metering.StackMultiple*stack {
				t.Errorf("wazero's stack took %d bytes, %d times as many as were counted", used, used/stack)
			}
			after := heap()
			for try := 0; after > before+4<<20 && try < 100; try++ { // a finalizer releases it after a collection
				after = heap()
			}
			if after > before+4<<20 {
				t.Errorf("%d bytes of the heap are not given back", after-before)
			}
		})
	}
}

// callWithZeros calls "run". The stack is garbage when it returns.
func callWithZeros(ctx context.Context, in api.Module) error {
	f := in.ExportedFunction("run")
	params := 0
	for _, p := range f.Definition().ParamTypes() {
		params++
		if p == api.ValueType(wasmbin.V128) {
			params++
		}
	}
	_, err := f.Call(ctx, make([]uint64, params)...)
	return err
}

// Tail calls take no stack, however many, if the arguments are passed in registers.
func TestTailCallsTakeNoStack(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	var b testguest.Builder
	b.Func(i32s, i32s, nil, testguest.Get(0), testguest.I32Eqz, testguest.If(testguest.I32Const(7), testguest.Return),
		testguest.Get(0), testguest.I32Const(1), testguest.I32Sub, testguest.Op(0x12, 0))
	b.Export("run", wasmbin.ExternFunc, 0)
	for _, e := range Engines {
		in, _ := start(t, e, b.Bytes(), metering.Options{})
		m := &Meter{Slice: 1 << 30, Limit: 1 << 40, Stack: 1000}
		m.Begin(in)
		if got, err := in.ExportedFunction("run").Call(m.Into(t.Context()), 100_000); err != nil || got[0] != 7 {
			t.Errorf("%s: %v %v", e, got, err)
		}
	}
}
