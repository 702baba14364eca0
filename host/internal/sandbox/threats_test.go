package sandbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Threats to a host through a sandbox, each with the required result. The tests below name them; a threat
// without a test fails.
var (
	uploadThreats = []string{
		"not wasm, wrong magic or version, truncated at every byte of a valid module",
		"LEB128 overlong, overflowing, section sizes beyond the file, duplicate or out-of-order sections, counts " +
			"larger than the bytes that remain",
		"component instead of core module; two memories; imported memory, table or global; memory64; threads; GC",
		"unknown import, import with another signature, reserved export name",
		"compile bombs: one 7 MB function, 50,000 locals in each of many functions, br_table of 10^6 targets, " +
			"nesting 10^5 deep, 10^6 tiny functions, 10^6 types, a name section of 100 MB",
		"_initialize or start that spins, allocates or traps",
		"Describe that answers garbage, a 1 GB manifest, another service's name",
		"a schema that is none, refers outside or endlessly to itself, doubles at each step, has a huge pattern or a " +
			"number of a million digits",
	}
	callThreats = []string{
		"infinite loop; loop with no other instruction; mutual recursion; loop-free exponential call tree; tail-call " +
			"loop; indirect-call loop; loop through br_table",
		"memory.fill/copy/init of the whole memory in a loop; table.fill/copy/grow; memory.grow in a loop",
		"recursion with many locals",
		"answer outside memory, address + length wrapping, overlapping the mailbox, frames of length 0 or beyond the " +
			"range, wrong slot, indexes out of order, two terminals, none, an event of unknown type, Event to a Query",
		"reserve that returns 0, an unaligned or out-of-range address, or traps",
		"log and stdout floods, invalid UTF-8 in logs",
		"proc_exit, poll_oneoff for a year, clock and random reads in a loop, fd_read, path_open",
		"memory that only grows over 10^5 commands",
		"module that tries to reach the meter",
		"NaN payloads and signs as a channel",
		"goroutine, timer or callback left behind by a command",
		"data made to take its schema long",
	}
)

// threat is one threat with its test.
type threat struct {
	name string
	test func(t *testing.T)
}

func runThreats(t *testing.T, want []string, threats []threat) {
	seen := map[string]bool{}
	for _, x := range threats {
		if !slices.Contains(want, x.name) {
			t.Errorf("there is no threat called %q", x.name)
		}
		seen[x.name] = true
		t.Run(strings.ReplaceAll(x.name[:min(len(x.name), 40)], "/", "_"), x.test)
	}
	for _, name := range want {
		if !seen[name] {
			t.Errorf("no test for: %s", name)
		}
	}
}

// intruders are all modules that are refused, and animals all guests that misbehave in a call, by name. Some
// are large, so they are made once.
var (
	intruders = sync.OnceValue(func() map[string]testguest.Broken {
		all := map[string]testguest.Broken{}
		for _, c := range slices.Concat(testguest.Statically(), testguest.Dynamically(), testguest.Grabbers(),
			testguest.Malformed()) {
			all[c.Name] = c
		}
		return all
	})
	animals = sync.OnceValue(func() map[string]testguest.Misbehaviour {
		all := map[string]testguest.Misbehaviour{}
		for _, c := range slices.Concat(testguest.Lies(), testguest.Spinners(), testguest.Recursions(),
			testguest.Reachers()) {
			all[c.Name] = c
		}
		return all
	})
)

// uploads tests that the modules with those names are refused as they state.
func uploads(names ...string) func(*testing.T) {
	return func(t *testing.T) {
		for _, name := range names {
			c, ok := intruders()[name]
			if !ok {
				t.Errorf("there is no module called %q", name)
				continue
			}
			t.Run(name, func(t *testing.T) { refused(t, c) })
		}
	}
}

// calls tests that the guests with those names misbehave as they state.
func calls(names ...string) func(*testing.T) {
	for _, name := range names {
		named[name] = true
	}
	return func(t *testing.T) {
		for _, name := range names {
			c, ok := animals()[name]
			if !ok {
				t.Errorf("there is no guest called %q", name)
				continue
			}
			t.Run(name, func(t *testing.T) { misbehave(t, c, quick) })
		}
	}
}

// named are the animals that a threat has named.
var named = map[string]bool{}

