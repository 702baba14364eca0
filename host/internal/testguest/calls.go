package testguest

import (
	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Misbehaviour is a guest that passes the upload and then breaks a rule in a request about entity LiarSlot.
// About HonestSlot it is honest.
type Misbehaviour struct {
	Name   string
	Module []byte
	Asked  abi.RequestKind // the kind of request in which it breaks the rule
	Kind   service.Kind    // of the error
	Want   string          // in its message
}

// frames joins response frames.
func frames(f ...[]byte) []byte { return Code(f...) }

// Lies returns guests whose answers break the rules of the ABI.
func Lies() []Misbehaviour {
	var out []Misbehaviour
	add := func(name string, asked abi.RequestKind, l Liar, want string) {
		out = append(out, Misbehaviour{name, l.Bytes(), asked, service.KindProtocol, want})
	}
	at := func(name string, packed uint64, want string) {
		add(name, abi.ReqCommand, Liar{Ranges: map[abi.RequestKind]uint64{abi.ReqCommand: packed}}, want)
	}
	at("answer outside of memory", abi.PackRange(LiarBytes, 24), "outside of memory")
	at("answer partly outside", abi.PackRange(LiarBytes-8, 24), "outside of memory")
	at("answer that wraps", abi.PackRange(0xfffffff8, 24), "outside of memory")
	at("answer of all addresses", abi.PackRange(0xffffffff, 0xffffffff), "outside of memory")
	at("answer in the mailbox", abi.PackRange(LiarMailbox+8, 24), "overlaps the mailbox")
	at("answer around the mailbox", abi.PackRange(LiarMailbox-8, 1024), "overlaps the mailbox")
	at("answer at its end", abi.PackRange(LiarMailbox-16, 24), "overlaps the mailbox")
	at("answer without frames", abi.PackRange(LiarScratch, 24), "response frame 0: abi: frame length")
	at("answer shorter than a header", abi.PackRange(LiarScratch, 23), "fewer bytes than a frame header")

	command := func(name, want string, f ...[]byte) {
		add(name, abi.ReqCommand, Liar{Answers: map[abi.RequestKind][]byte{abi.ReqCommand: frames(f...)}}, want)
	}
	event := func(index uint32, typ uint16) []byte {
		return abi.AppendEvent(nil, LiarSlot, index, typ, []byte(`{}`), nil)
	}
	reply := func(aux uint32) []byte {
		return abi.AppendBody(nil, abi.Response{Kind: abi.RespReply, Slot: LiarSlot, Aux: aux}, []byte(`1`))
	}
	refuse := func(k abi.ResponseKind, code, message string) []byte {
		return abi.AppendRefusal(nil, abi.Response{Kind: k, Slot: LiarSlot}, code, message)
	}
	patch := func(f []byte, at int, b ...byte) []byte { // a frame with some bytes changed
		copy(f[at:], b)
		return f
	}
	command("frame length 0", "response frame 1: abi: frame length", event(0, 0), patch(reply(1), 0, 0, 0, 0, 0))
	command("frame length beyond the range", "response frame 0: abi: frame length", patch(reply(0), 0, 0xf0))
	command("frame length unaligned", "response frame 0: abi: frame length", patch(reply(0), 0, 33))
	command("payload beyond its frame", "response frame 0: abi: payload length", patch(reply(0), 12, 0xff))
	command("body beyond its payload", "Reply: abi: field length", patch(reply(0), 24, 0xff))
	command("body length that wraps", "Reply: abi: field", patch(reply(0), 24, 0xff, 0xff, 0xff, 0xff))
	command("payload too short", "Reply: abi: payload ends", patch(reply(0), 12, 4))
	command("wrong slot", "Reply is for slot 7; the request is for slot 1",
		abi.AppendBody(nil, abi.Response{Kind: abi.RespReply, Slot: 7}, nil))
	command("index beyond the request", "Reply answers request frame 1; the request has 1",
		abi.AppendBody(nil, abi.Response{Kind: abi.RespReply, Slot: LiarSlot, Index: 1}, nil))
	command("no answer", "the answer to Command has no Reply, Reject or Fault")
	command("no terminal", "has no Reply, Reject or Fault", event(0, 0))
	command("two replies", "response frame 1: Reply comes after Reply", reply(0), reply(0))
	command("reply and fault", "response frame 1: Fault comes after Reply", reply(0), refuse(abi.RespFault, "x", ""))
	command("event after the reply", "response frame 1: Event comes after Reply", reply(0), event(0, 0))
	command("unknown event", "Event of type 1; the manifest has 1", event(0, 1), reply(1))
	command("unknown event, large", "Event of type 65535", event(0, 65535), reply(1))
	command("events not counted", "Reply counts 0 events, but 1 came before it", event(0, 0), reply(0))
	command("events made up", "Reply counts 9 events, but 0 came before it", reply(9))
	command("rejection behind an event", "an error after an event is a Fault", event(0, 0),
		refuse(abi.RespReject, "no", ""))
	command("rejection without a code", "printable ASCII", refuse(abi.RespReject, "", "no"))
	command("rejection with a bad code", "printable ASCII", refuse(abi.RespReject, "a\nb", "no"))
	command("rejection with a long code", "Reject: abi: field is above its size limit",
		patch(refuse(abi.RespReject, string(make([]byte, 128)), "x"), 24, 129))
	command("unknown effect", "an Effect is unknown", abi.AppendBody(nil,
		abi.Response{Kind: abi.RespEffect, Slot: LiarSlot}, nil), reply(0))
	command("unknown kind", "unknown kind 77", abi.AppendBody(nil, abi.Response{Kind: 77, Slot: LiarSlot}, nil),
		reply(0))
	command("kind 0", "unknown kind 0", abi.AppendBody(nil, abi.Response{Slot: LiarSlot}, nil))
	command("snapshot to a command", "Snapshot does not answer Command",
		abi.AppendBody(nil, abi.Response{Kind: abi.RespSnapshot, Slot: LiarSlot}, nil))
	command("event metadata that lies", "metadata pairs do not fill",
		abi.AppendEvent(nil, LiarSlot, 0, 0, []byte(`{}`), []byte{9, 0, 9, 0}), reply(1))
	command("event metadata without a name", "have no name", abi.AppendEvent(nil, LiarSlot, 0, 0, []byte(`{}`),
		abi.Metadata(nil).AppendPair("", "x")), reply(1))
	command("event metadata that is no text", "not UTF-8", abi.AppendEvent(nil, LiarSlot, 0, 0, []byte(`{}`),
		abi.Metadata(nil).AppendPair("x", "\xff")), reply(1))
	command("event body no JSON", "Event: the body is not JSON", abi.AppendEvent(nil, LiarSlot, 0, 0,
		[]byte(`{"a":1},{"forged":1}`), nil), reply(1))
	command("reply body no JSON", "Reply: the body is not JSON", abi.AppendBody(nil,
		abi.Response{Kind: abi.RespReply, Slot: LiarSlot}, []byte("\xff")))

	other := func(name string, asked abi.RequestKind, want string, f ...[]byte) {
		add(name, asked, Liar{Answers: map[abi.RequestKind][]byte{asked: frames(f...)}}, want)
	}
	other("event to a query", abi.ReqQuery, "Event does not answer Query", event(0, 0), reply(1))
	other("query without an answer", abi.ReqQuery, "the answer to Query has no Reply, Reject or Fault")
	other("snapshot without an answer", abi.ReqSnapshot, "the answer to Snapshot has no Snapshot or Fault")
	other("reply to a snapshot", abi.ReqSnapshot, "Reply does not answer Snapshot", reply(0))
	other("reply to an open", abi.ReqOpen, "Reply does not answer", reply(0))
	other("event to an open", abi.ReqOpen, "Event does not answer", event(0, 0))
	other("fault to a drop", abi.ReqDrop, "Fault does not answer Drop", refuse(abi.RespFault, "x", ""))
	open := func(index uint32) []byte {
		return abi.AppendBody(nil, abi.Response{Kind: abi.RespLog, Slot: LiarSlot, Index: index}, []byte("x"))
	}
	other("indexes that decrease", abi.ReqOpen, "indexes do not decrease", open(1), open(0))

	many := make([]byte, 0, 64<<10)
	for range 1025 {
		many = append(many, event(0, 0)...)
	}
	out = append(out,
		Misbehaviour{"too many events", Liar{Answers: map[abi.RequestKind][]byte{abi.ReqCommand: many}}.Bytes(),
			abi.ReqCommand, service.KindOutcomeTooLarge, "more than 1024 events"},
		Misbehaviour{"outcome too large", Liar{Code: map[abi.RequestKind][]byte{abi.ReqCommand: Code(
			I32Const(100), MemoryGrow, Drop, I64Const(int64(abi.PackRange(LiarBytes, 5<<20))),
		)}}.Bytes(), abi.ReqCommand, service.KindOutcomeTooLarge, "the limit is 4194304"},
	)
	return out
}

// Traps returns guests that fail while they run.
func Traps() []Misbehaviour {
	var out []Misbehaviour
	add := func(name string, kind service.Kind, want string, l Liar, code ...[]byte) {
		l.Code = map[abi.RequestKind][]byte{abi.ReqCommand: Code(Code(code...), I64Const(0))}
		out = append(out, Misbehaviour{name, l.Bytes(), abi.ReqCommand, kind, want})
	}
	add("unreachable", service.KindTrap, "unreachable", Liar{}, Unreachable)
	add("load out of bounds", service.KindTrap, "memory access out of bounds", Liar{}, I32Const(-1), Load32(0), Drop)
	add("store out of bounds", service.KindTrap, "memory access out of bounds", Liar{}, I32Const(LiarBytes-3),
		I32Const(1), Store32(0))
	add("fill out of bounds", service.KindTrap, "memory access out of bounds", Liar{}, I32Const(0), I32Const(0),
		I32Const(LiarBytes+1), MemoryFill)
	add("division by zero", service.KindTrap, "integer division by zero", Liar{}, I32Const(1), I32Const(0), I32DivU,
		Drop)
	add("integer overflow", service.KindTrap, "integer overflow", Liar{}, I32Const(-1<<31), I32Const(-1), Op(0x6d),
		Drop)
	add("conversion of NaN", service.KindTrap, "no integer", Liar{}, Op(0x43, 0, 0, 0xc0, 0x7f), Op(0xa8), Drop)
	add("fault message", service.KindTrap, "unreachable: out of cheese", Liar{
		Imports: []Import{{abi.ImportModule, abi.ImportFault, Types(I32, I32), nil}},
		With:    func(b *Builder) { b.Data(LiarScratch, []byte("out of cheese")) },
	}, I32Const(LiarScratch), I32Const(13), Call(0), Unreachable)
	add("fault message outside", service.KindTrap, "outside of memory", Liar{
		Imports: []Import{{abi.ImportModule, abi.ImportFault, Types(I32, I32), nil}},
	}, I32Const(LiarBytes-1), I32Const(13), Call(0))
	add("log outside", service.KindTrap, "outside of memory", Liar{
		Imports: []Import{{abi.ImportModule, abi.ImportLog, Types(I32, I32, I32), nil}},
	}, I32Const(1), I32Const(8), I32Const(-1), Call(0))
	add("AssemblyScript abort", service.KindTrap, "index out of range (a.ts:3:4)", Liar{
		Imports: []Import{{"env", "abort", Types(I32, I32, I32, I32), nil}},
		With: func(b *Builder) {
			b.Data(LiarScratch, utf16String("index out of range"))
			b.Data(LiarScratch+0x100, utf16String("a.ts"))
		},
	}, I32Const(LiarScratch+4), I32Const(LiarScratch+0x104), I32Const(3), I32Const(4), Call(0))
	add("abort without strings", service.KindTrap, "abort", Liar{
		Imports: []Import{{"env", "abort", Types(I32, I32, I32, I32), nil}},
	}, I32Const(-1), I32Const(0), I32Const(3), I32Const(4), Call(0))
	add("exit", service.KindGuestExit, "proc_exit(42)", Liar{
		Imports: []Import{{"wasi_snapshot_preview1", "proc_exit", Types(I32), nil}},
	}, I32Const(42), Call(0))
	table := Liar{With: func(b *Builder) { b.Table(2); b.Element(0) }}
	// The liar's types are numbered in the order of use: reserve has 0, call has 1.
	add("indirect call out of bounds", service.KindTrap, "indirect call", table, I32Const(1), I32Const(7),
		Op(0x11, 0, 0), Drop)
	add("indirect call of nothing", service.KindTrap, "indirect call", table, I32Const(1), I32Const(1), Op(0x11, 0, 0),
		Drop)
	add("indirect call of another type", service.KindTrap, "another type", table, I32Const(1), I32Const(0),
		Op(0x11, 1, 0), Drop)

	add("memory bomb", service.KindGuestMemory, "memory limit", Liar{},
		Loop(I32Const(1), MemoryGrow, I32Const(-1), I32Eq, I32Eqz, BrIf(0)), Unreachable)
	add("memory bomb in one piece", service.KindGuestMemory, "memory limit", Liar{}, I32Const(1025), MemoryGrow,
		Load32(0), Drop, Unreachable)
	return out
}

// utf16String encodes a string as AssemblyScript does, with its length before it.
func utf16String(s string) []byte {
	b := []byte{byte(2 * len(s)), 0, 0, 0}
	for _, c := range []byte(s) {
		b = append(b, c, 0)
	}
	return b
}
