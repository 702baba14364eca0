package testguest

import (
	"encoding/json"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// VandalText does everything that a text can do to a terminal and its reader: it moves the cursor, sets title and
// colours, forges a line, changes the direction of text, and hides.
const VandalText = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x7f\b\r\n2  2026-01-01T00:00:00.000Z  admin  v1  granted  " +
	"{\"all\":true}\n" +
	"\u009b31m\u202e\u2066x\u2069\u200e\u200b\ufeff\u2028\u061c\U000e0041 end"

// vandalQuiet is for places where control characters are not allowed.
const vandalQuiet = "1\u202e2\u2066\u200b\u2028\u061c"

// Commands of the vandal, by type number.
var vandalCommands = []string{"c", "reject", "fault", "trap", "binary"}

// Vandal is a service that writes [VandalText] everywhere: in events and replies, refusals, traps, log lines,
// schemas, and names in its module. Its commands are c, reject, fault, trap, and binary, whose bodies are not
// text. Its query is q. Its bodies are text/plain, or JSON strings if asJSON.
func Vandal(name string, asJSON bool) []byte {
	quoted, err := json.Marshal(VandalText)
	if err != nil {
		panic(err) // it never fails
	}
	encoding, body := "text/plain", []byte(VandalText)
	if asJSON {
		encoding, body = abi.EncodingJSON, []byte("{\n\t\"text\":  "+string(quoted)+"\r\n}")
	}
	schema := "{\n\n\"title\":" + string(quoted) + ",\r\n\t\"type\":\"object\"}"
	m := abi.Manifest{ABI: abi.Version, Service: name, Version: vandalQuiet, SDK: vandalQuiet, Encoding: encoding,
		Queries: []abi.QueryType{{Name: "q", Input: schema}}, Events: []abi.EventType{{Name: "e", Schema: schema}}}
	for _, c := range vandalCommands {
		m.Commands = append(m.Commands, abi.CommandType{Name: c, Input: schema})
	}

	log := abi.AppendBody(nil, abi.Response{Kind: abi.RespLog, Aux: uint32(abi.LogWarn)}, []byte(VandalText))
	reply := func(events uint32, body []byte) []byte {
		return abi.AppendBody(nil, abi.Response{Kind: abi.RespReply, Aux: events}, body)
	}
	refuse := func(kind abi.ResponseKind) []byte {
		return abi.AppendRefusal(nil, abi.Response{Kind: kind}, "no", VandalText)
	}
	commit := func(body []byte) [][]byte {
		return [][]byte{abi.AppendEvent(nil, 0, 0, 0, body, nil), log, reply(1, body)}
	}
	binary := []byte("\xff\x00\x1b[2J\n")
	if asJSON {
		binary = body
	}

	at := uint32(LiarScratch)
	var data [][]byte
	// answer returns the range of some frames about the entity of the request.
	answer := func(frames ...[]byte) []byte {
		begin := at
		var code []byte
		for _, f := range frames {
			code = Code(code, I32Const(int32(at)), I32Const(LiarMailbox), Load32(8), Store32(8))
			data = append(data, f)
			at += uint32(len(f))
		}
		return Code(code, I64Const(int64(abi.PackRange(begin, at-begin))))
	}
	say := Code(I32Const(LiarScratch-0x1000), I32Const(int32(len(VandalText))), Call(0))
	commands := Code(say, Unreachable) // the trap
	for i, a := range [][]byte{answer(commit(body)...), answer(log, refuse(abi.RespReject)),
		answer(refuse(abi.RespFault))} {
		commands = Code(I32Const(LiarMailbox), Load16(6), I32Const(int32(i)), I32Eq, If(a, Return), commands)
	}
	commands = Code(I32Const(LiarMailbox), Load16(6), I32Const(4), I32Eq, If(answer(commit(binary)...), Return),
		commands)

	manifest := m.AppendJSON(nil)
	return Liar{
		Manifest: manifest,
		Imports:  []Import{{Module: abi.ImportModule, Name: abi.ImportFault, Params: Types(I32, I32)}},
		Code:     map[abi.RequestKind][]byte{abi.ReqCommand: commands, abi.ReqQuery: answer(log, reply(0, body))},
		With: func(b *Builder) {
			b.Data(LiarScratch-0x1000, []byte(VandalText))
			from := uint32(LiarScratch)
			for _, d := range data {
				b.Data(from, d)
				from += uint32(len(d))
			}
			b.Export(VandalText, wasmbin.ExternFunc, 0)
		},
	}.Bytes()
}
