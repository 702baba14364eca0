package meteringtest

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/tetratelabs/wazero/api"
)

// THREATS, Calls: a module that tries to reach the meter. An index beyond the module's own does not
// refer to what was added, wherever it is.
func TestIndexesPastTheEndAreRefused(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	leb := func(op byte, index uint32) []byte { return wasmbin.AppendU32([]byte{op}, index) }
	body := func(code func(past uint32) []byte) func(*testguest.Builder, uint32) {
		return func(b *testguest.Builder, past uint32) { b.Func(nil, nil, i32s, code(past)) }
	}
	for name, attack := range map[string]func(b *testguest.Builder, past uint32){
		"call":        body(func(i uint32) []byte { return testguest.Call(3 + i) }),
		"return_call": body(func(i uint32) []byte { return leb(0x12, 3+i) }),
		"ref.func":    body(func(i uint32) []byte { return append(leb(0xd2, 3+i), testguest.Drop...) }),
		"global.get":  body(func(i uint32) []byte { return append(testguest.GlobalGet(1+i), testguest.Drop...) }),
		"global.set": body(func(i uint32) []byte {
			return testguest.Code(testguest.I64Const(1<<40), testguest.GlobalSet(1+i))
		}),
		"global.set dead": body(func(i uint32) []byte {
			return testguest.Code(testguest.Unreachable, testguest.GlobalSet(1+i))
		}),
		"call dead": body(func(i uint32) []byte { return testguest.Code(testguest.Return, testguest.Call(3+i)) }),
		"local.get": body(func(i uint32) []byte {
			return testguest.Code(testguest.I32Const(0), testguest.MemoryGrow, testguest.Drop, testguest.Get(1+i),
				testguest.Drop)
		}),
		"local.set": body(func(i uint32) []byte {
			return testguest.Code(testguest.I32Const(0), testguest.MemoryGrow, testguest.Set(1+i))
		}),
		"call_indirect": body(func(i uint32) []byte {
			return testguest.Code(testguest.I32Const(0), leb(0x11, 2+i), []byte{0})
		}),
		"block type": body(func(i uint32) []byte { return testguest.Code([]byte{0x02, byte(2 + i)}, testguest.End()) }),
		"label":      body(func(i uint32) []byte { return testguest.Br(1 + i) }),
		"element": func(b *testguest.Builder, i uint32) {
			b.Func(nil, nil, nil)
			b.Element(3 + i)
		},
		"element by expression": func(b *testguest.Builder, i uint32) {
			b.Func(nil, nil, nil)
			b.ElementRaw(5, 0x70, 1, 0xd2, byte(3+i), 0x0b)
		},
		"element's place": func(b *testguest.Builder, i uint32) {
			b.Func(nil, nil, nil)
			b.ElementRaw(0, 0x23, byte(1+i), 0x0b, 1, 0)
		},
		"global's value": func(b *testguest.Builder, i uint32) {
			b.Func(nil, nil, nil)
			b.GlobalRaw([]byte{0x70, 0, 0xd2, byte(3 + i), 0x0b})
		},
		"global of a global": func(b *testguest.Builder, i uint32) {
			b.Func(nil, nil, nil)
			b.GlobalRaw([]byte{0x7e, 0, 0x23, byte(2 + i), 0x0b})
		},
		"data's place": func(b *testguest.Builder, i uint32) {
			b.Func(nil, nil, nil)
			b.DataRaw([]byte{0, 0x23, byte(1 + i), 0x0b, 0})
		},
		"data's place, own": func(b *testguest.Builder, i uint32) {
			b.Func(nil, nil, nil)
			b.DataRaw([]byte{0, 0x23, 0, 0x0b, 0})
		},
		"data's place, a call": func(b *testguest.Builder, i uint32) {
			b.Func(nil, nil, nil)
			b.DataRaw([]byte{0, 0x10, byte(i), 0x0b, 0})
		},
		"export": func(b *testguest.Builder, i uint32) {
			b.Func(nil, nil, nil)
			b.Export("x", wasmbin.ExternFunc, 3+i)
		},
		"exported global": func(b *testguest.Builder, i uint32) {
			b.Func(nil, nil, nil)
			b.Export("x", wasmbin.ExternGlobal, 1+i)
		},
		"start": func(b *testguest.Builder, i uint32) { b.Func(nil, nil, nil); b.Start(3 + i) },
		"memory.init": func(b *testguest.Builder, i uint32) {
			b.Data(0, []byte("x"))
			b.DataCount()
			b.Func(nil, nil, nil, testguest.I32Const(0), testguest.I32Const(0), testguest.I32Const(0),
				testguest.Op(0xfc, 8, byte(1+i), 0))
		},
		"data.drop without a count": func(b *testguest.Builder, i uint32) {
			b.Data(0, []byte("x"))
			b.Func(nil, nil, nil, testguest.Op(0xfc, 9, byte(i)))
		},
	} {
		for past := range uint32(6) {
			// One import, two functions with two types, a global, a memory and a table.
			var b testguest.Builder
			b.ImportFunc("env", "host", nil, nil)
			b.Func(i32s, i32s, nil, testguest.Get(0))
			b.GlobalI32(0)
			b.Memory(1, 1)
			b.Table(4)
			attack(&b, past)
			if _, err := Rewrite(b.Bytes(), metering.Options{}); err == nil {
				t.Errorf("%s, %d past the end: accepted", name, past)
			}
		}
	}
}

