package testguest

import (
	"fmt"
	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// Broken is a module that must be refused at upload.
type Broken struct {
	Name   string
	Module []byte
	Want   []string // texts that the reasons must contain
}

// exported builds a module with the exports of a guest, changed by change.
func exported(change func(b *Builder)) []byte {
	var b Builder
	change(&b)
	return b.Bytes()
}

// reserveAndCall adds the two functions of a guest.
func reserveAndCall(b *Builder) {
	b.Export(abi.ExportReserve, wasmbin.ExternFunc, b.Func(Types(I32), Types(I32), nil, I32Const(8)))
	b.Export(abi.ExportCall, wasmbin.ExternFunc, b.Func(Types(I32), Types(I64), nil, I64Const(0)))
}

func memoryExport(b *Builder) { b.Export(abi.ExportMemory, wasmbin.ExternMemory, 0) }

// raw builds a liar with one function whose body is given as bytes.
func raw(body ...byte) []byte {
	return Liar{With: func(b *Builder) {
		b.Func(nil, nil, nil)
		b.RawBody(body)
	}}.Bytes()
}

// Statically returns modules that break a rule which can be checked without running them.
func Statically() []Broken {
	repeat := func(b []byte, n int) []byte {
		out := make([]byte, 0, n*len(b))
		for range n {
			out = append(out, b...)
		}
		return out
	}
	return []Broken{
		{"not wasm", []byte("#!/bin/sh\necho hello\n"), []string{"not WebAssembly"}},
		{"empty", nil, []string{"empty"}},
		{"component", []byte("\x00asm\x0d\x00\x01\x00\x00\x00"), []string{"component", "core module"}},
		{"version", []byte("\x00asm\x07\x00\x00\x00"), []string{"version other than 1"}},
		{"nothing in it", []byte("\x00asm\x01\x00\x00\x00"), []string{
			`no memory`, `"bulkhead_v1_reserve" is missing; expected is a function (i32) -> (i32)`,
			`"bulkhead_v1_call" is missing; expected is a function (i32) -> (i64)`}},
		{"everything wrong", exported(func(b *Builder) {
			b.ImportFunc("env", "system", Types(I32), Types(I32))
			b.ImportFunc("bulkhead_v1", "log", Types(I32), nil)
			b.Export(abi.ExportReserve, wasmbin.ExternFunc, b.Func(Types(I64), Types(I32), nil, I32Const(8)))
			b.Export("bulkhead_meter", wasmbin.ExternFunc, 2)
		}), []string{
			"import env.system is unknown",
			"allowed imports are: bulkhead_v1.fault, bulkhead_v1.log, env.abort, wasi_snapshot_preview1.*",
			"import bulkhead_v1.log has the signature (i32) -> (); expected is (i32, i32, i32) -> ()",
			"(i64) -> (i32); expected is (i32) -> (i32)", `"bulkhead_v1_call" is missing`, "bulkhead_meter is reserved",
			"no memory"}},
		{"no memory", exported(reserveAndCall), []string{"no memory"}},
		{"memory not exported", exported(func(b *Builder) {
			b.Memory(1, 0)
			reserveAndCall(b)
		}), []string{`export "memory" is missing`}},
		{"memory is a function", exported(func(b *Builder) {
			b.Memory(1, 0)
			reserveAndCall(b)
			b.Export(abi.ExportMemory, wasmbin.ExternFunc, 0)
		}), []string{`export "memory" is a function`}},
		{"two memories", exported(func(b *Builder) {
			b.Memory(1, 0)
			b.Memory(1, 0)
			memoryExport(b)
			reserveAndCall(b)
		}), []string{"2 memories; a guest has one"}},
		{"shared memory", exported(func(b *Builder) {
			b.MemoryRaw(3, 1, 2)
			memoryExport(b)
			reserveAndCall(b)
		}), []string{"shared (threads)"}},
		{"64-bit memory", exported(func(b *Builder) {
			b.MemoryRaw(4, 1)
			memoryExport(b)
			reserveAndCall(b)
		}), []string{"64-bit (memory64)"}},
		{"memory too large", exported(func(b *Builder) {
			b.Memory(65536, 0)
			memoryExport(b)
			reserveAndCall(b)
		}), []string{"starts with 65536 pages"}},
		{"imported memory", exported(func(b *Builder) {
			b.ImportRaw("env", "memory", 2, 0, 1)
			memoryExport(b)
		}), []string{"import env.memory is a memory; a guest owns its memory"}},
		{"imported table", Liar{With: func(b *Builder) {
			b.ImportRaw("env", "table", 1, 0x70, 0, 1)
		}}.Bytes(), []string{"import env.table is a table; only functions"}},
		{"imported global", Liar{With: func(b *Builder) {
			b.ImportRaw("env", "g", 3, 0x7f, 0)
		}}.Bytes(), []string{"import env.g is a global; only functions"}},
		{"unknown WASI function",
			Liar{Imports: []Import{{"wasi_snapshot_preview1", "fd_teleport", Types(I32), Types(I32)}}}.Bytes(),
			[]string{"wasi_snapshot_preview1.fd_teleport is unknown"}},
		{"WASI with another signature",
			Liar{Imports: []Import{{"wasi_snapshot_preview1", "fd_write", Types(I32), Types(I32)}}}.Bytes(),
			[]string{
				"wasi_snapshot_preview1.fd_write has the signature (i32) -> (i32); expected is " +
					"(i32, i32, i32, i32) -> (i32)"}},
		{"reserved export", Liar{With: func(b *Builder) {
			b.Export("bulkhead_v1_refuel", wasmbin.ExternFunc, 0)
		}}.Bytes(), []string{"bulkhead_v1_refuel is reserved"}},
		{"reserved dotted export", Liar{With: func(b *Builder) {
			b.Export("bulkhead.fuel", wasmbin.ExternMemory, 0)
		}}.Bytes(), []string{"bulkhead.fuel is reserved"}},
		{"call with two results", exported(func(b *Builder) {
			b.Memory(1, 0)
			memoryExport(b)
			b.Export(abi.ExportReserve, wasmbin.ExternFunc, b.Func(Types(I32), Types(I32), nil, I32Const(8)))
			b.Export(abi.ExportCall, wasmbin.ExternFunc, b.Func(Types(I32), Types(I32, I32), nil, I32Const(8),
				I32Const(8)))
		}), []string{`"bulkhead_v1_call" has the signature (i32) -> (i32, i32); expected is (i32) -> (i64)`}},
		{"initialize with a parameter", Liar{With: func(b *Builder) {
			b.Export(abi.ExportInitialize, wasmbin.ExternFunc, 0)
		}}.Bytes(), []string{`"_initialize" has the signature (i32) -> (i32); expected is () -> ()`}},
		{"a program, no reactor", exported(func(b *Builder) {
			b.Memory(1, 0)
			memoryExport(b)
			b.Export("_start", wasmbin.ExternFunc, b.Func(nil, nil, nil))
		}), []string{"build it as a reactor"}},
		{"threads", raw(0, 0xfe, 0x03, 0, 0x0b), []string{"threads"}},
		{"exceptions", raw(0, 0x08, 0, 0x0b), []string{"exceptions"}},
		{"garbage collection", raw(0, 0xfb, 0x00, 0, 0x0b), []string{"garbage collection"}},
		{"nesting bomb", raw(append(append([]byte{0}, repeat([]byte{0x02, 0x40}, 100_000)...), 0x0b)...),
			[]string{"nested more than 10000 deep"}},
		{"locals bomb", raw(1, 0xd0, 0x86, 0x03, 0x7f, 0x0b), []string{"more than 10000 locals"}},
		{"locals in many functions", Liar{With: func(b *Builder) {
			for range 1000 {
				b.Func(nil, nil, nil)
				b.RawBody([]byte{1, 0xd0, 0x86, 0x03, 0x7f, 0x0b})
			}
		}}.Bytes(), []string{"more than 10000 locals"}},
		{"branch table bomb",
			raw(append(append(append([]byte{0, 0x41, 0, 0x0e}, wasmbin.AppendU32(nil, 1_000_000)...),
				make([]byte, 1_000_001)...), 0x0b)...), []string{"1000000 branch targets"}},
		{"function bomb", raw(append(append([]byte{0}, repeat([]byte{0x01}, 7<<20)...), 0x0b)...),
			[]string{"this host accepts 2097152"}},
		{"many functions", Liar{With: func(b *Builder) {
			for range 100_000 {
				b.Func(nil, nil, nil)
			}
		}}.Bytes(), []string{"this host accepts 100000"}},
		{"many types", exported(func(b *Builder) {
			b.types = make([][]byte, 1_000_000)
			for i := range b.types {
				b.types[i] = []byte{0x60, 0, 0}
			}
		}), []string{"1000000 types; this host accepts 65536"}},
		{"table bomb", Liar{With: func(b *Builder) {
			b.Table(10_000_000)
		}}.Bytes(), []string{"a table of 10000000 elements"}},
		{"does not validate", raw(0, 0x1a, 0x0b), []string{"function[2]"}}, // drop from an empty stack
	}
}

// doubling returns a schema in which each step refers to the next one twice.
func doubling(steps int) string {
	text := `{"$ref":"#/$defs/0","$defs":{`
	for i := range steps {
		text += fmt.Sprintf(`"%d":{"allOf":[{"$ref":"#/$defs/%d"},{"$ref":"#/$defs/%d"}]},`, i, i+1, i+1)
	}
	return text + fmt.Sprintf(`"%d":{"type":"object"}}}`, steps)
}

// Dynamically returns modules that break a rule when they start.
func Dynamically() []Broken {
	manifest := func(change func(*abi.Manifest)) []byte {
		m := LiarManifest()
		change(&m)
		return m.AppendJSON(nil)
	}
	describe := func(frames []byte) Liar {
		return Liar{Answers: map[abi.RequestKind][]byte{abi.ReqDescribe: frames}}
	}
	schema := func(text string) []byte {
		return Liar{Manifest: manifest(func(m *abi.Manifest) { m.Commands[0].Input = text })}.Bytes()
	}
	spin := Loop(Br(0))
	return []Broken{
		{"initialize traps", Liar{Initialize: Unreachable}.Bytes(), []string{"initialising", "unreachable"}},
		{"initialize spins", Liar{Initialize: spin}.Bytes(), []string{"initialising", "guest_fuel", "spent its fuel"}},
		{"start traps", Liar{Start: Unreachable}.Bytes(), []string{"initialising", "unreachable"}},
		{"start spins", Liar{Start: spin}.Bytes(), []string{"initialising", "guest_fuel", "spent its fuel"}},
		{"initialize takes all memory",
			Liar{Initialize: Code(Loop(I32Const(1), MemoryGrow, I32Const(-1), I32Eq, I32Eqz, BrIf(0)),
				Unreachable)}.Bytes(), []string{"guest_memory"}},
		{"data outside of memory", Liar{With: func(b *Builder) {
			b.Data(LiarBytes-1, []byte("ab"))
		}}.Bytes(), []string{"initialising", "memory access out of bounds"}},
		{"describe traps", Liar{Code: map[abi.RequestKind][]byte{abi.ReqDescribe: Code(Unreachable)}}.Bytes(),
			[]string{"describing", "unreachable"}},
		{"describe spins", Liar{Code: map[abi.RequestKind][]byte{abi.ReqDescribe: Code(spin, Unreachable)}}.Bytes(),
			[]string{"describing", "guest_fuel", "spent its fuel"}},
		{"describe answers nothing", describe([]byte{}).Bytes(), []string{"no Description"}},
		{"describe answers garbage", describe([]byte("garbage garbage garbage garbage!")).Bytes(),
			[]string{"response frame 0"}},
		{"describe replies", describe(abi.AppendBody(nil, abi.Response{Kind: abi.RespReply}, nil)).Bytes(),
			[]string{"Reply does not answer Describe"}},
		{"a manifest of 1 GB",
			Liar{Ranges: map[abi.RequestKind]uint64{abi.ReqDescribe: abi.PackRange(8, 1<<30)}}.Bytes(),
			[]string{"outside of memory"}},
		{"manifest is no JSON", Liar{Manifest: []byte("hello")}.Bytes(), []string{"manifest is not the JSON object"}},
		{"manifest of another ABI", Liar{Manifest: []byte(`{"abi":7,"service":"liar"}`)}.Bytes(),
			[]string{"abi is 7; this host speaks 1"}},
		{"manifest with many faults",
			Liar{Manifest: []byte(
				`{"abi":1,"service":"Liar","commands":[{"name":"a b"},{"name":"x"},{"name":"x"}]}`)}.Bytes(),
			[]string{`"Liar"`, `"a b"`, `"x" is taken`}},
		{"another service's name", Liar{Manifest: manifest(func(m *abi.Manifest) {
			m.Service = "bank"
		})}.Bytes(), []string{`the module is service "bank"; it was uploaded as "liar"`}},
		{"a schema that refers outside", schema(`{"properties":{"a":{"$ref":"file:///etc/passwd"}}}`),
			[]string{`commands[0].input, of the command "c", cannot be used`, `refers to "file:///etc/passwd"`}},
		{"a schema with a number of a million digits", schema(`{"minimum":1e1000000}`),
			[]string{`the command "c"`, "at #/minimum"}},
		{"a schema that is no end of itself", schema(`{"anyOf":[{"$ref":"#"},{"type":"null"}]}`),
			[]string{`the command "c"`, "refers to itself"}},
		{"a schema that doubles at each step", schema(doubling(24)), []string{`the command "c"`,
			"looks at the same value more than"}},
		{"a schema with a pattern that is huge", schema(`{"pattern":"((((a{9}){9}){9}){9}){9}"}`),
			[]string{`the command "c"`, "the pattern"}},
		{"a schema that is none", schema(`{"type":"strnig","required":7}`),
			[]string{`the command "c"`, "it is not a JSON Schema"}},
		{"wants a capability", Liar{Manifest: manifest(func(m *abi.Manifest) {
			m.Capabilities = []string{"http"}
		})}.Bytes(), []string{`capability "http"`}},
		{"manifest section disagrees", Liar{With: func(b *Builder) {
			b.Custom(abi.ManifestSection, manifest(func(m *abi.Manifest) { m.Version = "2" }))
		}}.Bytes(), []string{"differ"}},
		{"manifest section is garbage", Liar{With: func(b *Builder) {
			b.Custom(abi.ManifestSection, []byte("{"))
		}}.Bytes(), []string{abi.ManifestSection}},
		{"reserve refuses", Liar{Reserve: I32Const(0)}.Bytes(), []string{"refused a mailbox"}},
		{"reserve traps", Liar{Reserve: Unreachable}.Bytes(), []string{"unreachable"}},
		{"reserve unaligned", Liar{Reserve: I32Const(LiarMailbox + 4)}.Bytes(), []string{"not a multiple of 8"}},
		{"reserve outside", Liar{Reserve: I32Const(LiarBytes)}.Bytes(), []string{"outside of memory"}},
		{"reserve partly outside", Liar{Reserve: I32Const(LiarBytes - 8)}.Bytes(), []string{"outside of memory"}},
		{"reserve wraps", Liar{Reserve: I32Const(-8)}.Bytes(), []string{"outside of memory"}},
		{"reserve exits", Liar{
			Imports: []Import{{"wasi_snapshot_preview1", "proc_exit", Types(I32), nil}},
			Reserve: Code(I32Const(9), Call(0), Unreachable),
		}.Bytes(), []string{"proc_exit(9)"}},
	}
}
