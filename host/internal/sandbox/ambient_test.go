package sandbox

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// scratch is the address at which these guests keep arguments and results of host functions.
const scratch = testguest.LiarScratch

// asker is a guest whose command runs code that may call one host function, function 0, and then answers as a
// correct guest does. The test reads what the host function left in memory.
func asker(module, name string, params, results []wasmbin.ValType, code ...[]byte) []byte {
	return testguest.Liar{
		Imports: []testguest.Import{{Module: module, Name: name, Params: params, Results: results}},
		Code: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(testguest.Code(code...),
			testguest.Code(liarAnswer...))},
	}.Bytes()
}

// liarAnswer loads the correct answer about LiarSlot: the code returns the entry of the table of answers for
// a command.
var liarAnswer = [][]byte{testguest.I32Const(int32(abi.ReqCommand) * 8), testguest.Load64(0x180)}

func i32s(n int) []wasmbin.ValType {
	t := make([]wasmbin.ValType, n)
	for i := range t {
		t[i] = wasmbin.I32
	}
	return t
}

// peek reads the scratch memory of an instance.
func peek(t *testing.T, i *Instance, at, n uint32) []byte {
	t.Helper()
	b, ok := i.mem.Read(scratch+at, n)
	if !ok {
		t.Fatal("scratch memory is gone")
	}
	return append([]byte(nil), b...)
}

func command(t *testing.T, i *Instance, now journal.UnixNano, seed byte) {
	t.Helper()
	if _, err := i.Handle(t.Context(), service.GuestCall{Slot: testguest.LiarSlot, Time: now, Seed: [16]byte{seed},
		ID: "id"}); err != nil {
		t.Fatal(err)
	}
}

func TestClockIsTheCommands(t *testing.T) {
	read := func(id, at int32) []byte {
		return testguest.Code(testguest.I32Const(id), testguest.I64Const(0), testguest.I32Const(scratch+at),
			testguest.Call(0), testguest.Drop)
	}
	i := instantiate(t, mustCompile(t,
		asker(admission.WASI, "clock_time_get", []wasmbin.ValType{wasmbin.I32, wasmbin.I64, wasmbin.I32}, i32s(1),
			read(0, 0), read(1, 8), read(1, 16), read(0, 24)), quick), nil)
	for range 2 { // the same at each command: nothing is left of the last one
		command(t, i, 1_000_000, 0)
		b := peek(t, i, 0, 32)
		for k, want := range []uint64{1_000_000, 1_001_000, 1_002_000, 1_000_000} {
			if got := binary.LittleEndian.Uint64(b[8*k:]); got != want {
				t.Errorf("reading %d is %d, want %d", k, got, want)
			}
		}
	}
	command(t, i, -5, 0) // before 1970: WASI has no such time
	if got := binary.LittleEndian.Uint64(peek(t, i, 0, 8)); got != 0 {
		t.Errorf("a time before 1970 reads as %d", got)
	}
}

func TestRandomIsTheSeeds(t *testing.T) {
	draw := func(at int32) []byte {
		return testguest.Code(testguest.I32Const(scratch+at), testguest.I32Const(16), testguest.Call(0), testguest.Drop)
	}
	i := instantiate(t, mustCompile(t, asker(admission.WASI, "random_get", i32s(2), i32s(1), draw(0), draw(16)), quick),
		nil)
	seen := map[string]bool{}
	for _, seed := range []byte{1, 2, 1} {
		command(t, i, 0, seed)
		b := string(peek(t, i, 0, 32))
		if b[:16] == b[16:] {
			t.Error("two draws of a command are the same")
		}
		seen[b] = true
	}
	if len(seen) != 2 {
		t.Errorf("%d different streams of two seeds", len(seen))
	}
}

func TestPollReturnsAtOnceAndMovesTheClock(t *testing.T) {
	const year = 365 * 24 * 3600 * 1_000_000_000
	module := testguest.Liar{
		Imports: []testguest.Import{
			{Module: admission.WASI, Name: "poll_oneoff", Params: i32s(4), Results: i32s(1)},
			{Module: admission.WASI, Name: "clock_time_get", Params: []wasmbin.ValType{wasmbin.I32, wasmbin.I64,
				wasmbin.I32}, Results: i32s(1)},
		},
		Code: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(
			// Two clocks: one for a year, relative, and a later one.
			testguest.I32Const(scratch), testguest.I64Const(77), testguest.Store64(0),
			testguest.I32Const(scratch), testguest.I64Const(year), testguest.Store64(24),
			testguest.I32Const(scratch), testguest.I64Const(2*year), testguest.Store64(48+24),
			testguest.I32Const(scratch), testguest.I32Const(scratch+0x100), testguest.I32Const(2),
			testguest.I32Const(scratch+0x200), testguest.Call(0), testguest.Drop,
			testguest.I32Const(0), testguest.I64Const(0), testguest.I32Const(scratch+0x208), testguest.Call(1),
			testguest.Drop,
			testguest.Code(liarAnswer...),
		)},
	}.Bytes()
	i := instantiate(t, mustCompile(t, module, quick), nil)
	command(t, i, 5, 0)
	if n := binary.LittleEndian.Uint32(peek(t, i, 0x200, 4)); n != 1 {
		t.Errorf("%d events, want the earlier clock alone", n)
	}
	if user := binary.LittleEndian.Uint64(peek(t, i, 0x100, 8)); user != 77 {
		t.Errorf("event of %d", user)
	}
	if now := binary.LittleEndian.Uint64(peek(t, i, 0x208, 8)); now != year+5 {
		t.Errorf("the clock is at %d, want a year later", now)
	}
}

