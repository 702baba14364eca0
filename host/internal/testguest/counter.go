package testguest

import (
	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// Commands of the counter, by type number.
const (
	CounterAdd    = 0 // one event "added"; replies with the new count
	CounterEcho   = 1 // no event; replies with the command's data
	CounterNop    = 2 // no event; replies null
	CounterReject = 3 // rejects with code "no"
	CounterFault  = 4 // emits an event and faults with code "error"
	CounterTrap   = 5 // executes unreachable
	CounterSpin   = 6 // never ends
	CounterGrow   = 7 // allocates all memory that it can get, and traps
	CounterAdd3   = 8 // three events "added"; replies with the new count
)

// CounterManifest is the counter's manifest under a service name.
func CounterManifest(name string) abi.Manifest {
	m := abi.Manifest{
		ABI: abi.Version, Service: name, Version: "1", SDK: "testguest",
		Queries: []abi.QueryType{{Name: "count"}, {Name: "spin"}},
		Events:  []abi.EventType{{Name: "added", Aliases: []string{"incremented"}}},
	}
	for _, c := range []string{"add", "echo", "nop", "reject", "fault", "trap", "spin", "grow", "add3"} {
		m.Commands = append(m.Commands, abi.CommandType{Name: c})
	}
	return m
}

// Addresses in the counter's memory.
const (
	describeAt = 0x400   // the answer to Describe
	stateAt    = 0x10000 // a count (u64) for each of 65,536 slots
	stateSlots = 65536
	outAt      = 0x90000 // answers
	outEnd     = 0xa0000
	mailboxAt  = outEnd // to the end of memory, which grows with it
	startPages = mailboxAt>>16 + 1
)

// Counter returns a complete service that counts, with one counter for each entity. It conforms to the ABI. As
// the smallest possible guest it shows what the host itself costs. Its other commands fail in the ways in
// which a service can fail. It has 65,536 slots.
func Counter(name string) []byte {
	m := CounterManifest(name)
	return CounterWith(m.AppendJSON(nil), nil)
}

// CounterWith is Counter with another manifest. If more is not nil, it adds to the module.
func CounterWith(manifest []byte, more func(*Builder)) []byte {
	return CounterOf(manifest, Weaknesses{}, more)
}

// Weaknesses are what a counter cannot do, or only slowly. Zero fields have no effect.
type Weaknesses struct {
	Toil    int32 // number of steps of work for each event, when it is emitted and when it is replayed
	FaultAt int64 // the count at which replaying fails: every event from there on is a Fault
	NaNAt   int64 // the count that it cannot encode
	HugeAt  int64 // the count whose snapshot has 17 MiB
	TrapAt  int64 // the count at which replaying traps
	Step    int64 // what each event adds to the count; 0 means 1
}

// CounterOf is CounterWith for a counter with weaknesses.
func CounterOf(manifest []byte, weak Weaknesses, more func(*Builder)) []byte {
	var b Builder
	b.Memory(startPages, 0)
	describe := abi.AppendBody(nil, abi.Response{Kind: abi.RespDescription}, manifest)
	if len(describe) > stateAt-describeAt {
		panic("testguest: manifest is too large for the counter")
	}
	b.Data(describeAt, describe)

	frame := b.Func(Types(I32, I32, I32, I32, I32, I32, I32), Types(I32), Types(I32), frameCode())
	number := b.Func(Types(I32, I64), Types(I32), Types(I32, I64), numberCode())
	reserve := b.Func(Types(I32), Types(I32), Types(I32), reserveCode())
	call := b.Func(Types(I32), Types(I64), Types(I32, I32, I32, I32, I32, I32, I32, I32, I32, I64, I32),
		counterCode(frame, number, len(describe), weak))
	b.Export(abi.ExportMemory, wasmbin.ExternMemory, 0)
	b.Export(abi.ExportReserve, wasmbin.ExternFunc, reserve)
	b.Export(abi.ExportCall, wasmbin.ExternFunc, call)
	if more != nil {
		more(&b)
	}
	return b.Bytes()
}

// frameCode is frame(out, kind, type, slot, index, aux, payload): it writes a response header and returns the
// end of the frame.
func frameCode() []byte {
	const out, kind, typ, slot, index, aux, payload, size = 0, 1, 2, 3, 4, 5, 6, 7
	return Code(
		Get(payload), I32Const(abi.ResponseHeaderSize+7), I32Add, I32Const(-8), I32And, Set(size),
		Get(out), Get(size), Store32(0),
		Get(out), Get(kind), Store8(4),
		Get(out), I32Const(0), Store8(5),
		Get(out), Get(typ), Store16(6),
		Get(out), Get(slot), Store32(8),
		Get(out), Get(payload), Store32(12),
		Get(out), Get(index), Store32(16),
		Get(out), Get(aux), Store32(20),
		Get(out), Get(size), I32Add,
	)
}

// numberCode is number(at, v): it writes v in decimal and returns the length.
func numberCode() []byte {
	const at, v, n, t = 0, 1, 2, 3
	return Code(
		Get(v), Set(t),
		Loop(
			Get(n), I32Const(1), I32Add, Set(n),
			Get(t), I64Const(10), I64DivU, Set(t),
			Get(t), I64Eqz, I32Eqz, BrIf(0),
		),
		Get(at), Get(n), I32Add, Set(at),
		Loop(
			Get(at), I32Const(1), I32Sub, Set(at),
			Get(at), Get(v), I64Const(10), I64RemU, I32Wrap, I32Const('0'), I32Add, Store8(0),
			Get(v), I64Const(10), I64DivU, Set(v),
			Get(v), I64Eqz, I32Eqz, BrIf(0),
		),
		Get(n),
	)
}

// reserveCode is reserve(n): it returns the mailbox, and grows memory for it.
func reserveCode() []byte {
	const n, pages = 0, 1
	return Code(
		Get(n), I32Const(mailboxAt+0xffff), I32Add, I32Const(16), I32ShrU, Set(pages),
		Get(pages), MemorySize, I32GtU, If(
			Get(pages), MemorySize, I32Sub, MemoryGrow, I32Const(-1), I32Eq, If(I32Const(0), Return),
		),
		I32Const(mailboxAt),
	)
}

// counterCode is call(n): it returns the packed range of the answer.
func counterCode(frame, number uint32, describe int, weak Weaknesses) []byte {
	const n, p, end, out, kind, slot, index, state, size, events, v, step = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
	var toil []byte
	more := I64Const(max(weak.Step, 1))
	if weak.Toil > 0 {
		toil = Code(I32Const(weak.Toil), Set(step), Loop(Get(step), I32Const(1), I32Sub, Set(step), Get(step), BrIf(0)))
	}
	// respond(kind, type, aux) writes the header of a frame whose payload of size bytes has been
	// written after it, and moves on.
	respond := func(k abi.ResponseKind, aux []byte) []byte {
		return Code(
			Get(out), I32Const(int32(k)), I32Const(0), Get(slot), Get(index), aux, Get(size), Call(frame), Set(out),
		)
	}
	const body = abi.ResponseHeaderSize + 8 // where the body of a frame with one body begins
	// text writes a payload of two lengths and their fields, of at most 16 bytes together.
	text := func(first, second string) []byte {
		c := Code(
			Get(out), I32Const(int32(len(first))), Store32(abi.ResponseHeaderSize),
			Get(out), I32Const(int32(len(second))), Store32(abi.ResponseHeaderSize+4),
		)
		for i, ch := range []byte(first + second) {
			c = Code(c, Get(out), I32Const(int32(ch)), Store8(body+uint32(i)))
		}
		return Code(c, I32Const(int32(8+len(first)+len(second))), Set(size))
	}
	zero := I32Const(0)
	count := Code( // reply with the count
		Get(out), Get(out), I32Const(body), I32Add, Get(v), Call(number), Store32(abi.ResponseHeaderSize),
		Get(out), zero, Store32(abi.ResponseHeaderSize+4),
		Get(out), Load32(abi.ResponseHeaderSize), I32Const(8), I32Add, Set(size),
		respond(abi.RespReply, Get(events)),
	)
	// either runs weakly if the count is n, and well otherwise. Without a weakness it costs nothing.
	either := func(has bool, n int64, weakly, well []byte) []byte {
		if !has {
			return well
		}
		is := Code(Get(v), I64Const(n), I64Eq)
		return Code(is, If(weakly), is, I32Eqz, If(well))
	}
	add := Code( // one event
		toil,
		text("{}", ""), respond(abi.RespEvent, zero),
		Get(v), more, I64Add, Set(v),
		Get(state), Get(v), Store64(0),
		Get(events), I32Const(1), I32Add, Set(events),
	)
	bodyAt := Code(Get(p), I32Const(64), I32Add, Get(p), Load32(48), I32Add, Get(p), Load32(52), I32Add)
	echo := Code(
		Get(p), Load32(56), Set(size),
		Get(size), I32Const(outEnd-outAt-1024), I32GtU, If(Unreachable),
		Get(out), Get(size), Store32(abi.ResponseHeaderSize),
		Get(out), zero, Store32(abi.ResponseHeaderSize+4),
		Get(out), I32Const(body), I32Add, bodyAt, Get(size), MemoryCopy,
		Get(size), I32Const(8), I32Add, Set(size),
		respond(abi.RespReply, zero),
	)
	commands := [][]byte{
		CounterAdd:    Code(add, count),
		CounterEcho:   echo,
		CounterNop:    Code(text("null", ""), respond(abi.RespReply, zero)),
		CounterReject: Code(text("no", "refused"), respond(abi.RespReject, zero)),
		CounterFault:  Code(add, text("error", "broken"), respond(abi.RespFault, zero)),
		CounterTrap:   Unreachable,
		CounterSpin:   Loop(Br(0)),
		CounterGrow:   Code(Loop(I32Const(16), MemoryGrow, I32Const(-1), I32Eq, I32Eqz, BrIf(0)), Unreachable),
		CounterAdd3:   Code(add, add, add, count),
	}
	queries := [][]byte{count, Loop(Br(0))}
	typ := Code(Get(p), Load16(6))
	unknown := Code(text("unknown_type", ""), respond(abi.RespFault, zero))
	requests := [][]byte{
		0: Unreachable,
		abi.ReqOpen: Code( // from the snapshot's count, or from 0
			I64Const(0), Set(v),
			Get(p), Load8(5), I32Const(int32(abi.FlagSnapshot)), I32And, If(
				Get(p), Get(p), Load32(32), I32Add, Load64(40), Set(v),
			),
			Get(state), Get(v), Store64(0),
		),
		abi.ReqApply: Code(toil, either(weak.FaultAt > 0, weak.FaultAt-1,
			Code(text("bad_event", "no luck"), respond(abi.RespFault, zero)),
			either(weak.TrapAt > 0, weak.TrapAt-1, Unreachable,
				Code(Get(state), Get(v), more, I64Add, Store64(0))),
		)),
		abi.ReqCommand: choose(typ, commands, unknown),
		abi.ReqQuery:   choose(typ, queries, unknown),
		abi.ReqSnapshot: either(weak.HugeAt > 0, weak.HugeAt,
			Code(I32Const(300), MemoryGrow, Drop, I64Const(int64(abi.PackRange(startPages<<16, 17<<20))), Return),
			either(weak.NaNAt > 0, weak.NaNAt,
				Code(text("error", "NaN"), respond(abi.RespFault, zero)),
				Code(
					Get(out), I32Const(8), Store32(abi.ResponseHeaderSize),
					Get(out), zero, Store32(abi.ResponseHeaderSize+4),
					Get(out), Get(v), Store64(body),
					I32Const(16), Set(size), respond(abi.RespSnapshot, zero),
				)),
		),
		abi.ReqDrop: Code(Get(state), I64Const(0), Store64(0)),
		abi.ReqDescribe: Code(
			Get(out), I32Const(describeAt), I32Const(int32(describe)), MemoryCopy,
			Get(out), I32Const(int32(describe)), I32Add, Set(out),
		),
	}
	return Code(
		I32Const(mailboxAt), Set(p),
		I32Const(mailboxAt), Get(n), I32Add, Set(end),
		I32Const(outAt), Set(out),
		Block(Loop(
			Get(p), Get(end), I32GeU, BrIf(1),
			Get(p), Load8(4), Set(kind),
			Get(p), Load32(8), Set(slot),
			Get(slot), I32Const(stateSlots), I32GeU, If(Unreachable),
			Get(slot), I32Const(8), I32Mul, I32Const(stateAt), I32Add, Set(state),
			Get(state), Load64(0), Set(v),
			zero, Set(events),
			choose(Get(kind), requests, Unreachable),
			Get(p), Get(p), Load32(0), I32Add, Set(p),
			Get(index), I32Const(1), I32Add, Set(index),
			Br(0),
		)),
		I64Const(outAt), I64Const(32), I64Shl, Get(out), I32Const(outAt), I32Sub, I64Extend, I64Or,
	)
}

// choose runs the case whose number is on the stack, or otherwise if there is no such case.
func choose(number []byte, cases [][]byte, otherwise []byte) []byte {
	targets := make([]uint32, len(cases)+1)
	for i := range targets {
		targets[i] = uint32(i)
	}
	code := Block(number, BrTable(targets...))
	for i, c := range cases {
		// After the block of case i. Leaving all other blocks goes to the end.
		code = Block(code, c, Br(uint32(len(cases)-i)))
	}
	return Block(code, otherwise)
}