func both(tests ...func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		for k, test := range tests {
			t.Run(fmt.Sprint(k), test)
		}
	}
}

// see refers to separate tests, so that removing one fails its threat.
func see(...func(*testing.T)) func(*testing.T) { return func(*testing.T) {} }

func TestThreatsOfUploads(t *testing.T) {
	var malformed []string
	for _, c := range testguest.Malformed() {
		malformed = append(malformed, c.Name)
	}
	var grabbers []string
	for _, c := range testguest.Grabbers() {
		grabbers = append(grabbers, c.Name)
	}
	runThreats(t, uploadThreats, []threat{
		{uploadThreats[0], both(uploads("not wasm", "empty", "version"), see(TestUploadTruncatedAtEveryByte))},
		{uploadThreats[1], uploads(malformed...)},
		{uploadThreats[2], uploads("component", "two memories", "imported memory", "imported table", "imported global",
			"64-bit memory", "shared memory", "threads", "garbage collection", "exceptions")},
		{uploadThreats[3], uploads(slices.Concat([]string{"everything wrong", "unknown WASI function",
			"WASI with another signature", "reserved export", "reserved dotted export"}, grabbers)...)},
		{uploadThreats[4], both(
			uploads("function bomb", "locals bomb", "locals in many functions", "branch table bomb", "nesting bomb",
				"many functions", "many types"),
			func(t *testing.T) { refused(t, testguest.HugeNames()) },
			see(TestBombsAreRefusedCheaply, TestCompileBombs))},
		{uploadThreats[5], uploads("initialize spins", "initialize traps", "initialize takes all memory", "start spins",
			"start traps")},
		{uploadThreats[6], uploads("describe answers garbage", "describe answers nothing", "describe replies",
			"a manifest of 1 GB", "manifest is no JSON", "another service's name")},
		{uploadThreats[7], both(uploads("a schema that is none", "a schema that refers outside", "a schema that is "+
			"no end of itself", "a schema that doubles at each step",
			"a schema with a pattern that is huge", "a schema with a number of a million digits"),
			see(TestSchemasAreBounded))},
	})
}

func TestThreatsOfCalls(t *testing.T) {
	var lies, recursions, reachers []string
	for _, c := range testguest.Lies() {
		lies = append(lies, c.Name)
	}
	for _, c := range testguest.Recursions() {
		recursions = append(recursions, c.Name)
	}
	for _, c := range testguest.Reachers() {
		reachers = append(reachers, c.Name)
	}
	runThreats(t, callThreats, []threat{
		{callThreats[0], both(
			calls("endless loop", "loop with a condition only", "loop in a loop", "loop through a table",
				"loop through a large table", "loop of indirect calls",
				"loop that calls nothing much", "tail calls of itself", "tail calls in a ring", "tail calls through "+
					"the table", "tree of calls", "tree of indirect calls", "mutual recursion"))},
		{callThreats[1], both(
			calls("loop that fills memory", "loop that copies memory", "loop that fills nothing",
				"loop that fills a table", "loop that copies a table", "loop that grows a table",
				"loop that grows memory by nothing", "loop that takes all memory",
				"loop that asks for all memory there is"),
			initInALoop)},
		{callThreats[2], both(calls(recursions...), see(TestStackIsGivenBack))},
		{callThreats[3], calls(lies...)},
		{callThreats[4], see(TestReserveThatLies)},
		{callThreats[5], see(TestLogFloods, TestLogs)},
		{callThreats[6], both(
			calls("loop that asks the time", "loop that draws random bytes",
				"loop that draws memory full of random bytes", "loop that sleeps",
				"loop that polls all of memory", "loop that writes all of memory as vectors", "loop that reads files",
				"loop that opens files", "loop that logs nothing", "loop that leaves fault messages"),
			see(TestPollReturnsAtOnceAndMovesTheClock, TestFilesAreNotThere))},
		{callThreats[7], see(TestMemoryThatOnlyGrowsIsRecycled)},
		{callThreats[8], both(calls(reachers...), uploads("imports the meter", "exports the fuel", "exports the stack",
			"exports the setup", "reads a global past its own",
			"sets a global past its own", "calls a function past its own", "takes a reference past its own",
			"has a function past its own in the table"), chargesAreTheCodes)},
		{callThreats[9], see(TestNaNIsNoChannel)},
		{callThreats[10], see(TestWhatACommandLeavesBehind)},
		{callThreats[11], see(TestWorkTakesTurns)},
	})
	for name := range animals() {
		if !named[name] {
			t.Errorf("no threat names the guest %q", name)
		}
	}
}