// Every system function gets pointers out of range: it returns an error number or traps, and the instance
// survives.
func TestSystemFunctionsCheckPointers(t *testing.T) {
	for name := range wasiFunctions() {
		if name == "proc_exit" {
			continue
		}
		f, _ := admission.Signature(admission.WASI, name)
		for _, v := range []int32{-1, testguest.LiarBytes - 1, -8, 1 << 30} {
			var code []byte
			for _, p := range f.Params {
				if p == wasmbin.I64 {
					code = append(code, testguest.I64Const(int64(v))...)
				} else {
					code = append(code, testguest.I32Const(v)...)
				}
			}
			call := testguest.Code(code, testguest.Call(0), testguest.Drop)
			i := instantiate(t, mustCompile(t, asker(admission.WASI, name, f.Params, f.Results, call), quick), nil)
			command(t, i, 0, 0)
			if i.Broken() {
				t.Errorf("%s(%d …) broke the instance", name, v)
			}
		}
	}
}

func TestFilesAreNotThere(t *testing.T) {
	results := map[string]errno{
		"fd_prestat_get": errnoBadf, "fd_read": errnoBadf, "path_open": errnoBadf, "fd_readdir": errnoBadf,
		"path_unlink_file": errnoBadf, "proc_raise": errnoNosys, "sock_send": errnoNotsock, "fd_seek": errnoSpipe,
		"sched_yield": errnoSuccess, "environ_sizes_get": errnoSuccess, "args_get": errnoSuccess,
		"fd_fdstat_get": errnoSuccess,
	}
	for name, want := range results {
		f, _ := admission.Signature(admission.WASI, name)
		code := testguest.I32Const(scratch)
		for k, p := range f.Params {
			switch {
			case k == 0 && strings.HasPrefix(name, "environ"):
				code = append(code, testguest.I32Const(scratch+8)...)
			case k == 0:
				code = append(code, testguest.I32Const(1)...)
			case p == wasmbin.I64:
				code = append(code, testguest.I64Const(0)...)
			default:
				code = append(code, testguest.I32Const(scratch+16)...)
			}
		}
		call := testguest.Code(code, testguest.Call(0), testguest.Store32(0))
		i := instantiate(t, mustCompile(t, asker(admission.WASI, name, f.Params, f.Results, call), quick), nil)
		command(t, i, 0, 0)
		if got := errno(binary.LittleEndian.Uint32(peek(t, i, 0, 4))); got != want {
			t.Errorf("%s answers %d, want %d", name, got, want)
		}
	}
}

func TestLogs(t *testing.T) {
	log := func(level int32, at, n int32) []byte {
		return testguest.Code(testguest.I32Const(level), testguest.I32Const(at), testguest.I32Const(n),
			testguest.Call(0))
	}
	module := testguest.Liar{
		Imports: []testguest.Import{
			{Module: abi.ImportModule, Name: abi.ImportLog, Params: i32s(3)},
			{Module: admission.WASI, Name: "fd_write", Params: i32s(4), Results: i32s(1)},
		},
		Code: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(
			log(1, scratch, 5), log(99, scratch+5, 4), log(0, scratch, 0),
			// Two vectors to stdout: "hello", and the rest with a line end.
			testguest.I32Const(1), testguest.I32Const(scratch+0x40), testguest.I32Const(2),
			testguest.I32Const(scratch+0x80), testguest.Call(1), testguest.Drop,
			testguest.Code(liarAnswer...),
		)},
		Answers: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(
			abi.AppendBody(nil, abi.Response{Kind: abi.RespLog, Slot: testguest.LiarSlot, Aux: uint32(abi.LogDebug)},
				[]byte("in the \x1b[31manswer\u202e")),
			abi.AppendBody(nil, abi.Response{Kind: abi.RespReply, Slot: testguest.LiarSlot}, nil),
		)},
		With: func(b *testguest.Builder) {
			b.Data(scratch, []byte("hello\xff\xfe!\n and the end\nunfinished"))
			le := binary.LittleEndian
			v := le.AppendUint32(nil, scratch)
			v = le.AppendUint32(v, 5)
			v = le.AppendUint32(v, scratch+9)
			v = le.AppendUint32(v, 23)
			b.Data(scratch+0x40, v)
		},
	}.Bytes()
	sink := &logSink{}
	i := instantiate(t, mustCompile(t, module, quick), sink)
	command(t, i, 0, 0)
	want := []string{"1 hello", `3 \xff\xfe!\n`, "0 ", "1 hello and the end", "1 unfinished", `0 in the \x1b[31manswer\u202e`}
	if got := strings.Join(sink.lines, "|"); got != strings.Join(want, "|") {
		t.Errorf("got  %q\nwant %q", sink.lines, want)
	}
}

