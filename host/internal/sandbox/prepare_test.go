package sandbox

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Whatever segments a module has, its memory starts with the same bytes as if
// they were applied one by one.
func TestSegmentsGiveTheSameMemory(t *testing.T) {
	const size = testguest.LiarMailbox - testguest.LiarScratch
	rng := rand.New(rand.NewPCG(1, 2))
	joined := 0
	for round := range 60 {
		want := make([]byte, size)
		apart := round%3 > 0 // else they may overlap
		next := 0
		module := testguest.Liar{With: func(b *testguest.Builder) {
			for range rng.IntN(40) {
				data := make([]byte, rng.IntN(50))
				for k := range data {
					data[k] = byte(1 + rng.IntN(255))
				}
				at := rng.IntN(2000)
				if apart {
					at = next + rng.IntN(3)*rng.IntN(80)
					next = at + len(data)
				}
				copy(want[at:], data)
				b.Data(scratch+uint32(at), data)
			}
		}}.Bytes()
		m, err := verify(module, service.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if joinSegments(m) != nil {
			joined++
		}
		i := instantiate(t, compile(t, module, quick), nil)
		if got := peek(t, i, 0, size); !bytes.Equal(got, want) {
			t.Fatalf("round %d: memory differs", round)
		}
	}
	if joined < 30 {
		t.Errorf("only %d modules had segments joined", joined)
	}
}

// Loop heads are put where a call could come before the first one, and nowhere else.
func TestNeedsLoop(t *testing.T) {
	g := struct{ call, loop, block, br []byte }{testguest.Call(0), testguest.Loop(), testguest.Block(), testguest.Br(0)}
	for name, c := range map[string]struct {
		code []byte
		want bool
	}{
		"nothing":               {nil, false},
		"a loop":                {testguest.Loop(testguest.Br(0)), false},
		"a call":                {g.call, true},
		"indirect call":         {testguest.Code(testguest.I32Const(0), testguest.Op(0x11, 2, 0)), true},
		"loop, then call":       {testguest.Code(g.loop, g.call), false},
		"call, then loop":       {testguest.Code(g.call, g.loop), true},
		"block, loop, call":     {testguest.Block(testguest.Loop(g.call)), false},
		"block left, loop":      {testguest.Code(testguest.Block(testguest.Br(0), g.loop), g.call), true},
		"loop in an if":         {testguest.Code(testguest.I32Const(0), testguest.If(g.loop), g.call), true},
		"conditional branch":    {testguest.Code(testguest.Block(testguest.I32Const(1), testguest.BrIf(0), g.loop), g.call), true},
		"return before a loop":  {testguest.Code(testguest.I32Const(1), testguest.If(testguest.Return), g.loop, g.call), true},
		"empty blocks, a call":  {testguest.Code(g.block, g.call), true},
		"call in a loop's body": {testguest.Loop(g.call), false},
	} {
		var b testguest.Builder
		b.Table(1)
		b.Func(nil, nil, nil, testguest.Code(c.code))
		b.Func(testguest.Types(i32), nil, nil)
		b.Func(testguest.Types(i64), nil, nil)
		m, err := wasmbin.Parse(b.Bytes(), wasmbin.DefaultLimits())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := needsLoop(m, 0); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestPreparedModuleHasNoCustomSectionsButNames(t *testing.T) {
	m, err := verify(testguest.CounterWith([]byte(`{}`), func(b *testguest.Builder) {
		b.Custom("producers", []byte("x"))
		b.Custom("name", []byte{0, 2, 1, 'm', 1, 4, 1, 0, 1, 'f', 2, 1, 0})
		b.Table(10)
	}), service.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	b, err := prepare(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wasmbin.Parse(b, wasmbin.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := got.Custom("producers"); ok {
		t.Error("producers is still there")
	}
	if names, ok := got.Custom("name"); !ok || !bytes.Equal(names, []byte{1, 4, 1, 0, 1, 'f'}) {
		t.Errorf("names %v", names)
	}
	if s := got.Tables[0].Size; !s.HasMax || s.Max != tableElements || s.Min != 10 {
		t.Errorf("table %+v", s)
	}
}

// FuzzPrepare: what passes verification is rewritten into a module that is well
// formed again and has the same interface.
func FuzzPrepare(f *testing.F) {
	f.Add(testguest.Counter("c"))
	f.Add(testguest.Liar{}.Bytes())
	for _, c := range testguest.Traps() {
		f.Add(c.Module)
	}
	f.Fuzz(func(t *testing.T, module []byte) {
		m, err := verify(module, service.DefaultLimits())
		if err != nil {
			if service.KindOf(err) != service.KindBadModule {
				t.Fatal(err)
			}
			return
		}
		b, err := prepare(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wasmbin.Parse(b, wasmbin.DefaultLimits())
		if err == nil {
			err = got.CheckCode(wasmbin.Limits{})
		}
		if err != nil {
			t.Fatalf("the prepared module: %v", err)
		}
		if len(got.Exports) != len(m.Exports) || len(got.Bodies) != len(m.Bodies) || len(got.Imports) != len(m.Imports) || got.Start != m.Start {
			t.Fatal("the prepared module has another interface")
		}
		for i := range got.Bodies {
			if again, err := needsLoop(got, i); err != nil || again {
				t.Fatalf("function %d still has no loop head: %v", i, err)
			}
		}
	})
}
