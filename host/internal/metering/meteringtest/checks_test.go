package meteringtest

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// stretch calls "run" of a rewritten module in the slow interpreter. It acts as a host that wants to
// be asked as often as possible: at each request, it grants only the fuel that the guest owes. It
// returns the maximum number of instructions of the rewritten module that were executed between two
// checks that could have stopped it.
func stretch(t *testing.T, module []byte, steps int, args ...uint64) (longest int) {
	t.Helper()
	m, err := Rewrite(module, metering.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSlow(m.Binary, steps)
	if err != nil {
		t.Fatal(err)
	}
	*s.Global(metering.ExportStack) = 1 << 20
	left := steps
	note := func() {
		longest = max(longest, left-s.Steps)
		left = s.Steps
	}
	s.Import = func(name string) {
		if name == metering.ImportOverflow {
			panic(ErrDepth)
		}
		note()
		*s.Global(metering.ExportFuel) = 0
	}
	_, _ = s.Call("run", args...) // it may end in any way
	note()
	return longest
}

// longest is the bound for all modules: what pieces can have charged in advance, plus what is charged
// without a check, times three, as the rewriting adds instructions to code that has many charges.
const longest = 3 * (metering.MaxPiece + 256 + metering.MaxLight)

func TestNothingRunsLongWithoutACheck(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	load := testguest.Load32(0)
	loads := func(n int) []byte { return testguest.Code(testguest.Get(0), bytes.Repeat(load, n), testguest.Set(0)) }
	for _, c := range []struct {
		name  string
		quick int // instructions for each function on the stack
		with  func(b *testguest.Builder)
	}{
		{"straight", 0, func(b *testguest.Builder) { b.Func(i32s, i32s, nil, loads(50_000), testguest.Get(0)) }},
		{"straight, with calls of light functions", 0, func(b *testguest.Builder) {
			b.Func(i32s, i32s, nil, bytes.Repeat(testguest.Code(testguest.Get(0), testguest.Call(1), testguest.Set(0)),
				5000), testguest.Get(0))
			b.Func(i32s, i32s, nil, loads(60), testguest.Get(0))
		}},
		{"straight, with conditions", 0, func(b *testguest.Builder) {
			b.Func(i32s, i32s, nil,
				bytes.Repeat(testguest.Code(testguest.Block(testguest.I32Const(0), testguest.BrIf(0), loads(4))), 5000),
				testguest.Get(0))
		}},
		{"nested blocks, work after each", 0, func(b *testguest.Builder) {
			b.Func(i32s, i32s, nil, bytes.Repeat(testguest.Op(0x02, 0x40), 500),
				bytes.Repeat(testguest.Code(testguest.End(), loads(100)), 500), testguest.Get(0))
		}},
		{"nested ifs, work after each", 0, func(b *testguest.Builder) {
			b.Func(i32s, i32s, nil, bytes.Repeat(testguest.Code(testguest.I32Const(1), testguest.Op(0x04, 0x40)), 500),
				bytes.Repeat(testguest.Code(testguest.End(), loads(100)), 500), testguest.Get(0))
		}},
		{"nested loops, work after each", 0, func(b *testguest.Builder) {
			b.Func(i32s, i32s, nil, bytes.Repeat(testguest.Op(0x03, 0x40), 500),
				bytes.Repeat(testguest.Code(testguest.I32Const(0), testguest.BrIf(0), testguest.End(), loads(100)),
					500), testguest.Get(0))
		}},
		{"nested loops, little after each", 0, func(b *testguest.Builder) {
			b.Func(i32s, i32s, nil, bytes.Repeat(testguest.Op(0x03, 0x40), 500),
				bytes.Repeat(testguest.Code(testguest.I32Const(0), testguest.BrIf(0), testguest.End(), loads(5)), 500),
				testguest.Get(0))
		}},
		{"nested loops, some work behind each", 0, func(b *testguest.Builder) {
			b.Func(i32s, i32s, nil, bytes.Repeat(testguest.Op(0x03, 0x40), 100),
				bytes.Repeat(testguest.Code(testguest.I32Const(0), testguest.BrIf(0), testguest.End(), loads(300)),
					100), testguest.Get(0))
		}},
		{"loops in ifs, work after each", 0, func(b *testguest.Builder) {
			b.Func(i32s, i32s, nil,
				bytes.Repeat(testguest.Code(testguest.I32Const(1), testguest.Op(0x04, 0x40, 0x03, 0x40)), 300),
				bytes.Repeat(testguest.Code(testguest.I32Const(0), testguest.BrIf(0), testguest.End(), loads(7),
					testguest.End(), loads(90)), 300), testguest.Get(0))
		}},
		{"deep calls out of loops, work after each", 0, recursionIn(
			testguest.Code(testguest.Op(0x03, 0x40, 0x03, 0x40)),
			testguest.Code(loads(20), testguest.I32Const(0), testguest.BrIf(0), testguest.End(), loads(50),
				testguest.I32Const(0), testguest.BrIf(0), testguest.End(), loads(40)))},
		{"deep calls, work on the way back", 0, recursion(loads(900))},
		{"deep calls, less work on the way back", 0, recursion(loads(200))},
		{"deep calls, little work on the way back", 0, recursion(loads(5))},
		{"deep calls out of blocks", 0,
			recursion(testguest.Code(testguest.Block(testguest.Get(0), testguest.BrIf(0), loads(30)), loads(200)))},
		{"deep calls, quick work on the way back", 50,
			recursion(bytes.Repeat(testguest.Code(testguest.Get(0), testguest.I32Const(3), testguest.I32Add,
				testguest.Set(0)), 8))},
		{"deep calls through the table", 0, func(b *testguest.Builder) {
			f := b.Func(i32s, i32s, nil, testguest.Get(0), testguest.I32Eqz,
				testguest.If(testguest.I32Const(8), testguest.Return),
				testguest.Get(0), testguest.I32Const(1), testguest.I32Sub, testguest.I32Const(0),
				testguest.Op(0x11, 0, 0), testguest.Set(0), loads(200), testguest.Get(0))
			b.Table(1)
			b.Element(f)
		}},
	} {
		var b testguest.Builder
		b.Memory(1, 1)
		c.with(&b)
		b.Export("run", wasmbin.ExternFunc, 0)
		const depth = 400
		if got := stretch(t, b.Bytes(), 5_000_000, depth); got > longest+c.quick*depth {
			t.Errorf("%s: %d instructions without a check, at most %d", c.name, got, longest+c.quick*depth)
		} else {
			t.Logf("%s: %d", c.name, got)
		}
	}
	longestSeen := 0
	for i := range uint64(300) {
		rng := rand.New(rand.NewPCG(i, 77))
		longestSeen = max(longestSeen, stretch(t, Generate(rng), 200_000, uint64(rng.Uint32()), uint64(rng.Uint32())))
	}
	if t.Logf("random modules: %d", longestSeen); longestSeen > longest {
		t.Errorf("a random module executes %d instructions without a check, at most %d", longestSeen, longest)
	}
}

// recursion calls itself as often as its argument says, and then executes work.
func recursion(work []byte) func(b *testguest.Builder) { return recursionIn(nil, work) }

// recursionIn is recursion with the call inside of a construct: open begins it, and work ends it.
func recursionIn(open, work []byte) func(b *testguest.Builder) {
	return func(b *testguest.Builder) {
		b.Func(i32s, i32s, nil, testguest.Get(0), testguest.I32Eqz, testguest.If(testguest.I32Const(8),
			testguest.Return),
			open, testguest.Get(0), testguest.I32Const(1), testguest.I32Sub, testguest.Call(0), testguest.Set(0), work,
			testguest.Get(0))
	}
}
