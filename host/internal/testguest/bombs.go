package testguest

import "github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"

// Bomb is a module within all static limits that needs far more time or memory to compile than an honest
// module of its size.
type Bomb struct {
	Name   string
	Module []byte
}

// Bombs returns modules that are hard to compile. Otherwise they are honest liars, so that a bomb that can be
// compiled is a working guest.
func Bombs() []Bomb {
	bomb := func(f func(*Builder)) []byte { return Liar{With: f}.Bytes() }
	times := func(n int, code []byte) []byte {
		out := make([]byte, 0, n*len(code))
		for range n {
			out = append(out, code...)
		}
		return out
	}
	// body returns one function's declarations of i32 locals, and its code.
	body := func(locals uint32, code []byte) []byte {
		b := append(wasmbin.AppendU32([]byte{1}, locals), byte(I32))
		return append(append(b, code...), 0x0b)
	}
	add := func(b *Builder, n int, body []byte) {
		for range n {
			b.Func(Types(I32), nil, nil)
			b.RawBody(body)
		}
	}
	loop := Loop(Get(0), BrIf(0))
	step := Code(Get(0), Get(1), I32Add, Set(1))
	branches := make([]uint32, 60_000)
	return []Bomb{
		{"size", bomb(func(b *Builder) { add(b, 12, body(4, times(200_000, step))) })},
		{"locals", bomb(func(b *Builder) { add(b, 150, body(10_000, times(200, loop))) })},
		{"loops", bomb(func(b *Builder) { add(b, 1, body(10_000, times(20_000, loop))) })},
		{"nesting", bomb(func(b *Builder) {
			add(b, 20, body(1_000, Code(times(9_000, []byte{0x03, 0x40}), times(9_000, Code(Get(0), BrIf(0), End())))))
		})},
		{"functions", bomb(func(b *Builder) { add(b, 90_000, body(1, step)) })},
		{"branches", bomb(func(b *Builder) { add(b, 20, body(1, times(10, Block(Get(0), BrTable(branches...))))) })},
	}
}
