package testguest

import (
	"slices"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// More instructions, for slow guests only.
var (
	i32LtU   = Op(0x49)
	i32Shl   = Op(0x74)
	f64Mul   = Op(0xa2)
	f64Div   = Op(0xa3)
	f64Sqrt  = Op(0x9f)
	i64DivS  = Op(0x7f)
	tableSet = Op(0x26, 0)
)

func tee(local uint32) []byte { return withIndex(0x22, local) }

// f64Bits pushes the number with these bits.
func f64Bits(v uint64) []byte {
	b := []byte{0x44}
	for i := range 8 {
		b = append(b, byte(v>>(8*i)))
	}
	return b
}

func times(n int, code []byte) []byte { return slices.Repeat(code, n) }

// HostileGuest is a guest that costs its host more time, memory or log than its fuel says, or that once did.
// It is a complete service with command "c", query "q" and event "e". It attacks the host in the command and
// the query.
type HostileGuest struct {
	// Name describes the attack.
	Name string
	// Ends says that its calls end by themselves.
	Ends bool
	// Make returns the module, for a service of that name.
	Make func(service string) []byte
}

// HostileGuests returns all of them. None needs more than 64 MiB.
func HostileGuests() []HostileGuest {
	return []HostileGuest{
		{"chase", false, Chase},
		{"denormal", false, Denormal},
		{"divsqrt", false, DivSqrt},
		{"reffunc", false, RefFunc},
		{"grow0", false, Grow0},
		{"tablegrow0", false, TableGrow0},
		{"faults", true, Faults},
		{"copy", false, BulkCopy},
		{"fill", false, BulkFill},
		{"init", false, BulkInit},
		{"tablecopy", false, BulkTable},
		{"straight", false, Straight},
		{"deepreturns", false, DeepReturns},
		{"fdwrite", false, FdWrite},
		{"logframes", true, LogFrames},
		{"bigreply", true, BigReply},
		{"bigevent", true, BigEvent},
		{"slowinit", true, SlowInit},
	}
}

// Addresses in a hostile guest's memory.
const (
	hostileRanges     = 0x100 // packed ranges of its answers, by kind of request
	hostileIovecs     = 0x300 // with space for the result of a call
	hostileAnswers    = 0x1000
	hostileMailbox    = 2 << 20
	hostileMailboxEnd = 4 << 20
	hostileFree       = hostileMailboxEnd // free memory begins here
	hostilePages      = hostileFree >> 16
)

// hostile describes a guest that runs some code first, and is honest otherwise. The code has locals 1 to 3
// (i32), 4 (i64), 5 and 6 (f64), and leaves nothing on the stack. If it ends, an honest answer follows. It may
// also return the range of another answer.
type hostile struct {
	service    string
	pages      uint64 // in addition to the memory of every guest
	imports    []Import
	command    []byte
	query      []byte // nil: the same as command
	initialize []byte
	with       func(*Builder)
}

// hostileFunctions is the number of functions before those that hostile.with adds, except imports, if there is
// no code for _initialize.
const hostileFunctions = 2

func (h hostile) bytes() []byte {
	var b Builder
	for _, x := range h.imports {
		b.ImportFunc(x.Module, x.Name, x.Params, x.Results)
	}
	b.Memory(hostilePages+h.pages, 0)
	manifest := abi.Manifest{
		ABI: abi.Version, Service: h.service, Version: "1", SDK: "testguest",
		Commands: []abi.CommandType{{Name: "c"}}, Queries: []abi.QueryType{{Name: "q"}},
		Events: []abi.EventType{{Name: "e"}},
	}
	answers := Honest(0)
	answers[abi.ReqDescribe] = abi.AppendBody(nil, abi.Response{Kind: abi.RespDescription}, manifest.AppendJSON(nil))
	at := uint32(hostileAnswers)
	for kind := abi.ReqOpen; kind <= abi.ReqDescribe; kind++ {
		frames := answers[kind]
		if len(frames) == 0 {
			continue
		}
		b.Data(at, frames)
		packed := abi.PackRange(at, uint32(len(frames)))
		entry := make([]byte, 8)
		for i := range entry {
			entry[i] = byte(packed >> (8 * i))
		}
		b.Data(hostileRanges+8*uint32(kind), entry)
		at += uint32(len(frames)+7) &^ 7
	}
	b.Export(abi.ExportMemory, wasmbin.ExternMemory, 0)
	b.Export(abi.ExportReserve, wasmbin.ExternFunc, b.Func(Types(I32), Types(I32), nil,
		Get(0), I32Const(hostileMailboxEnd-hostileMailbox), I32GtU, If(I32Const(0), Return), I32Const(hostileMailbox)))
	b.Export(abi.ExportCall, wasmbin.ExternFunc, b.Func(Types(I32), Types(I64), Types(I32, I32, I32, I64, F64, F64),
		h.call(len(Honest(0)[abi.ReqCommand]))))
	if h.initialize != nil {
		b.Export(abi.ExportInitialize, wasmbin.ExternFunc, b.Func(nil, nil, Types(I32, I32, I32, I32, I64, F64, F64),
			h.initialize))
	}
	if h.with != nil {
		h.with(&b)
	}
	return b.Bytes()
}

// call runs the code for a command or query, and then answers honestly about the slot of the first frame.
func (h hostile) call(commandBytes int) []byte {
	kind := Code(I32Const(hostileMailbox), Load8(4))
	query := h.query
	if query == nil {
		query = h.command
	}
	// The frames of the answers are patched. An event's length is the rest after the reply.
	reply := len(abi.AppendBody(nil, abi.Response{Kind: abi.RespReply, Aux: 1}, []byte(`1`)))
	start := Code(kind, I32Const(8), I32Mul, Load64(hostileRanges), I64Const(32), Op(0x88), I32Wrap) // i64.shr_u
	patch := func(k abi.RequestKind, offsets ...int) []byte {
		var code []byte
		for _, o := range offsets {
			code = Code(code, start, I32Const(hostileMailbox), Load32(8), Store32(uint32(o+8)))
		}
		return Code(kind, I32Const(int32(k)), I32Eq, If(code))
	}
	return Code(
		kind, I32Const(int32(abi.ReqCommand)), I32Eq, If(h.command),
		kind, I32Const(int32(abi.ReqQuery)), I32Eq, If(query),
		patch(abi.ReqCommand, 0, commandBytes-reply), patch(abi.ReqQuery, 0), patch(abi.ReqSnapshot, 0),
		kind, I32Const(8), I32Mul, Load64(hostileRanges),
	)
}

// hostileFrame writes the beginning of a frame with a body of that length. The body itself begins 32 bytes
// later. It returns the total length of the frame.
func hostileFrame(at uint32, kind abi.ResponseKind, body, aux uint32) (code []byte, size uint32) {
	size = (abi.ResponseHeaderSize + 8 + body + 7) &^ 7
	if kind == abi.RespEvent {
		size = uint32(len(abi.AppendEvent(nil, 0, 0, 0, make([]byte, body), nil)))
	}
	word := func(offset uint32, v []byte) []byte { return Code(I32Const(int32(at)), v, Store32(offset)) }
	return Code(
		word(0, I32Const(int32(size))), word(4, I32Const(int32(kind))),
		word(8, Code(I32Const(hostileMailbox), Load32(8))),
		word(12, I32Const(int32(8+body))), word(16, I32Const(0)), word(20, I32Const(int32(aux))),
		word(24, I32Const(int32(body))), word(28, I32Const(0)),
	), size
}

func hostileRange(at, size uint32) []byte {
	return Code(I64Const(int64(abi.PackRange(at, size))), Return)
}

// hostileBody fills a body with a JSON string.
func hostileBody(at, size uint32) []byte {
	return Code(
		I32Const(int32(at)), I32Const('x'), I32Const(int32(size)), MemoryFill,
		I32Const(int32(at)), I32Const('"'), Store8(0), I32Const(int32(at+size-1)), I32Const('"'), Store8(0))
}

// endless repeats code, which must leave nothing on the stack.
func endless(code ...[]byte) []byte { return Loop(Code(code...), Br(0)) }

// keepResult stores a float, so that no compiler removes its computation.
func keepResult(local uint32) []byte {
	return Code(I32Const(hostileIovecs), Get(local), memory(0x39, 0, 0)) // f64.store
}

// A ring of pointers through 32 MiB, one in each cache line, in an order that no processor predicts.
const (
	ringLines = 1 << 19
	ringPages = ringLines * 64 >> 16
)

// ringCode makes the ring, with local 1.
func ringCode() []byte {
	line := func(i []byte) []byte { return Code(I32Const(hostileFree), i, I32Const(6), i32Shl, I32Add) }
	return Code(I32Const(0), Set(1), Loop(
		line(Get(1)),
		// a full period
		line(Code(Get(1), I32Const(1664525), I32Mul, I32Const(1013904223), I32Add, I32Const(ringLines-1), I32And)),
		Store32(0),
		Get(1), I32Const(1), I32Add, tee(1), I32Const(ringLines), i32LtU, BrIf(0)))
}

// chaseCode follows the ring, beginning with local 1.
func chaseCode(loads int) []byte { return Code(Get(1), times(loads, Load32(0)), Set(1)) }

// Chase follows pointers through 32 MiB: each load waits for the one before it, and for memory.
func Chase(service string) []byte {
	return hostile{service: service, pages: ringPages, initialize: ringCode(),
		command: Code(I32Const(hostileFree), Set(1), endless(chaseCode(200)))}.bytes()
}

// Denormal multiplies denormal numbers, which takes a hundred times as long on some processors.
func Denormal(service string) []byte {
	return hostile{service: service, command: Code(
		f64Bits(0x000f_ffff_ffff_ffff), Set(5), endless(
			Get(5), times(200, Code(f64Bits(0x3fef_ffff_ffff_ffff), f64Mul)), Set(5), keepResult(5)))}.bytes()
}

// DivSqrt divides and takes square roots, each of the last result.
func DivSqrt(service string) []byte {
	return hostile{service: service, command: Code(
		f64Bits(0x3ff8_0000_0000_0001), Set(5), I64Const(-1<<62+12345), Set(4), endless(
			Get(5), times(100, Code(f64Sqrt, f64Bits(0x3fef_0000_0000_0007), f64Div)), Set(5),
			Get(4), times(100, Code(I64Const(3), i64DivS, I64Const(-1<<62+999), I64Add)), Set(4),
			keepResult(5), I32Const(hostileIovecs+8), Get(4), Store64(0)))}.bytes()
}

// RefFunc takes references to a function. For each, the machine code calls its runtime.
func RefFunc(service string) []byte {
	return hostile{service: service, command: endless(times(100, Op(0xd2, hostileFunctions, 0x1a))),
		with: func(b *Builder) {
			f := b.Func(nil, nil, nil)
			b.ElementRaw(3, 0, 1, byte(f)) // declares that the code takes its reference
		}}.bytes()
}

// Grow0 grows its memory by nothing. For each, the machine code calls its runtime.
func Grow0(service string) []byte {
	return hostile{service: service, command: endless(I32Const(0), MemoryGrow, Drop)}.bytes()
}

// TableGrow0 likewise grows a table by nothing.
func TableGrow0(service string) []byte {
	return hostile{service: service, with: func(b *Builder) { b.Table(1) },
		command: endless(times(50, Code(refNull, I32Const(0), tableGrow, Drop)))}.bytes()
}

// Faults writes to each page of 60 MiB, and traps, so that all of it must be restored.
func Faults(service string) []byte {
	const pages = 960
	return hostile{service: service, pages: pages - hostilePages, command: Code(
		I32Const(hostileFree), Set(1),
		Loop(Get(1), I32Const(2), Store8(0), Get(1), I32Const(4096), I32Add, tee(1), I32Const(pages<<16), i32LtU,
			BrIf(0)),
		Unreachable)}.bytes()
}

// bulkBytes is the memory on which the bulk guests work with one instruction.
const bulkBytes = 56 << 20

// BulkCopy copies most of its memory at once.
func BulkCopy(service string) []byte {
	return hostile{service: service, pages: bulkBytes>>16 + 1, command: endless(
		I32Const(hostileFree), I32Const(hostileFree+4097), I32Const(bulkBytes), MemoryCopy,
		I32Const(hostileFree+4097), I32Const(hostileFree), I32Const(bulkBytes), MemoryCopy)}.bytes()
}

// BulkFill fills most of its memory at once.
func BulkFill(service string) []byte {
	return hostile{service: service, pages: bulkBytes>>16 + 1,
		command: endless(I32Const(hostileFree), I32Const(1), I32Const(bulkBytes), MemoryFill)}.bytes()
}

// BulkInit copies a large data segment into its memory.
func BulkInit(service string) []byte {
	const size = 8 << 20
	return hostile{service: service, pages: size >> 16,
		command: endless(I32Const(hostileFree), I32Const(0), I32Const(size), Op(0xfc, 8, 0, 0)),
		with:    func(b *Builder) { b.Passive(make([]byte, size)) }}.bytes()
}

// BulkTable copies, fills and grows the largest table that a guest may have.
func BulkTable(service string) []byte {
	const size = 100_000
	return hostile{service: service, with: func(b *Builder) { b.Table(size) }, command: endless(
		I32Const(0), I32Const(1), I32Const(size-1), tableCopy,
		I32Const(1), I32Const(0), I32Const(size-1), tableCopy,
		I32Const(0), refNull, I32Const(size), tableFill)}.bytes()
}

// Straight follows 200,000 pointers in code without a branch.
func Straight(service string) []byte {
	return hostile{service: service, pages: ringPages, initialize: ringCode(),
		command: Code(I32Const(hostileFree), Set(1), endless(chaseCode(200_000)))}.bytes()
}

// DeepReturns calls itself some thousand levels deep, and works when the calls return: a little at each level,
// as slowly as possible.
func DeepReturns(service string) []byte {
	const f = hostileFunctions + 1 // _initialize comes before
	return hostile{service: service, pages: ringPages, initialize: ringCode(),
		command: Code(I32Const(hostileFree), Set(1), endless(I32Const(4000), Get(1), Call(f), Set(1))),
		with: func(b *Builder) {
			b.Func(Types(I32, I32), Types(I32), nil,
				Get(0), If(Get(0), I32Const(1), I32Sub, Get(1), Call(f), Set(1)), Get(1), times(250, Load32(0)))
		}}.bytes()
}

// FdWrite writes the same 64 KiB of zeros 65,000 times in one call.
func FdWrite(service string) []byte {
	const n = 65_000
	at := int32(hostileFree)
	vectors := Code(
		I32Const(at), I32Const(at+n*8), Store32(0), I32Const(at), I32Const(65_537), Store32(4),
		I32Const(8), Set(1),
		// Copy the vectors to the memory after them until there are enough.
		Loop(I32Const(at), Get(1), I32Add, I32Const(at), Get(1), MemoryCopy,
			Get(1), I32Const(1), i32Shl, tee(1), I32Const(n*8/2+1), i32LtU, BrIf(0)),
		I32Const(at), Get(1), I32Add, I32Const(at), I32Const(n*8), Get(1), I32Sub, MemoryCopy)
	return hostile{service: service, pages: n*8>>16 + 3,
		imports: []Import{{"wasi_snapshot_preview1", "fd_write", Types(I32, I32, I32, I32), Types(I32)}},
		command: Code(vectors, endless(I32Const(2), I32Const(at), I32Const(n), I32Const(hostileIovecs), Call(0),
			Drop))}.bytes()
}

// LogFrames answers with 120,000 empty Log frames.
func LogFrames(service string) []byte {
	const n, size = 120_000, abi.ResponseHeaderSize + 8
	word := func(offset uint32, v []byte) []byte { return Code(Get(1), v, Store32(offset)) }
	answer := func(events uint32) []byte {
		const end = hostileFree + n*size
		event, eventBytes := hostileFrame(end, abi.RespEvent, 1, 0)
		at := uint32(end)
		if events > 0 {
			event, at = Code(event, I32Const(end), I32Const('1'), Store8(32)), end+eventBytes
		} else {
			event = nil
		}
		reply, replyBytes := hostileFrame(at, abi.RespReply, 1, events)
		return Code(
			I32Const(hostileFree), Set(1),
			Loop(word(0, I32Const(size)), word(4, I32Const(int32(abi.RespLog))),
				word(8, Code(I32Const(hostileMailbox), Load32(8))),
				word(12, I32Const(8)), word(16, I32Const(0)), word(20, I32Const(1)), word(24, I32Const(0)),
				word(28, I32Const(0)),
				Get(1), I32Const(size), I32Add, tee(1), I32Const(end), i32LtU, BrIf(0)),
			event, reply, I32Const(int32(at)), I32Const('1'), Store8(32),
			hostileRange(hostileFree, at+replyBytes-hostileFree))
	}
	return hostile{service: service, pages: n*size>>16 + 2, command: answer(1), query: answer(0)}.bytes()
}

// hostileBig is the length of a body that makes an answer of nearly 4 MiB.
const hostileBig = 4<<20 - 4096

// BigReply answers with a reply of nearly 4 MiB, which takes no work to make.
func BigReply(service string) []byte {
	frame, size := hostileFrame(hostileFree, abi.RespReply, hostileBig, 0)
	code := Code(frame, hostileBody(hostileFree+32, hostileBig), hostileRange(hostileFree, size))
	return hostile{service: service, pages: 65, command: code}.bytes()
}

// BigEvent answers a command with an event of nearly 4 MiB.
func BigEvent(service string) []byte {
	event, size := hostileFrame(hostileFree, abi.RespEvent, hostileBig, 0)
	reply, replySize := hostileFrame(hostileFree+size, abi.RespReply, 1, 1)
	code := Code(event, hostileBody(hostileFree+32, hostileBig), reply,
		I32Const(int32(hostileFree+size)), I32Const('1'), Store8(32), hostileRange(hostileFree, size+replySize))
	return hostile{service: service, pages: 65, command: code, query: []byte{}}.bytes()
}

// SlowInit takes some seconds to start. Each shard starts it again, as it has a table, which no image holds.
func SlowInit(service string) []byte {
	return hostile{service: service, pages: ringPages,
		initialize: Code(ringCode(), I32Const(hostileFree), Set(1), I32Const(0), Set(2),
			Loop(chaseCode(200), Get(2), I32Const(1), I32Add, tee(2), I32Const(200_000), i32LtU, BrIf(0))),
		with: func(b *Builder) {
			b.Table(1)
			b.Func(nil, nil, nil, I32Const(0), refNull, tableSet)
		}}.bytes()
}
