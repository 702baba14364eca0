package metering

import (
	"math"
	"math/bits"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// addedFunction is a function that the rewriting adds after the module's own.
type addedFunction struct {
	body []byte // with its locals, as in the file
	typ  uint32
	name string // without the reserved prefix
}

// added returns all added functions, in the order of their indexes. The list is complete once the
// code has been written.
func (r *rewriter) added() []addedFunction {
	all := []addedFunction{{r.troubleBody(), r.nop, ".check"}}
	return append(append(all, r.helpers...), r.setupFunctions...)
}

// helperKey identifies a helper: an instruction with its immediates.
type helperKey struct {
	op            wasmbin.Op
	index, second uint32
}

// helper returns the number of the helper for a bulk instruction, and writes it if it is new. A
// helper does what the instruction does, and charges for it. Work that is longer than a step is
// charged and done step by step, with a check before each step. The bounds are checked first; if
// they are exceeded, the instruction itself is executed, which writes nothing and traps.
func (r *rewriter) helper(in *wasmbin.Instr) int {
	return r.helperFor(helperKey{in.Op, in.Index, in.Second})
}

func (r *rewriter) initHelper(segment uint32) int {
	return r.helperFor(helperKey{wasmbin.OpMemoryInit, segment, 0})
}

func (r *rewriter) helperFor(k helperKey) int {
	if k.index == wasmbin.NoIndex {
		k.index = 0
	}
	if i, ok := r.helperOf[k]; ok {
		return i
	}
	r.helperOf[k] = len(r.helpers)
	h := bulk{r: r, key: k}
	r.helpers = append(r.helpers, h.function())
	return r.helperOf[k]
}

// bulk writes the helper of one bulk instruction.
type bulk struct {
	r   *rewriter
	key helperKey
	b   []byte
	in  []byte // the instruction

	bytes bool // it counts bytes; otherwise elements
}

// Parameters of the helpers that move something, and the additional local of table.grow.
// The parameters 0 and 1 of table.grow are the value and the number of elements.
const (
	bulkTo, bulkFrom, bulkCount = 0, 1, 2
	growValue, growCount        = 0, 1
	growBefore                  = 2
)

func (h *bulk) function() addedFunction {
	r := h.r
	i32s := func(n int) []wasmbin.ValType {
		return []wasmbin.ValType{wasmbin.I32, wasmbin.I32, wasmbin.I32}[:n]
	}
	make := func(name string, params, results []wasmbin.ValType) addedFunction {
		return addedFunction{append(h.b, byte(wasmbin.OpEnd)),
			r.typeIndex(wasmbin.FuncType{Params: params, Results: results}), name}
	}
	h.b = []byte{0} // no locals
	k := h.key
	switch k.op {
	case wasmbin.OpMemoryGrow:
		h.charge(0, UnitsPerPage, 1)
		h.get(0)
		h.op(0x40, 0)
		return make(".memory.grow", i32s(1), i32s(1))
	case wasmbin.OpMemoryCopy:
		h.in, h.bytes = []byte{0xfc, 10, 0, 0}, true
		h.move(nothing, h.memoryBytes, h.memoryBytes)
		return make(".memory.copy", i32s(3), nil)
	case wasmbin.OpMemoryFill:
		h.in, h.bytes = []byte{0xfc, 11, 0}, true
		h.move(nothing, h.memoryBytes, nil)
		return make(".memory.fill", i32s(3), nil)
	case wasmbin.OpMemoryInit:
		h.in, h.bytes = append(wasmbin.AppendU32([]byte{0xfc, 8}, k.index), 0), true
		size := 0
		if int64(k.index) < int64(len(r.data)) {
			size = len(r.data[k.index].init)
		}
		h.move(h.dropped(size), h.memoryBytes, h.constant(size))
		return make(".memory.init", i32s(3), nil)
	case wasmbin.OpTableCopy:
		h.in = wasmbin.AppendU32(wasmbin.AppendU32([]byte{0xfc, 14}, k.index), k.second)
		h.move(nothing, h.tableSize(k.index), h.tableSize(k.second))
		return make(".table.copy", i32s(3), nil)
	case wasmbin.OpTableInit:
		h.in = wasmbin.AppendU32(wasmbin.AppendU32([]byte{0xfc, 12}, k.index), k.second)
		size := 0
		if int64(k.index) < int64(len(r.m.Elements)) {
			size = r.m.Elements[k.index].Count
		}
		h.move(h.dropped(size), h.tableSize(k.second), h.constant(size))
		return make(".table.init", i32s(3), nil)
	case wasmbin.OpTableFill:
		h.in = wasmbin.AppendU32([]byte{0xfc, 17}, k.index)
		h.move(nothing, h.tableSize(k.index), nil)
		t, _ := r.table(k.index)
		return make(".table.fill", []wasmbin.ValType{wasmbin.I32, t, wasmbin.I32}, nil)
	}
	h.in = wasmbin.AppendU32([]byte{0xfc, 15}, k.index)
	t, maxElements := r.table(k.index)
	h.b = []byte{1, 1, byte(wasmbin.I32)}
	h.grow(k.index, maxElements)
	return make(".table.grow", []wasmbin.ValType{t, wasmbin.I32}, i32s(1))
}

func (h *bulk) op(b ...byte)   { h.b = append(h.b, b...) }
func (h *bulk) get(local byte) { h.op(byte(wasmbin.OpLocalGet), local) }
func (h *bulk) set(local byte) { h.op(byte(wasmbin.OpLocalSet), local) }
func (h *bulk) i32(v int)      { h.b = wasmbin.AppendS64(append(h.b, 0x41), int64(int32(v))) }
func (h *bulk) wide(local byte) {
	h.get(local)
	h.op(0xad) // i64.extend_i32_u
}

// Instructions that are used after others in helpers.
const (
	i32GtU, i32LeU, i32Add, i32Sub, i32Or = 0x4b, 0x4d, 0x6a, 0x6b, 0x72
	i64GtU, i64Add                        = 0x56, 0x7c
	brIf, br, noResult                    = 0x0d, 0x0c, 0x40
	block, loop, ifThen, end, unreachable = 0x02, 0x03, 0x04, 0x0b, 0x00
)

// step is how much may be done between two checks.
func (h *bulk) step() int {
	if h.bytes {
		return StepBytes
	}
	return StepElements
}

// charge charges the value of a local, times multiply and divided by divide, and then checks.
func (h *bulk) charge(local byte, multiply, divide int64) {
	h.b = append(h.b, h.r.fuelGet...)
	h.wide(local)
	if divide > 1 {
		h.op(0x42, byte(bits.TrailingZeros64(uint64(divide))), 0x88) // i64.shr_u
	} else {
		h.b = wasmbin.AppendS64(append(h.b, 0x42), multiply)
		h.op(0x7e) // i64.mul
	}
	h.op(0x7d) // i64.sub
	h.b = append(h.b, h.r.fuelSet...)
	h.b = h.r.appendCheck(h.b)
}

func (h *bulk) chargeRest(count byte) {
	if h.bytes {
		h.charge(count, 1, BytesPerUnit)
	} else {
		h.charge(count, UnitsPerElement, 1)
	}
}

func (h *bulk) chargeStep() {
	units := int64(StepElements * UnitsPerElement)
	if h.bytes {
		units = StepBytes / BytesPerUnit
	}
	h.b = h.r.appendCheck(h.r.appendCharge(h.b, units))
}

// long opens an if that is entered when more than a step is left to do.
func (h *bulk) long(count byte) {
	h.get(count)
	h.i32(h.step())
	h.op(i32GtU, ifThen, noResult)
}

// next ends a round. If no more than a step is left, it leaves the loop and the block around it;
// otherwise it charges for the next step.
func (h *bulk) next(count byte) {
	h.get(count)
	h.i32(h.step())
	h.op(i32LeU, brIf, 1)
	h.chargeStep()
	h.op(br, 0, end, end)
}

// Sizes push an i64.
func (h *bulk) memoryBytes() { h.op(0x3f, 0, 0xad, 0x42, 16, 0x86) } // memory.size, i64.extend_i32_u, 16, i64.shl

func (h *bulk) tableSize(table uint32) func() {
	return func() {
		h.b = wasmbin.AppendU32(append(h.b, 0xfc, 16), table)
		h.op(0xad)
	}
}

func (h *bulk) constant(size int) func() {
	return func() { h.b = wasmbin.AppendS64(append(h.b, 0x42), int64(size)) }
}

func nothing() {}

// dropped returns code that traps if the instruction's segment has been dropped: then every offset
// but its start is out of bounds.
func (h *bulk) dropped(size int) func() {
	return func() {
		h.i32(0)
		h.i32(size)
		h.i32(0)
		h.b = append(h.b, h.in...)
	}
}

// move writes the helper of an instruction that moves something. Its parameters are the
// destination, the source or the value, and the length. to and from push the sizes of what
// destination and source are in; from is nil for a value. If the length is long, before is
// executed first.
func (h *bulk) move(before, to, from func()) {
	outside := func(place byte, size func()) {
		h.wide(place)
		h.wide(bulkCount)
		h.op(i64Add)
		size()
		h.op(i64GtU)
	}
	whole := func() {
		h.get(bulkTo)
		h.get(bulkFrom)
		h.get(bulkCount)
		h.b = append(h.b, h.in...)
	}
	h.long(bulkCount)
	h.chargeStep()
	outside(bulkTo, to)
	if from != nil {
		outside(bulkFrom, from)
		h.op(i32Or)
	}
	h.op(ifThen, noResult)
	whole()
	h.op(unreachable, end)
	before()
	if h.key.op == wasmbin.OpMemoryCopy || h.key.op == wasmbin.OpTableCopy {
		h.get(bulkTo)
		h.get(bulkFrom)
		h.op(i32LeU, ifThen, noResult)
		h.forwards(true)
		h.op(byte(wasmbin.OpElse))
		h.backwards()
		h.op(end)
	} else {
		h.forwards(from != nil)
	}
	h.op(end)
	h.chargeRest(bulkCount)
	whole()
}

// forwards does steps from the start, until no more than a step is left.
func (h *bulk) forwards(places bool) {
	h.op(block, noResult, loop, noResult)
	h.get(bulkTo)
	h.get(bulkFrom)
	h.i32(h.step())
	h.b = append(h.b, h.in...)
	advance := func(local, op byte) {
		h.get(local)
		h.i32(h.step())
		h.op(op)
		h.set(local)
	}
	advance(bulkTo, i32Add)
	if places {
		advance(bulkFrom, i32Add)
	}
	advance(bulkCount, i32Sub)
	h.next(bulkCount)
}

// backwards does steps from the end: when something is moved up within itself, its end must be
// read before it is overwritten.
func (h *bulk) backwards() {
	h.op(block, noResult, loop, noResult)
	h.get(bulkCount)
	h.i32(h.step())
	h.op(i32Sub)
	h.set(bulkCount)
	for _, place := range []byte{bulkTo, bulkFrom} {
		h.get(place)
		h.get(bulkCount)
		h.op(i32Add)
	}
	h.i32(h.step())
	h.b = append(h.b, h.in...)
	h.next(bulkCount)
}

// grow writes the helper of table.grow. A table that the module defines grows in steps. For an
// imported table the limit is not known here, so it grows at once.
func (h *bulk) grow(table uint32, maxElements uint64) {
	all := func() {
		h.get(growValue)
		h.get(growCount)
		h.b = append(h.b, h.in...)
	}
	if maxElements < math.MaxUint32 {
		h.long(growCount)
		h.chargeStep()
		h.tableSize(table)()
		h.wide(growCount)
		h.op(i64Add)
		h.constant(int(maxElements))()
		h.op(i64GtU, ifThen, noResult)
		all()
		h.op(byte(wasmbin.OpReturn), end)
		h.b = wasmbin.AppendU32(append(h.b, 0xfc, 16), table)
		h.set(growBefore)
		h.op(block, noResult, loop, noResult)
		h.get(growValue)
		h.i32(h.step())
		h.b = append(h.b, h.in...)
		h.op(opDrop)
		h.get(growCount)
		h.i32(h.step())
		h.op(i32Sub)
		h.set(growCount)
		h.next(growCount)
		h.chargeRest(growCount)
		all()
		h.op(opDrop)
		h.get(growBefore)
		h.op(byte(wasmbin.OpReturn), end)
	}
	h.chargeRest(growCount)
	all()
}

// table returns the type of a table's elements and its maximum number of elements.
func (r *rewriter) table(index uint32) (wasmbin.ValType, uint64) {
	k := int64(index)
	for _, x := range r.m.Imports {
		if x.Kind != wasmbin.ExternTable {
			continue
		}
		if k == 0 {
			return x.Elements, math.MaxUint32
		}
		k--
	}
	if k >= int64(len(r.m.Tables)) { // the instruction is invalid
		return wasmbin.FuncRef, math.MaxUint32
	}
	t := r.m.Tables[k]
	return t.Type, r.tableLimit(t).Max
}

// declared reports whether something outside of the code refers to a function. Only then may the
// code refer to it too.
func (r *rewriter) declared(old uint32) bool {
	if r.declarations == nil {
		r.declarations = make([]bool, r.functions)
		declare := func(f uint32) {
			if f < r.functions {
				r.declarations[f] = true
			}
		}
		expression := func(e wasmbin.Range) {
			_ = r.m.WalkExpr(e, func(in *wasmbin.Instr) { // errors are found when it is written
				if in.Op == wasmbin.OpRefFunc {
					declare(in.Index)
				}
			})
		}
		for _, e := range r.m.Exports {
			if e.Kind == wasmbin.ExternFunc {
				declare(e.Index)
			}
		}
		for _, g := range r.m.Globals {
			expression(g.Init)
		}
		for _, e := range r.m.Elements {
			if e.Exprs {
				expression(e.Members)
				continue
			}
			for at := e.Members.Start; at < e.Members.End; {
				index, n := leb(r.m.Bytes[at:e.Members.End])
				declare(index)
				at += n
			}
		}
	}
	return r.declarations[old]
}

// reference returns the global that holds the reference to a function.
func (r *rewriter) reference(old uint32) uint32 {
	if g, ok := r.referenceOf[old]; ok {
		return g
	}
	g := r.globals + addedGlobals + uint32(len(r.references))
	r.references = append(r.references, old)
	r.referenceOf[old] = g
	return g
}