// Floods of every kind end at the limit, with a mark, and the command succeeds.
func TestLogFloods(t *testing.T) {
	const limit = 10_000
	times := func(n int32, code ...[]byte) []byte { // local 1 counts
		return testguest.Loop(testguest.Code(code...),
			testguest.Get(1), testguest.I32Const(1), testguest.I32Add, testguest.Set(1),
			testguest.Get(1), testguest.I32Const(n), testguest.Op(0x49), testguest.BrIf(0))
	}
	write := testguest.Code(
		testguest.I32Const(scratch), testguest.I32Const(scratch+0x1000), testguest.Store32(0),
		testguest.I32Const(scratch), testguest.I32Const(0x8000), testguest.Store32(4),
		testguest.I32Const(2), testguest.I32Const(scratch), testguest.I32Const(1), testguest.I32Const(scratch+8),
		testguest.Call(0), testguest.Drop)
	three := func(n int32) []byte {
		return testguest.Code(testguest.I32Const(1), testguest.I32Const(scratch+0x1000), testguest.I32Const(n),
			testguest.Call(0))
	}
	for name, module := range map[string][]byte{
		"lines":        asker(abi.ImportModule, abi.ImportLog, i32s(3), nil, times(2000, three(100))),
		"empty lines":  asker(abi.ImportModule, abi.ImportLog, i32s(3), nil, times(50_000, three(0))),
		"one huge log": asker(abi.ImportModule, abi.ImportLog, i32s(3), nil, three(0x30000)),
		"stderr":       asker(admission.WASI, "fd_write", i32s(4), i32s(1), times(2000, write)),
	} {
		t.Run(name, func(t *testing.T) {
			sink := &logSink{}
			i := instantiate(t, mustCompile(t, module, service.Limits{LogBytes: limit}), sink)
			for range 2 {
				sink.lines, sink.bytes = nil, 0
				command(t, i, 0, 0)
				// A NUL is shown as four characters, but the limit counts the guest's bytes.
				if len(sink.lines) > limit+1 || sink.bytes > 4*limit+100 {
					t.Errorf("%d lines, %d bytes", len(sink.lines), sink.bytes)
				}
				marks := 0
				for _, l := range sink.lines {
					if strings.Contains(l, "cut at 10000 bytes") {
						marks++
					}
				}
				if marks != 1 {
					t.Errorf("%d marks among %d lines", marks, len(sink.lines))
				}
			}
		})
	}
}

func TestSlogLogger(t *testing.T) {
	var out bytes.Buffer
	l := SlogLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for level := abi.LogDebug; level <= abi.LogError; level++ {
		l.GuestLog("bank", service.About{}, level, "a line")
	}
	if strings.Contains(out.String(), "entity") || strings.Contains(out.String(), "command_id") ||
		strings.Contains(out.String(), "trace_id") {
		t.Errorf("lines about nothing: %s", out.String())
	}
	l.GuestLog("bank", service.About{Key: "a\u202eb", Command: "id 1", Trace: service.TraceID{1}}, abi.LogInfo,
		"a line")
	for _, want := range []string{"DEBUG", "INFO", "WARN", "ERROR", `msg="a line"`, "service=bank", `entity=a`, `command_id="id 1"`, "trace_id=01000000000000000000000000000000"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %s", want, out.String())
		}
	}
}

// The sandbox offers exactly what admission lets modules import.
func TestEveryOfferedFunctionIsThere(t *testing.T) {
	if got := slices.Sorted(maps.Keys(offered)); !slices.Equal(got, admission.Modules()) {
		t.Errorf("there are functions of %v; offered are %v", got, admission.Modules())
	}
	for module, functions := range offered {
		if got, want := slices.Sorted(maps.Keys(functions)), admission.Functions(module); !slices.Equal(got, want) {
			t.Errorf("of %s there are %v; offered are %v", module, got, want)
		}
	}
}