// A rewritten module does not refer to the meter by elements, references or exports.
func TestNothingRefersToTheMeter(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	modules := [][]byte{zoo(), fibonacci(), testguest.Counter("c")}
	for i := range uint64(30) {
		modules = append(modules, Generate(rand.New(rand.NewPCG(i, 9))))
	}
	files, err := filepath.Glob(filepath.Join(specDir(t), "v2", "testdata", "*.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		modules = append(modules, b)
	}
	held := 0
	for _, module := range modules {
		m, err := Rewrite(module, metering.Options{})
		if err != nil {
			continue
		}
		before, _ := wasmbin.Parse(module, wasmbin.Limits{})
		after, err := wasmbin.Parse(m.Binary, wasmbin.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		held++
		imported, own := uint32(before.Imported(wasmbin.ExternFunc)), uint32(len(before.Functions))
		helpers := map[uint32]bool{} // what the module's own code may call
		after.EachFunctionName(func(f uint32, name string) {
			rest, ours := strings.CutPrefix(name, metering.ImportModule+".")
			if ours && f >= imported+2+own && (rest == "check" || strings.HasPrefix(rest, "memory.") ||
				strings.HasPrefix(rest, "table.")) {
				helpers[f] = true
			}
		})
		fuel := uint32(before.Imported(wasmbin.ExternGlobal) + len(before.Globals))
		meters := func(f uint32) bool { return f >= imported && f < imported+2 || f >= imported+2+own }
		refer := func(what string, in *wasmbin.Instr) {
			if in.Op == wasmbin.OpRefFunc && meters(in.Index) {
				t.Errorf("%s: ref.func %d", what, in.Index)
			}
		}
		for _, e := range after.Elements {
			if e.Exprs {
				if err := after.WalkExpr(e.Members, func(in *wasmbin.Instr) { refer("element", in) }); err != nil {
					t.Fatal(err)
				}
				continue
			}
			for b := after.Slice(e.Members); len(b) > 0; {
				d := decoder{b: b}
				if f := uint32(d.u()); meters(f) {
					t.Errorf("element %d", f)
				}
				b = d.b
			}
		}
		for i := range after.Bodies {
			if err := after.Walk(i, wasmbin.Limits{}, func(in *wasmbin.Instr) {
				refer("code", in)
				if in.Op == wasmbin.OpCall && meters(in.Index) && !helpers[in.Index] && uint32(i) < own {
					t.Errorf("function %d calls function %d of the meter", i, in.Index)
				}
				if in.Op == wasmbin.OpGlobalSet && in.Index >= fuel+2 {
					t.Errorf("function %d sets global %d of the meter", i, in.Index)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range after.Exports {
			ours := strings.HasPrefix(e.Name, metering.ReservedPrefix)
			if e.Kind == wasmbin.ExternFunc && meters(e.Index) && !ours {
				t.Errorf("export %q is function %d", e.Name, e.Index)
			}
			if e.Kind == wasmbin.ExternGlobal &&
				int(e.Index) >= before.Imported(wasmbin.ExternGlobal)+len(before.Globals) && !ours {
				t.Errorf("export %q is global %d", e.Name, e.Index)
			}
		}
	}
	if held < 1000 {
		t.Errorf("only %d of %d modules were rewritten", held, len(modules))
	}
}

// Names follow their functions. A name of a function that does not exist names nothing, and a broken
// list of names is left out.
func TestNamesFollowTheirFunctions(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	names := func(pairs ...any) []byte {
		b := wasmbin.AppendU32(nil, uint32(len(pairs)/2))
		for i := 0; i < len(pairs); i += 2 {
			b = wasmbin.AppendName(wasmbin.AppendU32(b, uint32(pairs[i].(int))), pairs[i+1].(string))
		}
		return append(wasmbin.AppendU32([]byte{1}, uint32(len(b))), b...)
	}
	for _, c := range []struct {
		list []byte
		want map[int]string
	}{
		{names(0, "host", 1, "first", 2, "second"), map[int]string{0: "host", 3: "first", 4: "second",
			5: "bulkhead_meter_v1.check"}},
		{names(2, "second"), map[int]string{4: "second"}},
		{names(3, "past", 4, "past", 1<<32-1, "past"), map[int]string{5: "bulkhead_meter_v1.check"}},
		{names(1, "bulkhead_meter_v1.check"), map[int]string{3: "bulkhead_meter_v1.check"}},
		{names(2, "twice", 2, "twice"), map[int]string{2: "bulkhead_meter_v1.stack"}},
		{append(names(1, "cut"), 1, 0xff), map[int]string{1: "bulkhead_meter_v1.refuel"}},
	} {
		var b testguest.Builder
		b.ImportFunc("env", "host", nil, nil)
		b.Func(nil, nil, nil)
		b.Func(nil, nil, nil)
		b.Custom("name", c.list)
		m, err := Rewrite(b.Bytes(), metering.Options{})
		if err != nil {
			t.Fatal(err)
		}
		after, err := wasmbin.Parse(m.Binary, wasmbin.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		got := map[int]string{}
		after.EachFunctionName(func(i uint32, s string) { got[int(i)] = s })
		for i, want := range c.want {
			if got[i] != want {
				t.Errorf("%q: function %d is named %q, want %q", c.list, i, got[i], want)
			}
		}
		for i, s := range got {
			if s == "past" {
				t.Errorf("%q: function %d has the name of one that does not exist", c.list, i)
			}
		}
	}
}

// Custom sections are removed, tables are bounded, and the meter's globals do not replace those of
// the module.
func TestWhatElseChanges(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	var b testguest.Builder
	b.Custom("producers", []byte("x"))
	b.Table(10)
	g := b.GlobalI32(7)
	b.Func(nil, nil, nil)
	b.Export("g", wasmbin.ExternGlobal, g)
	in, m := start(t, Compiler, b.Bytes(), metering.Options{})
	after, err := wasmbin.Parse(m.Binary, wasmbin.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := after.Custom("producers"); ok {
		t.Error("a custom section is still there")
	}
	if s := after.Tables[0].Size; !s.HasMax || s.Max != metering.TableMax || s.Min != 10 {
		t.Errorf("table %+v", s)
	}
	if m.Setup || !m.Imageable || len(m.Globals) != 1 || in.ExportedGlobal("g").Get() != 7 {
		t.Errorf("%+v", m)
	}
	if api.ValueType(m.Globals[0].Type) != api.ValueTypeI32 {
		t.Errorf("type %v", m.Globals[0].Type)
	}
}

func TestFeaturesAreRefusedByName(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	module := func(build func(*testguest.Builder)) []byte {
		var b testguest.Builder
		build(&b)
		return b.Bytes()
	}
	code := func(ops ...byte) []byte {
		return module(func(b *testguest.Builder) { b.Memory(1, 1); b.Func(nil, nil, nil, ops) })
	}
	for want, m := range map[string][]byte{
		"threads are not supported": module(func(b *testguest.Builder) {
			b.MemoryRaw(3, 1, 1)
		}),
		"memory64 is not supported": module(func(b *testguest.Builder) { b.MemoryRaw(4, 1) }),
		"several memories are not supported": module(func(b *testguest.Builder) {
			b.Memory(1, 1)
			b.Memory(1, 1)
		}),
		"a table may have 100000":                         module(func(b *testguest.Builder) { b.Table(100_001) }),
		"threads (atomic instructions) are not supported": code(0xfe, 3, 0),
		"exceptions are not supported":                    code(0x08, 0),
		"garbage collection and typed references are not": code(0x14, 0),
		"relaxed vector instructions are not supported":   code(0xfd, 0x80, 2),
		"several memories are not supported (alignment":   code(0x41, 0, 0x28, 0x42, 1, 0, 0x1a),
		"exceptions (tags) are not supported":             append(module(func(*testguest.Builder) {}), 13, 1, 0),
		"types of the garbage collection proposal are not ": append(module(func(*testguest.Builder) {}), 1, 4, 1, 0x5f,
			0, 0),
	} {
		if _, err := Rewrite(m, metering.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