// All guests of the zoo run one after the other in one host. Afterwards its memory is as before.
func TestTheZooLeavesNothing(t *testing.T) {
	r, err := NewRuntime(Options{})
	if err != nil {
		t.Fatal(err)
	}
	var before int64
	for round := range 2 { // the first round makes everything that is kept
		for _, c := range slices.Concat(testguest.Spinners(), testguest.Recursions(), testguest.Traps()) {
			p, err := r.Compile(t.Context(), "", c.Module, quick, service.Settings{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			i, err := p.Instantiate(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := ask(i, c.Asked, testguest.LiarSlot); service.KindOf(err) != c.Kind {
				t.Errorf("%s: %v", c.Name, err)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if round == 0 {
			before = liveHeap()
		}
	}
	if after := settledHeap(before + 1<<20); after > before+1<<20 {
		t.Errorf("the heap had %d bytes before and has %d after", before, after)
	}
	nothingHeld(t, r)
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// initInALoop copies a segment to memory forever. The module counts its segments in a separate section.
func initInALoop(t *testing.T) {
	code := testguest.Code(testguest.Loop(
		testguest.I32Const(testguest.LiarScratch), testguest.I32Const(0), testguest.I32Const(60_000),
		testguest.Op(0xfc, 0x08, 0, 0), testguest.Br(0)), testguest.I64Const(0))
	module := testguest.Liar{
		Code: map[abi.RequestKind][]byte{abi.ReqCommand: code},
		With: func(b *testguest.Builder) { b.Passive(make([]byte, 60_000)) },
	}.Bytes()
	misbehave(t, testguest.Misbehaviour{Name: "init", Module: module, Asked: abi.ReqCommand,
		Kind: service.KindGuestFuel, Want: "spent its fuel"}, quick)
}

// The guest returns an invalid mailbox when the first one is too small.
func TestReserveThatLies(t *testing.T) {
	for _, c := range testguest.Reserves() {
		t.Run(c.Name, func(t *testing.T) {
			i := instantiate(t, mustCompile(t, c.Module, quick), nil)
			if err := ask(i, abi.ReqCommand, testguest.HonestSlot); err != nil {
				t.Fatal(err)
			}
			_, err := i.Handle(t.Context(), service.GuestCall{Slot: testguest.HonestSlot, ID: "id",
				Data: make([]byte, 30_000)})
			if service.KindOf(err) != c.Kind || !strings.Contains(err.Error(), c.Want) || !i.Broken() {
				t.Fatalf("got %v, want %v with %q; broken %v", err, c.Kind, c.Want, i.Broken())
			}
			if err := i.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := ask(i, abi.ReqCommand, testguest.HonestSlot); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a guest does with its own globals and names does not change its charges: the same code costs the same
// in any module.
func chargesAreTheCodes(t *testing.T) {
	work := testguest.Loop(testguest.Get(1), testguest.I32Const(1), testguest.I32Add, testguest.Set(1),
		testguest.Get(1), testguest.I32Const(1000), testguest.Op(0x49), testguest.BrIf(0))
	fuel := func(with func(*testguest.Builder)) uint64 {
		i := instantiate(t, mustCompile(t, testguest.Liar{With: with,
			Code: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(work,
				testguest.Code(liarAnswer...))}}.Bytes(), quick), nil)
		o, err := i.Handle(t.Context(), service.GuestCall{Slot: testguest.LiarSlot, ID: "id"})
		if err != nil {
			t.Fatal(err)
		}
		return o.Fuel
	}
	want := fuel(nil)
	if want < 6000 {
		t.Errorf("a loop of 1000 rounds cost %d", want)
	}
	for name, with := range map[string]func(*testguest.Builder){
		"globals": func(b *testguest.Builder) {
			for n := range int32(10) {
				b.Export(fmt.Sprint("fuel", n), wasmbin.ExternGlobal, b.GlobalI32(n))
			}
		},
		"a table": func(b *testguest.Builder) { b.Table(2); b.Element(0, 1) },
		"names":   func(b *testguest.Builder) { b.Custom("name", []byte{1, 7, 1, 0, 4, 'f', 'u', 'e', 'l'}) },
		"functions": func(b *testguest.Builder) {
			for range 10 {
				b.Func(nil, nil, nil)
			}
		},
	} {
		if got := fuel(with); got != want {
			t.Errorf("with %s the same code costs %d, not %d", name, got, want)
		}
	}
}

// The bits of a NaN reveal neither the machine nor a payload.
func TestNaNIsNoChannel(t *testing.T) {
	// 0/0, inf-inf, sqrt(-1), and arithmetic on NaNs with payloads and signs.
	f64 := func(bits uint64) []byte { return binary.LittleEndian.AppendUint64([]byte{0x44}, bits) }
	f32 := func(bits uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{0x43}, bits) }
	var code []byte
	at := int32(scratch)
	store64 := func(value ...[]byte) {
		code = testguest.Code(code, testguest.I32Const(at), testguest.Code(value...), testguest.Op(0x39, 3, 0))
		at += 8
	}
	store32 := func(value ...[]byte) {
		code = testguest.Code(code, testguest.I32Const(at), testguest.Code(value...), testguest.Op(0x38, 2, 0),
			testguest.I32Const(at+4), testguest.I32Const(0), testguest.Store32(0))
		at += 8
	}
	const payload64, payload32 = 0xfff8_dead_beef_0001, 0xffc0_1234
	inf, zero := math.Float64bits(math.Inf(1)), uint64(0)
	store64(f64(zero), f64(zero), testguest.Op(0xa3))
	store64(f64(inf), f64(inf), testguest.Op(0xa1))
	store64(f64(math.Float64bits(-1)), testguest.Op(0x9f))
	store64(f64(payload64), f64(zero), testguest.Op(0xa0))
	store64(f64(payload64), f64(payload64^1<<63), testguest.Op(0xa2))
	store64(f64(payload64), f64(zero), testguest.Op(0xa4)) // min
	store64(f64(payload64), testguest.Op(0x9e))            // nearest
	store64(f32(payload32), testguest.Op(0xbb))            // promote
	store32(f32(payload32), f32(payload32), testguest.Op(0x92))
	store32(f64(payload64), testguest.Op(0xb6)) // demote
	n := int(at-scratch) / 8
	i := instantiate(t, mustCompile(t, testguest.Liar{
		Code: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(code, testguest.Code(liarAnswer...))}}.Bytes(),
		quick), nil)
	command(t, i, 0, 0)
	for k := range n {
		got := binary.LittleEndian.Uint64(peek(t, i, uint32(8*k), 8))
		if got != 0x7ff8_0000_0000_0000 && got != 0x7fc0_0000 {
			t.Errorf("operation %d leaves a NaN of bits %#x", k, got)
		}
	}
}

// What a command leaves behind in a guest cannot run after it: nothing runs in a sandbox between two calls.
// The SDK has its own test for goroutines that are left; here time stands still and memory is unchanged.
func TestWhatACommandLeavesBehind(t *testing.T) {
	p := goProgram(t, service.Limits{})
	leave := slices.IndexFunc(p.Module().Manifest.Commands, func(c abi.CommandType) bool { return c.Name == "leave" })
	sleep := slices.IndexFunc(p.Module().Manifest.Commands, func(c abi.CommandType) bool { return c.Name == "sleep" })
	sink := &logSink{}
	i := instantiate(t, p, sink)
	if _, err := i.Handle(t.Context(), service.GuestCall{Slot: 1, Type: uint16(leave), ID: "id"}); err != nil {
		t.Fatal(err)
	}
	memory := bytes.Clone(i.memory.b)
	fuel := i.Fuel()
	runtime.Gosched()
	if !bytes.Equal(memory, i.memory.b) || i.Fuel() != fuel || sink.has(abi.LogInfo, "left behind") {
		t.Error("something ran in the guest between two calls")
	}
	// In a guest without the SDK it goes on in a later call, on that call's fuel.
	if _, err := i.Handle(t.Context(), service.GuestCall{Slot: 1, Type: uint16(sleep), ID: "id"}); err != nil {
		t.Fatal(err)
	}
	if !sink.has(abi.LogInfo, "left behind") {
		t.Error("the goroutine that was left never ran; the test shows nothing")
	}
}
