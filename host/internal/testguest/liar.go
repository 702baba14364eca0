package testguest

import (
	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// Addresses in a liar's memory.
const (
	liarHonest  = 0x100   // packed ranges of honest answers, by kind of request
	liarLies    = 0x180   // packed ranges of its other answers
	liarAnswers = 0x400   // frames of the other answers
	LiarScratch = 0x10000 // free for code, up to LiarMailbox
	LiarMailbox = 0x20000
	LiarPages   = 6
	LiarBytes   = LiarPages << 16 // of memory at start
)

// The entity about which a liar lies, and the one about which it is honest.
const (
	LiarSlot   = 1
	HonestSlot = 2
)

// Import is a function that a liar imports.
type Import struct {
	Module, Name    string
	Params, Results []wasmbin.ValType
}

// Liar is a guest that answers with given bytes. About entity HonestSlot it answers by the rules, so that one
// module shows both a violation and that the sandbox works again after it. The zero Liar is always honest, as
// service "liar" with command "c", query "q" and event "e".
type Liar struct {
	// Answers are encoded frames, by kind of request. A missing entry means an honest answer, an empty
	// one an empty answer.
	Answers map[abi.RequestKind][]byte
	// Ranges are packed results that replace the range of the frames.
	Ranges map[abi.RequestKind]uint64
	// Code is run instead of an answer and pushes an i64. It may use locals 0 and 1 (i32) and 2
	// (i64).
	Code map[abi.RequestKind][]byte

	Manifest   []byte // the answer to Describe; nil for the default
	Initialize []byte // code of _initialize; nil for none
	Start      []byte // code of a start function; nil for none
	Reserve    []byte // code that pushes the mailbox's address (i32) instead of LiarMailbox; local 0 is the size
	Imports    []Import
	With       func(*Builder) // adds to the module at the end
}

// LiarManifest is the liar's manifest.
func LiarManifest() abi.Manifest {
	return abi.Manifest{
		ABI: abi.Version, Service: "liar", Version: "1", SDK: "testguest",
		Commands: []abi.CommandType{{Name: "c"}}, Queries: []abi.QueryType{{Name: "q"}},
		Events: []abi.EventType{{Name: "e"}},
	}
}

// Honest returns the answers of an honest guest about one entity.
func Honest(slot uint32) map[abi.RequestKind][]byte {
	event := abi.AppendEvent(nil, slot, 0, 0, []byte(`{"n":1}`), nil)
	return map[abi.RequestKind][]byte{
		abi.ReqOpen:     nil,
		abi.ReqApply:    nil,
		abi.ReqCommand:  abi.AppendBody(event, abi.Response{Kind: abi.RespReply, Slot: slot, Aux: 1}, []byte(`1`)),
		abi.ReqQuery:    abi.AppendBody(nil, abi.Response{Kind: abi.RespReply, Slot: slot}, []byte(`1`)),
		abi.ReqSnapshot: abi.AppendBody(nil, abi.Response{Kind: abi.RespSnapshot, Slot: slot}, []byte(`1`)),
		abi.ReqDrop:     nil,
	}
}

// Bytes returns the module.
func (l Liar) Bytes() []byte {
	var b Builder
	for _, x := range l.Imports {
		b.ImportFunc(x.Module, x.Name, x.Params, x.Results)
	}
	b.Memory(LiarPages, 0)
	at := uint32(liarAnswers)
	place := func(table uint32, kind abi.RequestKind, frames []byte, packed uint64) {
		if len(frames) > 0 {
			b.Data(at, frames)
			if packed == 0 {
				packed = abi.PackRange(at, uint32(len(frames)))
			}
			at += uint32(len(frames)+7) &^ 7
		}
		entry := make([]byte, 8)
		for i := range entry {
			entry[i] = byte(packed >> (8 * i))
		}
		b.Data(table+8*uint32(kind), entry)
	}
	manifest := l.Manifest
	if manifest == nil {
		m := LiarManifest()
		manifest = m.AppendJSON(nil)
	}
	lies := Honest(LiarSlot)
	lies[abi.ReqDescribe] = abi.AppendBody(nil, abi.Response{Kind: abi.RespDescription}, manifest)
	for kind, frames := range l.Answers {
		lies[kind] = frames
	}
	for kind := abi.ReqOpen; kind <= abi.ReqDescribe; kind++ {
		place(liarHonest, kind, Honest(HonestSlot)[kind], 0)
		place(liarLies, kind, lies[kind], l.Ranges[kind])
	}
	if at > LiarScratch {
		panic("testguest: the liar's answers do not fit")
	}

	reserve := l.Reserve
	if reserve == nil {
		reserve = Code(Get(0), I32Const(LiarBytes-LiarMailbox), I32GtU, If(I32Const(0), Return), I32Const(LiarMailbox))
	}
	b.Export(abi.ExportMemory, wasmbin.ExternMemory, 0)
	b.Export(abi.ExportReserve, wasmbin.ExternFunc, b.Func(Types(I32), Types(I32), nil, reserve))
	b.Export(abi.ExportCall, wasmbin.ExternFunc, b.Func(Types(I32), Types(I64), Types(I32, I64), l.call()))
	if l.Initialize != nil {
		b.Export(abi.ExportInitialize, wasmbin.ExternFunc, b.Func(nil, nil, nil, l.Initialize))
	}
	if l.Start != nil {
		b.Start(b.Func(nil, nil, nil, l.Start))
	}
	if l.With != nil {
		l.With(&b)
	}
	return b.Bytes()
}

// call finds the answer by the kind of the first frame.
func (l Liar) call() []byte {
	kind := Code(I32Const(LiarMailbox), Load8(4))
	entry := Code(kind, I32Const(8), I32Mul)
	code := Code(I32Const(LiarMailbox), Load32(8), I32Const(HonestSlot), I32Eq, If(entry, Load64(liarHonest), Return))
	for k, c := range l.Code {
		code = Code(code, kind, I32Const(int32(k)), I32Eq, If(c, Return))
	}
	return Code(code, entry, Load64(liarLies))
}
