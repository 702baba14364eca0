package meteringtest

import (
	"math/rand/v2"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// Generate returns a random valid module that [Slow] can run. It has every kind of control flow,
// unreachable code, calls of all kinds, traps, and loops that usually end. Its export "run" takes two
// i32 and returns an i32.
func Generate(rng *rand.Rand) []byte {
	g := &generator{rng: rng}
	n := 2 + rng.IntN(5)
	types := []wasmbin.ValType{wasmbin.I32, wasmbin.I64}
	list := func(maxTypes int) []wasmbin.ValType {
		var l []wasmbin.ValType
		for range rng.IntN(maxTypes + 1) {
			l = append(l, types[rng.IntN(2)])
		}
		return l
	}
	g.sigs = append(g.sigs, wasmbin.FuncType{Params: testguest.Types(wasmbin.I32, wasmbin.I32),
		Results: testguest.Types(wasmbin.I32)})
	for i := 1; i < n; i++ {
		t := wasmbin.FuncType{Params: list(3), Results: list(2)}
		if rng.IntN(8) == 0 { // more than fit into registers
			for range 9 {
				t.Params = append(t.Params, wasmbin.I64)
			}
		}
		g.sigs = append(g.sigs, t)
	}
	b := &g.Builder
	b.Memory(1, 3)
	b.TableUpTo(8, 20_000)
	g.globals = 3
	for i := range g.globals {
		b.GlobalI32(int32(i))
	}
	for i := range g.sigs {
		g.function(i)
	}
	var elements []uint32
	for range 6 {
		elements = append(elements, uint32(rng.IntN(n)))
	}
	b.Element(elements...)
	passive := []byte{1, 0} // a segment for table.init, which also declares its functions
	passive = wasmbin.AppendU32(passive, segmentElements)
	for i := range segmentElements {
		passive = append(passive, byte(i%n))
	}
	b.ElementRaw(passive...)
	text := make([]byte, segmentBytes)
	for i := range text {
		text[i] = byte(i * 7)
	}
	b.Passive(text)
	b.Export("run", wasmbin.ExternFunc, 0)
	b.Export("memory", wasmbin.ExternMemory, 0)
	return b.Bytes()
}

// The passive segments are longer than a step of the instructions that copy them.
const (
	segmentBytes    = 70_000
	segmentElements = 5_000
)

type generator struct {
	testguest.Builder
	rng     *rand.Rand
	sigs    []wasmbin.FuncType
	globals int

	// Of the current function.
	self   int
	locals []wasmbin.ValType
	free   int     // locals from this index on count loops, and are not written otherwise
	labels []label // the innermost is the last
	size   int     // how much it may still grow
	long   bool    // it has long straight code
}

// label is the target of branches.
type label struct {
	loop   bool
	result []wasmbin.ValType
}

func (g *generator) function(i int) {
	t := g.sigs[i]
	g.self, g.size, g.labels = i, 60+g.rng.IntN(200), []label{{result: t.Results}}
	g.locals = append([]wasmbin.ValType{}, t.Params...)
	for range 1 + g.rng.IntN(4) {
		g.locals = append(g.locals, wasmbin.I32, wasmbin.I64)
	}
	g.free, g.long = len(g.locals), false
	code := g.statements(1 + g.rng.IntN(6))
	for _, r := range t.Results {
		code = append(code, g.expr(r, 3)...)
	}
	g.Func(t.Params, t.Results, g.locals[len(t.Params):], code)
}

func (g *generator) pick(codes ...func() []byte) []byte { return codes[g.rng.IntN(len(codes))]() }

func (g *generator) local(t wasmbin.ValType, limit int) (uint32, bool) {
	var fit []uint32
	for i, l := range g.locals[:limit] {
		if l == t {
			fit = append(fit, uint32(i))
		}
	}
	if len(fit) == 0 {
		return 0, false
	}
	return fit[g.rng.IntN(len(fit))], true
}

func (g *generator) constant(t wasmbin.ValType) []byte {
	v := int64(g.rng.IntN(40)) - 8
	if g.rng.IntN(6) == 0 {
		v = int64(g.rng.Uint64())
	}
	if t == wasmbin.I32 {
		return testguest.I32Const(int32(v))
	}
	return testguest.I64Const(v)
}

// statements returns code without operands and results.
func (g *generator) statements(n int) []byte {
	var code []byte
	for range n {
		s, ends := g.statement()
		code = append(code, s...)
		if ends {
			return append(code, g.dead()...)
		}
	}
	return code
}

// dead returns unreachable code.
func (g *generator) dead() []byte {
	return g.pick(
		func() []byte { return nil },
		func() []byte { return testguest.Code(testguest.I32Const(1), testguest.Drop) },
		func() []byte {
			return testguest.Code(testguest.I32Add, testguest.If(testguest.Unreachable), testguest.Drop)
		},
		func() []byte {
			return testguest.Loop(testguest.Block(testguest.I32Const(1), testguest.BrIf(1), testguest.Br(0)),
				testguest.Unreachable)
		},
		func() []byte {
			return testguest.Code(testguest.MemoryFill, testguest.MemoryGrow, testguest.GlobalSet(0))
		},
	)
}

// statement returns one statement, and whether the code after it is unreachable.
func (g *generator) statement() (code []byte, ends bool) {
	if g.size--; g.size < 0 {
		return testguest.Op(0x01), false
	}
	switch g.rng.IntN(20) {
	case 0, 1, 2:
		t := []wasmbin.ValType{wasmbin.I32, wasmbin.I64}[g.rng.IntN(2)]
		if l, ok := g.local(t, g.free); ok {
			return append(g.expr(t, 3), testguest.Set(l)...), false
		}
	case 3, 4:
		return testguest.Code(g.expr(wasmbin.I32, 3), testguest.If(g.nested(false, 2)), nil), false
	case 5, 6:
		code := testguest.Code(g.expr(wasmbin.I32, 2), testguest.Op(0x04, 0x40), g.nested(false, 2), testguest.Op(0x05))
		return testguest.Code(code, g.nested(false, 2), testguest.End()), false
	case 7, 8:
		return testguest.Block(g.nested(false, 3)), false
	case 9, 10:
		return g.loop(), false
	case 11, 12:
		if l, ok := g.target(); ok { // a conditional branch
			return testguest.Code(g.values(l), g.expr(wasmbin.I32, 2), testguest.BrIf(uint32(l)), g.drops(l)), false
		}
	case 13:
		if g.rng.IntN(3) == 0 {
			return g.leave()
		}
	case 14:
		return testguest.Code(g.address(), g.expr(wasmbin.I64, 2), testguest.Store64(uint32(g.rng.IntN(100)))), false
	case 15:
		return testguest.Code(g.expr(wasmbin.I32, 2), testguest.GlobalSet(uint32(g.rng.IntN(g.globals)))), false
	case 16, 17:
		return g.call(), false
	case 18:
		return g.pick(g.bulk, g.bulk, g.straight, g.references), false
	default:
		return testguest.Code(g.expr(wasmbin.I32, 3), testguest.Drop), false
	}
	return testguest.Op(0x01), false
}

// nested returns the body of a block or if.
func (g *generator) nested(loop bool, n int) []byte {
	g.labels = append(g.labels, label{loop: loop})
	code := g.statements(g.rng.IntN(n + 1))
	g.labels = g.labels[:len(g.labels)-1]
	return code
}

// loop usually ends: it counts in its own local.
func (g *generator) loop() []byte {
	if len(g.locals) > g.free+3 || g.rng.IntN(6) == 0 {
		return testguest.Loop(g.nested(false, 2)) // no branch goes back; nested treats it as a block
	}
	counter := uint32(len(g.locals))
	g.locals = append(g.locals, wasmbin.I32)
	again := testguest.Code(testguest.Get(counter), testguest.I32Const(1), testguest.I32Sub,
		testguest.Op(0x22, byte(counter)), testguest.BrIf(0))
	body := testguest.Code(g.nested(true, 3), again, g.statementsIn(true))
	code := testguest.Code(testguest.I32Const(int32(1+g.rng.IntN(5))), testguest.Set(counter), testguest.Loop(body))
	if g.rng.IntN(3) == 0 { // a loop that is left in the middle
		code = testguest.Code(testguest.I32Const(3), testguest.Set(counter),
			testguest.Block(testguest.Loop(g.twice(), testguest.Get(counter), testguest.I32Eqz, testguest.BrIf(1),
				testguest.Get(counter), testguest.I32Const(1), testguest.I32Sub, testguest.Set(counter),
				testguest.Br(0),
				g.dead())))
	}
	g.locals = g.locals[:len(g.locals)-1]
	g.locals = append(g.locals, wasmbin.I32)
	g.free = len(g.locals)
	return code
}

func (g *generator) statementsIn(loop bool) []byte { return g.nested(loop, 1) }

// twice returns a statement inside of two constructs that are no targets of branches.
func (g *generator) twice() []byte {
	g.labels = append(g.labels, label{})
	code := g.nested(true, 2)
	g.labels = g.labels[:len(g.labels)-1]
	return code
}

// target chooses the label of a branch. It does not choose loops, as these count.
func (g *generator) target() (int, bool) {
	for range 4 {
		l := g.rng.IntN(len(g.labels))
		if !g.labels[len(g.labels)-1-l].loop {
			return l, true
		}
	}
	return 0, false
}

func (g *generator) of(l int) label { return g.labels[len(g.labels)-1-l] }

func (g *generator) values(l int) (code []byte) {
	for _, t := range g.of(l).result {
		code = append(code, g.expr(t, 2)...)
	}
	return code
}

func (g *generator) drops(l int) (code []byte) {
	for range g.of(l).result {
		code = append(code, testguest.Drop...)
	}
	return code
}

// leave returns a statement after which nothing is reachable.
func (g *generator) leave() ([]byte, bool) {
	last := len(g.labels) - 1
	switch g.rng.IntN(7) {
	case 0:
		return append(g.values(last), testguest.Return...), true
	case 1:
		return testguest.Unreachable, true
	case 2:
		if f := g.callee(); f >= 0 && string(bytesOf(g.sigs[f].Results)) == string(bytesOf(g.sigs[g.self].Results)) {
			return testguest.Code(g.arguments(f), wasmbin.AppendU32([]byte{0x12}, uint32(f))), true
		}
	case 3:
		a, ok := g.target()
		if b, ok2 := g.target(); ok && ok2 && len(g.of(a).result) == 0 && len(g.of(b).result) == 0 {
			return testguest.Code(g.expr(wasmbin.I32, 2), testguest.BrTable(uint32(a), uint32(b), uint32(a))), true
		}
	}
	l, ok := g.target()
	if !ok {
		return testguest.Unreachable, true
	}
	return append(g.values(l), testguest.Br(uint32(l))...), true
}

func bytesOf(t []wasmbin.ValType) []byte {
	var b []byte
	for _, v := range t {
		b = append(b, byte(v))
	}
	return b
}

// callee chooses a later function, so that calls end; -1 if there is none.
func (g *generator) callee() int {
	if g.self+1 >= len(g.sigs) {
		return -1
	}
	return g.self + 1 + g.rng.IntN(len(g.sigs)-g.self-1)
}

func (g *generator) arguments(f int) (code []byte) {
	for _, t := range g.sigs[f].Params {
		code = append(code, g.expr(t, 2)...)
	}
	return code
}

func (g *generator) call() []byte {
	f := g.callee()
	if f < 0 {
		return testguest.Op(0x01)
	}
	code := g.arguments(f)
	if g.rng.IntN(3) == 0 { // any function: possibly itself, so that it may be deep, or another type
		code = testguest.Code(code, g.expr(wasmbin.I32, 1), testguest.I32Const(7), testguest.I32And,
			wasmbin.AppendU32([]byte{0x11}, g.typeOf(f)), testguest.Op(0))
	} else {
		code = testguest.Code(code, testguest.Call(uint32(f)))
	}
	for range g.sigs[f].Results {
		code = append(code, testguest.Drop...)
	}
	return code
}

// typeOf returns the index of a signature: the builder numbers signatures as they come.
func (g *generator) typeOf(f int) uint32 {
	return g.TypeIndex(g.sigs[f].Params, g.sigs[f].Results)
}

// address returns code that pushes an address, usually inside of memory.
func (g *generator) address() []byte {
	code := g.expr(wasmbin.I32, 1)
	if g.rng.IntN(20) > 0 {
		code = testguest.Code(code, testguest.I32Const(0x7fff), testguest.I32And)
	}
	return code
}

// length returns code that pushes a length, seldom more than a step of a bulk instruction.
func (g *generator) length(maxLength int) []byte {
	if g.rng.IntN(6) == 0 {
		return testguest.I32Const(int32(g.rng.IntN(maxLength)))
	}
	return testguest.Code(g.expr(wasmbin.I32, 1), testguest.I32Const(0x3ff), testguest.I32And)
}

// reference returns code that pushes a reference.
func (g *generator) reference() []byte {
	return g.pick(
		func() []byte { return testguest.Op(0xd0, 0x70) },
		func() []byte { return testguest.Op(0xd2, byte(g.rng.IntN(len(g.sigs)))) },
		func() []byte { return testguest.Code(g.element(), testguest.Op(0x25, 0)) },
	)
}

// element returns code that pushes an index, usually inside of the table.
func (g *generator) element() []byte {
	if g.rng.IntN(10) == 0 {
		return g.expr(wasmbin.I32, 1)
	}
	return testguest.I32Const(int32(g.rng.IntN(8)))
}

// references moves references to functions within the start of the table.
func (g *generator) references() []byte {
	few := func() []byte { return testguest.I32Const(int32(g.rng.IntN(5))) }
	large := func() []byte {
		return g.pick(few, few, func() []byte { return testguest.I32Const(int32(g.rng.IntN(12_000))) })
	}
	return g.pick(
		func() []byte { return testguest.Code(g.element(), g.reference(), testguest.Op(0x26, 0)) },
		func() []byte { return testguest.Code(g.reference(), testguest.Op(0xd1), testguest.Drop) },
		// table.copy
		func() []byte { return testguest.Code(few(), few(), large(), testguest.Op(0xfc, 0x0e, 0, 0)) },
		// table.init
		func() []byte { return testguest.Code(few(), few(), large(), testguest.Op(0xfc, 0x0c, 1, 0)) },
		// table.fill
		func() []byte { return testguest.Code(few(), g.reference(), large(), testguest.Op(0xfc, 0x11, 0)) },
		func() []byte {
			return testguest.Code(g.reference(), large(), testguest.Op(0xfc, 0x0f, 0), testguest.Drop)
		}, // table.grow
		func() []byte {
			return testguest.Code(g.reference(), large(), testguest.Op(0xfc, 0x0f, 0), testguest.Drop)
		},
		func() []byte {
			if g.rng.IntN(8) > 0 {
				return nil
			}
			return testguest.Op(0xfc, 0x0d, 1) // elem.drop
		},
	)
}

// straight returns code that is longer than the maximum of a piece, with some conditional code in it.
func (g *generator) straight() []byte {
	l, ok := g.local(wasmbin.I32, g.free)
	if !ok || g.long { // at most once in a function
		return nil
	}
	g.long = true
	var code []byte
	for range 100 + g.rng.IntN(400) {
		code = testguest.Code(code, testguest.Get(l), testguest.I32Const(int32(g.rng.IntN(9))),
			testguest.Op(byte(0x6a+g.rng.IntN(2))), testguest.Set(l))
		switch g.rng.IntN(100) {
		case 0:
			code = testguest.Code(code, testguest.Get(l), testguest.If(g.nested(false, 1)))
		case 1:
			code = testguest.Code(code, testguest.Block(testguest.Get(l), testguest.BrIf(0), g.nested(true, 1)))
		case 2:
			code = testguest.Code(code, g.call())
		}
	}
	return code
}

func (g *generator) bulk() []byte {
	const maxBytes = 200_000 // a little more than memory may have
	return g.pick(
		func() []byte {
			return testguest.Code(g.address(), g.expr(wasmbin.I32, 1), g.length(maxBytes), testguest.MemoryFill)
		},
		func() []byte {
			return testguest.Code(g.address(), g.address(), g.length(maxBytes), testguest.MemoryCopy)
		},
		func() []byte {
			return testguest.Code(testguest.I32Const(int32(g.rng.IntN(1000))),
				testguest.I32Const(int32(g.rng.IntN(1000))), testguest.I32Const(maxBytes/2), testguest.MemoryCopy)
		},
		func() []byte {
			// memory.init
			return testguest.Code(g.address(), testguest.I32Const(int32(g.rng.IntN(100))), g.length(segmentBytes),
				testguest.Op(0xfc, 0x08, 0, 0))
		},
		func() []byte {
			return testguest.Code(testguest.I32Const(int32(g.rng.IntN(3))), testguest.MemoryGrow, testguest.Drop)
		},
		func() []byte {
			if g.rng.IntN(8) > 0 {
				return nil
			}
			return testguest.Op(0xfc, 0x09, 0) // data.drop
		},
	)
}

// expr returns code that pushes a number.
func (g *generator) expr(t wasmbin.ValType, depth int) []byte {
	if g.size--; depth == 0 || g.size < 0 {
		if l, ok := g.local(t, len(g.locals)); ok && g.rng.IntN(2) == 0 {
			return testguest.Get(l)
		}
		return g.constant(t)
	}
	narrow := t == wasmbin.I32
	switch g.rng.IntN(16) {
	case 0, 1, 2, 3:
		op := byte(0x6a + g.rng.IntN(13))
		second := g.expr(t, depth-1)
		if op >= 0x6d && op <= 0x70 && g.rng.IntN(8) > 0 { // a division, seldom by zero
			one := testguest.Code(testguest.I32Const(1), testguest.Op(0x72))
			if !narrow {
				one = testguest.Code(testguest.I64Const(1), testguest.I64Or)
			}
			second = append(second, one...)
		}
		if !narrow {
			op += 0x7c - 0x6a
		}
		return testguest.Code(g.expr(t, depth-1), second, testguest.Op(op))
	case 4:
		if narrow {
			return testguest.Code(g.expr(wasmbin.I64, depth-1), g.expr(wasmbin.I64, depth-1),
				testguest.Op(byte(0x51+g.rng.IntN(6))))
		}
		return testguest.Code(g.expr(wasmbin.I32, depth-1), testguest.Op(byte(0xac+g.rng.IntN(2))))
	case 5:
		if narrow {
			return append(g.address(), testguest.Load32(uint32(g.rng.IntN(100)))...)
		}
		return append(g.address(), testguest.Load64(uint32(g.rng.IntN(100)))...)
	case 6:
		return testguest.Code(g.expr(t, depth-1), g.expr(t, depth-1), g.expr(wasmbin.I32, depth-1), testguest.Op(0x1b))
	case 7, 8: // a block with a result, which may be left early
		g.labels = append(g.labels, label{result: testguest.Types(t)})
		code := testguest.Code(g.statements(g.rng.IntN(2)), g.expr(t, depth-1), g.expr(wasmbin.I32, depth-1),
			testguest.BrIf(0))
		g.labels = g.labels[:len(g.labels)-1]
		return testguest.Code(testguest.Op(0x02, byte(t)), code, testguest.End())
	case 9, 10:
		cond := g.expr(wasmbin.I32, depth-1)
		g.labels = append(g.labels, label{result: testguest.Types(t)})
		code := testguest.Code(cond, testguest.Op(0x04, byte(t)), g.statements(g.rng.IntN(2)), g.expr(t, depth-1),
			testguest.Op(0x05), g.expr(t, depth-1), testguest.End())
		g.labels = g.labels[:len(g.labels)-1]
		return code
	case 11:
		if f := g.callee(); f >= 0 && len(g.sigs[f].Results) == 1 && g.sigs[f].Results[0] == t {
			return append(g.arguments(f), testguest.Call(uint32(f))...)
		}
	case 12:
		if narrow {
			return testguest.Code(g.expr(t, depth-1), testguest.Op(0x45))
		}
		return testguest.Code(g.expr(t, depth-1), testguest.Op(0x7b))
	case 13:
		if narrow {
			return testguest.GlobalGet(uint32(g.rng.IntN(g.globals)))
		}
	case 14:
		if narrow {
			return testguest.MemorySize
		}
	case 15:
		if l, ok := g.local(t, g.free); ok {
			return append(g.expr(t, depth-1), wasmbin.AppendU32([]byte{0x22}, l)...)
		}
	}
	return g.constant(t)
}
