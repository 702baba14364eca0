package testguest

import (
	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// More instructions, for the zoo only.
var (
	refNull   = Op(0xd0, 0x70)
	tableGrow = Op(0xfc, 0x0f, 0)
	tableFill = Op(0xfc, 0x11, 0)
	tableCopy = Op(0xfc, 0x0e, 0, 0)
)

// tailCall is return_call.
func tailCall(function uint32) []byte { return withIndex(0x12, function) }

// callIndirect calls through table 0.
func callIndirect(typ uint32) []byte { return append(withIndex(0x11, typ), 0) }

// tailCallIndirect is return_call_indirect through table 0.
func tailCallIndirect(typ uint32) []byte { return append(withIndex(0x13, typ), 0) }

// firstOwn is the first function that Liar.With adds, if there are no imports: reserve and call come before it.
const firstOwn = 2

// Spinners returns guests that never end; each uses its fuel in another way. None needs more than 8 MiB.
func Spinners() []Misbehaviour {
	var out []Misbehaviour
	add := func(name string, l Liar, code ...[]byte) {
		l.Code = map[abi.RequestKind][]byte{abi.ReqCommand: Code(Code(code...), I64Const(0))}
		out = append(out, Misbehaviour{name, l.Bytes(), abi.ReqCommand, service.KindGuestFuel, "spent its fuel"})
	}
	wasi := func(name string, params ...wasmbin.ValType) Liar {
		return Liar{Imports: []Import{{"wasi_snapshot_preview1", name, params, Types(I32)}}}
	}
	all := func(op []byte) []byte { // of all memory, in one instruction
		return Loop(I32Const(0), I32Const(0), MemorySize, I32Const(16), Op(0x74), op, Br(0))
	}
	table := Liar{With: func(b *Builder) { b.Table(1000) }}

	add("endless loop", Liar{}, Loop(Br(0)))
	add("loop with a condition only", Liar{}, Loop(I32Const(1), BrIf(0)))
	add("loop in a loop", Liar{}, Loop(Loop(I32Const(0), BrIf(0)), Br(0)))
	add("loop through a table", Liar{}, Loop(I32Const(0), BrTable(0, 0)))
	targets := make([]uint32, 4096)
	add("loop through a large table", Liar{}, Loop(Block(
		Get(1), I32Const(1), I32Add, Set(1), Get(1), I32Const(4095), I32And, BrTable(targets...)), Br(0)))
	add("loop that calls nothing much", Liar{With: func(b *Builder) {
		b.Func(nil, nil, nil)
	}}, Loop(Call(firstOwn), Br(0)))
	add("loop of indirect calls", Liar{With: func(b *Builder) {
		f := b.Func(nil, nil, nil)
		b.Table(1)
		b.Element(f)
	}}, Loop(I32Const(0), callIndirect(2), Br(0)))
	add("tail calls of itself", Liar{With: func(b *Builder) {
		b.Func(nil, nil, nil, tailCall(firstOwn))
	}}, Call(firstOwn))
	add("tail calls in a ring", Liar{With: func(b *Builder) {
		b.Func(Types(I32), Types(I32), nil, Get(0), tailCall(firstOwn+1))
		b.Func(Types(I32), Types(I32), nil, Get(0), I32Const(1), I32Add, tailCall(firstOwn))
	}}, I32Const(0), Call(firstOwn), Drop)
	add("tail calls through the table", Liar{With: func(b *Builder) {
		f := b.Func(Types(I32), Types(I32), nil, Get(0), I32Const(0), tailCallIndirect(0))
		b.Table(1)
		b.Element(f)
	}}, I32Const(0), Call(firstOwn), Drop)
	add("tree of calls", Liar{With: func(b *Builder) {
		// Each function calls the next one twice; there are no loops.
		first := uint32(len(b.funcs))
		for k := range uint32(60) {
			b.Func(nil, nil, nil, Call(first+k+1), Call(first+k+1))
		}
		b.Func(nil, nil, nil)
	}}, Call(firstOwn))
	add("tree of indirect calls", Liar{With: func(b *Builder) {
		var tree []uint32
		for k := range int32(60) {
			tree = append(tree, b.Func(nil, nil, nil, I32Const(k+1), callIndirect(2), I32Const(k+1), callIndirect(2)))
		}
		tree = append(tree, b.Func(nil, nil, nil))
		b.Table(uint64(len(tree)))
		b.Element(tree...)
	}}, Call(firstOwn))

	add("loop that fills memory", Liar{}, all(MemoryFill))
	add("loop that copies memory", Liar{}, all(MemoryCopy))
	add("loop that fills nothing", Liar{}, Loop(I32Const(0), I32Const(1), I32Const(0), MemoryFill, Br(0)))
	add("loop that grows memory by nothing", Liar{}, Loop(I32Const(0), MemoryGrow, Drop, Br(0)))
	add("loop that takes all memory", Liar{}, Loop(I32Const(1), MemoryGrow, Drop, Br(0)))
	add("loop that asks for all memory there is", Liar{}, Loop(I32Const(-1), MemoryGrow, Drop, Br(0)))
	add("loop that fills a table", table, Loop(I32Const(0), refNull, I32Const(1000), tableFill, Br(0)))
	add("loop that copies a table", table, Loop(I32Const(0), I32Const(0), I32Const(1000), tableCopy, Br(0)))
	add("loop that grows a table", table, Loop(refNull, I32Const(1), tableGrow, Drop, Br(0)))

	add("loop that asks the time", wasi("clock_time_get", I32, I64, I32),
		Loop(I32Const(1), I64Const(0), I32Const(LiarScratch), Call(0), Drop, Br(0)))
	add("loop that draws random bytes", wasi("random_get", I32, I32),
		Loop(I32Const(LiarScratch), I32Const(4096), Call(0), Drop, Br(0)))
	add("loop that draws memory full of random bytes", wasi("random_get", I32, I32),
		Loop(I32Const(0), I32Const(LiarBytes), Call(0), Drop, Br(0)))
	add("loop that sleeps", wasi("poll_oneoff", I32, I32, I32, I32), Loop(I32Const(LiarScratch),
		I32Const(LiarScratch+64), I32Const(1), I32Const(LiarScratch+128), Call(0), Drop, Br(0)))
	add("loop that polls all of memory", wasi("poll_oneoff", I32, I32, I32, I32),
		Loop(I32Const(0), I32Const(0), I32Const(LiarBytes/48), I32Const(8), Call(0), Drop, Br(0)))
	add("loop that writes all of memory as vectors", wasi("fd_write", I32, I32, I32, I32),
		Loop(I32Const(1), I32Const(0), I32Const(LiarBytes/8), I32Const(8), Call(0), Drop, Br(0)))
	add("loop that reads files", wasi("fd_read", I32, I32, I32, I32),
		Loop(I32Const(0), I32Const(0), I32Const(0), I32Const(0), Call(0), Drop, Br(0)))
	add("loop that opens files", wasi("path_open", I32, I32, I32, I32, I32, I64, I64, I32, I32), Loop(
		I32Const(3), I32Const(0), I32Const(0), I32Const(1), I32Const(0), I64Const(0), I64Const(0), I32Const(0),
		I32Const(8), Call(0), Drop, Br(0)))
	add("loop that logs nothing", Liar{Imports: []Import{{abi.ImportModule, abi.ImportLog, Types(I32, I32, I32), nil}}},
		Loop(I32Const(1), I32Const(8), I32Const(0), Call(0), Br(0)))
	add("loop that leaves fault messages",
		Liar{Imports: []Import{{abi.ImportModule, abi.ImportFault, Types(I32, I32), nil}}},
		Loop(I32Const(8), I32Const(LiarBytes-8), Call(0), Br(0)))
	return out
}

// Recursions returns guests that call deeper and deeper.
func Recursions() []Misbehaviour {
	var out []Misbehaviour
	add := func(name string, with func(b *Builder), code ...[]byte) {
		l := Liar{With: with, Code: map[abi.RequestKind][]byte{abi.ReqCommand: Code(Code(code...), I64Const(0))}}
		out = append(out, Misbehaviour{name, l.Bytes(), abi.ReqCommand, service.KindGuestStack, "call stack"})
	}
	add("recursion", func(b *Builder) {
		b.Func(Types(I64), Types(I64), Types(I64, I64, I64, I64), Get(0), I64Const(1), I64Add, Call(firstOwn), Get(0),
			I64Add)
	}, I64Const(0), Call(firstOwn), Drop)
	add("recursion without anything", func(b *Builder) {
		b.Func(nil, nil, nil, Call(firstOwn), Op(0x01))
	}, Call(firstOwn))
	add("mutual recursion", func(b *Builder) {
		b.Func(nil, nil, nil, Call(firstOwn+1), Op(0x01))
		b.Func(nil, nil, nil, Call(firstOwn), Op(0x01))
	}, Call(firstOwn))
	add("recursion through the table", func(b *Builder) {
		f := b.Func(Types(I32), Types(I32), nil, Get(0), I32Const(0), callIndirect(0), I32Const(1), I32Add)
		b.Table(1)
		b.Element(f)
	}, I32Const(0), Call(firstOwn), Drop)
	add("recursion with many locals", func(b *Builder) {
		// All locals are live across the call, so the compiler cannot remove them.
		locals := make([]wasmbin.ValType, 2000)
		var before, after []byte
		for k := range locals {
			locals[k] = I64
			before = Code(before, Get(0), I64Const(int64(k)), I64Add, Set(uint32(k+1)))
			after = Code(after, Get(uint32(k+1)), I64Add)
		}
		b.Func(Types(I64), Types(I64), locals, before, Get(0), I64Const(1), I64Add, Call(firstOwn), after)
	}, I64Const(0), Call(firstOwn), Drop)
	add("recursion with a deep operand stack", func(b *Builder) {
		var push, pop []byte
		for range 500 {
			push, pop = Code(push, Get(0), I64Const(3), Op(0x7e)), Code(pop, I64Add)
		}
		b.Func(Types(I64), Types(I64), nil, push, Get(0), I64Const(1), I64Add, Call(firstOwn), pop)
	}, I64Const(0), Call(firstOwn), Drop)
	return out
}

// Reachers returns guests that try to change their meter while they run. Each sets all its globals to a large
// value, or calls all functions in its table, and then spins. It must run out of fuel all the same.
func Reachers() []Misbehaviour {
	var out []Misbehaviour
	add := func(name string, with func(b *Builder), code ...[]byte) {
		l := Liar{With: with,
			Code: map[abi.RequestKind][]byte{abi.ReqCommand: Code(Code(code...), Loop(Br(0)), I64Const(0))}}
		out = append(out, Misbehaviour{name, l.Bytes(), abi.ReqCommand, service.KindGuestFuel, "spent its fuel"})
	}
	add("global of its own set high", func(b *Builder) {
		b.Export("fuel", wasmbin.ExternGlobal, b.GlobalI32(0))
		b.Export("stack", wasmbin.ExternGlobal, b.GlobalI32(0))
	}, I32Const(1<<31-1), GlobalSet(0), I32Const(1<<31-1), GlobalSet(1))
	add("names of the meter in the name section", func(b *Builder) {
		f := b.Func(nil, nil, nil)
		b.Table(1)
		b.Element(f)
		// function names: 0 "bulkhead_meter_v1.refuel"
		const name = "bulkhead_meter_v1.refuel"
		names := append([]byte{1, 0, byte(len(name))}, name...)
		b.Custom("name", append([]byte{1, byte(len(names))}, names...))
	}, I32Const(0), callIndirect(2))
	add("every function in the table", func(b *Builder) {
		f := b.Func(nil, nil, nil)
		b.Table(3)
		b.Element(f, f, f)
	}, I32Const(0), callIndirect(2), I32Const(1), callIndirect(2), I32Const(2), callIndirect(2))
	return out
}

// Grabbers returns modules that refer to their meter, or to something that is not theirs. They must be refused
// at upload.
func Grabbers() []Broken {
	var b Builder
	b.ImportFunc("bulkhead_meter_v1", "refuel", nil, nil)
	b.Memory(1, 0)
	memoryExport(&b)
	reserveAndCall(&b)
	reserved := func(name string, kind wasmbin.ExternKind) []byte {
		return Liar{With: func(b *Builder) {
			b.GlobalI32(0)
			b.Export(name, kind, 0)
		}}.Bytes()
	}
	return []Broken{
		{"imports the meter", b.Bytes(), []string{"bulkhead_meter_v1.refuel"}},
		{"exports the fuel", reserved("bulkhead_meter_v1.fuel", wasmbin.ExternGlobal),
			[]string{"bulkhead_meter_v1.fuel", "reserved"}},
		{"exports the stack", reserved("bulkhead_meter_v1.stack", wasmbin.ExternFunc),
			[]string{"bulkhead_meter_v1.stack", "reserved"}},
		{"exports the setup", reserved("bulkhead_meter_v1.setup", wasmbin.ExternFunc),
			[]string{"bulkhead_meter_v1.setup", "reserved"}},
		{"exports a captured global", reserved("bulkhead_meter_v1.global.0", wasmbin.ExternGlobal),
			[]string{"bulkhead_meter_v1.global.0", "reserved"}},
		{"reads a global past its own", raw(0, 0x23, 0, 0x1a, 0x0b), []string{"global"}},
		{"sets a global past its own", raw(0, 0x42, 0x7f, 0x24, 0, 0x0b), []string{"global"}},
		{"sets a global far past its own", raw(0, 0x42, 0x7f, 0x24, 5, 0x0b), []string{"global"}},
		{"calls a function past its own", raw(0, 0x10, 3, 0x0b), []string{"function"}},
		{"tail calls a function past its own", raw(0, 0x12, 4, 0x0b), []string{"function"}},
		{"takes a reference past its own", raw(0, 0xd2, 3, 0x1a, 0x0b), []string{"function"}},
		{"has a function past its own in the table", Liar{With: func(b *Builder) {
			b.Table(1)
			b.Element(2)
		}}.Bytes(), []string{"function"}},
		{"exports a function past its own", Liar{With: func(b *Builder) {
			b.Export("f", wasmbin.ExternFunc, 2)
		}}.Bytes(), []string{"function"}},
		{"exports a global past its own", Liar{With: func(b *Builder) {
			b.Export("g", wasmbin.ExternGlobal, 0)
		}}.Bytes(), []string{"global"}},
		{"starts a function past its own", Liar{With: func(b *Builder) { b.Start(2) }}.Bytes(), []string{"function"}},
	}
}

// Reserves returns guests whose first mailbox is right, and whose next one, for a request of more than 16 KiB,
// is wrong.
func Reserves() []Misbehaviour {
	var out []Misbehaviour
	add := func(name string, kind service.Kind, want string, l Liar, code ...[]byte) {
		l.Reserve = Code(Get(0), I32Const(16<<10), I32GtU, If(Code(code...), Return), I32Const(LiarMailbox))
		out = append(out, Misbehaviour{name, l.Bytes(), abi.ReqCommand, kind, want})
	}
	add("reserve that returns 0", service.KindProtocol, "refused a mailbox", Liar{}, I32Const(0))
	add("reserve unaligned", service.KindProtocol, "not a multiple of 8", Liar{}, I32Const(LiarMailbox+4))
	add("reserve out of range", service.KindProtocol, "outside of memory", Liar{}, I32Const(LiarBytes))
	add("reserve partly out of range", service.KindProtocol, "outside of memory", Liar{}, I32Const(LiarBytes-8))
	add("reserve that wraps", service.KindProtocol, "outside of memory", Liar{}, I32Const(-8))
	add("reserve that traps", service.KindTrap, "unreachable", Liar{}, Unreachable, I32Const(0))
	add("reserve that spins", service.KindGuestFuel, "spent its fuel", Liar{}, Loop(Br(0)), I32Const(0))
	add("reserve that exits", service.KindGuestExit, "proc_exit(9)", Liar{
		Imports: []Import{{"wasi_snapshot_preview1", "proc_exit", Types(I32), nil}}}, I32Const(9), Call(0), I32Const(0))
	return out
}
