package wasmbin

// Op is an opcode. For an opcode with a prefix, the high byte holds the prefix and the low byte the
// number after it.
type Op uint16

// The opcodes that this package or its users need by name.
const (
	OpUnreachable        Op = 0x00
	OpNop                Op = 0x01
	OpBlock              Op = 0x02
	OpLoop               Op = 0x03
	OpIf                 Op = 0x04
	OpElse               Op = 0x05
	OpEnd                Op = 0x0b
	OpBr                 Op = 0x0c
	OpBrIf               Op = 0x0d
	OpBrTable            Op = 0x0e
	OpReturn             Op = 0x0f
	OpCall               Op = 0x10
	OpCallIndirect       Op = 0x11
	OpReturnCall         Op = 0x12
	OpReturnCallIndirect Op = 0x13
	OpLocalGet           Op = 0x20
	OpLocalSet           Op = 0x21
	OpLocalTee           Op = 0x22
	OpGlobalGet          Op = 0x23
	OpGlobalSet          Op = 0x24
	OpTableGet           Op = 0x25
	OpTableSet           Op = 0x26
	OpMemoryGrow         Op = 0x40
	OpRefFunc            Op = 0xd2
	OpMemoryInit         Op = 0xfc08
	OpDataDrop           Op = 0xfc09
	OpMemoryCopy         Op = 0xfc0a
	OpMemoryFill         Op = 0xfc0b
	OpTableInit          Op = 0xfc0c
	OpElemDrop           Op = 0xfc0d
	OpTableCopy          Op = 0xfc0e
	OpTableGrow          Op = 0xfc0f
	OpTableSize          Op = 0xfc10
	OpTableFill          Op = 0xfc11
)

// NoIndex is the Index of an instruction that has no index, and of a block whose type is not an
// index.
const NoIndex = ^uint32(0)

// Instr is one instruction.
type Instr struct {
	Op         Op
	Start, End int    // offsets in the module
	Index      uint32 // first index immediate: label, function, local, global, table, segment or type; or NoIndex
	Second     uint32 // second index immediate, if there are two
	Depth      int    // number of enclosing blocks; a block encloses its end, but not its own opcode
}

// immediate is what follows an opcode.
type immediate uint8

const (
	immBad immediate = iota
	immNone
	immBlock
	immIndex
	immIndexTwo
	immBrTable
	immMemArg
	immMemory // a memory index
	immI32
	immI64
	immBytes4
	immBytes8
	immSelect
	immRefType
	immPrefixFC
	immPrefixFD
	immException // refused: exceptions
	immGC        // refused: garbage collection, typed references
	immThreads   // refused: threads
)

// immediates is indexed by the first byte of an opcode. It is built once and never changed.
var immediates = func() (t [256]immediate) {
	set := func(from, to int, i immediate) {
		for op := from; op <= to; op++ {
			t[op] = i
		}
	}
	set(0x00, 0x01, immNone)
	set(0x02, 0x04, immBlock)
	set(0x05, 0x05, immNone)
	set(0x06, 0x0a, immException)
	set(0x0b, 0x0b, immNone)
	set(0x0c, 0x0d, immIndex)
	set(0x0e, 0x0e, immBrTable)
	set(0x0f, 0x0f, immNone)
	set(0x10, 0x10, immIndex)
	set(0x11, 0x11, immIndexTwo)
	set(0x12, 0x12, immIndex)
	set(0x13, 0x13, immIndexTwo)
	set(0x14, 0x15, immGC)
	set(0x18, 0x19, immException)
	set(0x1a, 0x1b, immNone)
	set(0x1c, 0x1c, immSelect)
	set(0x1f, 0x1f, immException)
	set(0x20, 0x26, immIndex)
	set(0x28, 0x3e, immMemArg)
	set(0x3f, 0x40, immMemory)
	set(0x41, 0x41, immI32)
	set(0x42, 0x42, immI64)
	set(0x43, 0x43, immBytes4)
	set(0x44, 0x44, immBytes8)
	set(0x45, 0xc4, immNone)
	set(0xd0, 0xd0, immRefType)
	set(0xd1, 0xd1, immNone)
	set(0xd2, 0xd2, immIndex)
	set(0xd3, 0xd6, immGC)
	set(0xfb, 0xfb, immGC)
	set(0xfc, 0xfc, immPrefixFC)
	set(0xfd, 0xfd, immPrefixFD)
	set(0xfe, 0xfe, immThreads)
	return t
}()

// walker reads instructions.
type walker struct {
	*reader
	limits *Limits
	depth  int // open blocks; -1 after the end of the expression
}

// next reads one instruction.
func (w *walker) next() Instr {
	in := Instr{Start: w.at, Depth: w.depth, Index: NoIndex}
	b := w.u8("an instruction")
	in.Op = Op(b)
	switch immediates[b] {
	case immNone:
		if in.Op == OpEnd {
			w.depth--
		} else if in.Op == OpElse && w.depth == 0 {
			w.fail(in.Start, "else outside of a block")
		}
	case immBlock:
		w.blockType(&in)
		w.depth++
		if max := w.limits.Nesting; max > 0 && w.depth > max {
			w.fail(in.Start, "blocks are nested more than %d deep", max)
		}
	case immIndex:
		in.Index = w.u32("an index")
	case immIndexTwo:
		in.Index = w.u32("an index")
		in.Second = w.u32("an index")
	case immBrTable:
		n := w.count("branch targets", 1, w.limits.BranchTargets)
		for i := 0; i <= n && w.err == nil; i++ { // one more than n: the default
			w.u32("a label")
		}
	case immMemArg:
		w.memArg(in.Start)
	case immMemory:
		w.memory(in.Start)
	case immI32:
		w.signed(32, "a constant")
	case immI64:
		w.signed(64, "a constant")
	case immBytes4:
		w.bytes(4, "a constant")
	case immBytes8:
		w.bytes(8, "a constant")
	case immSelect:
		n := w.count("types of a select", 1, 0)
		for i := 0; i < n && w.err == nil; i++ {
			w.u8("a type")
		}
	case immRefType:
		w.u8("a reference type")
	case immPrefixFC:
		w.prefixFC(&in)
	case immPrefixFD:
		w.prefixFD(&in)
	default:
		w.refuse(&in, immediates[b])
	}
	in.End = w.at
	return in
}

// blockType reads a block's type: nothing, a value type, or an index into the module's types. The
// sign of one number tells them apart.
func (w *walker) blockType(in *Instr) {
	at := w.at
	switch t := w.signed(33, "a block type"); {
	case t >= 0:
		in.Index = uint32(t)
	case t != -0x40 && w.err == nil && !ValType(byte(t)&0x7f).known():
		w.fail(at, "a block of type 0x%02x, which is unknown", byte(t)&0x7f)
	}
}

func (w *walker) refuse(in *Instr, i immediate) {
	if w.err != nil {
		return
	}
	feature := ""
	switch i {
	case immException:
		feature = "exceptions are"
	case immGC:
		feature = "garbage collection and typed references are"
	case immThreads:
		feature = "threads (atomic instructions) are"
	default:
		w.fail(in.Start, "unknown instruction 0x%02x", byte(in.Op))
		return
	}
	w.fail(in.Start, "%s not supported (instruction 0x%02x); build the guest without that feature", feature,
		byte(in.Op))
}

func (w *walker) memArg(start int) {
	align := w.u32("an alignment")
	if align >= 64 && w.err == nil {
		w.fail(start, "several memories are not supported (alignment flags 0x%x); build the guest without that feature",
			align)
	}
	w.u32("an offset")
}

// memory reads the index of a memory, which is one byte.
func (w *walker) memory(start int) {
	switch m := w.u8("a memory index"); {
	case m >= 0x80:
		w.fail(start, "the index of a memory has more than one byte")
	case m != 0:
		w.fail(start, "memory %d is used; there is one, number 0", m)
	}
}

// prefixFC reads saturating conversions, bulk memory instructions and table instructions.
func (w *walker) prefixFC(in *Instr) {
	sub := w.u32("an instruction")
	switch {
	case sub <= 7:
	case sub == 8:
		in.Index = w.u32("a data segment's index")
		w.memory(in.Start)
	case sub == 9, sub == 13, sub >= 15 && sub <= 17:
		in.Index = w.u32("an index")
	case sub == 10:
		w.memory(in.Start)
		w.memory(in.Start)
	case sub == 11:
		w.memory(in.Start)
	case sub == 12, sub == 14:
		in.Index = w.u32("an index")
		in.Second = w.u32("an index")
	default:
		w.fail(in.Start, "unknown instruction 0xfc %d", sub)
		return
	}
	in.Op = 0xfc00 | Op(sub)
}

// prefixFD reads vector instructions.
func (w *walker) prefixFD(in *Instr) {
	sub := w.u32("an instruction")
	switch {
	case sub <= 0x0b, sub == 0x5c, sub == 0x5d:
		w.memArg(in.Start)
	case sub == 0x0c, sub == 0x0d:
		w.bytes(16, "a vector constant")
	case sub >= 0x15 && sub <= 0x22:
		w.u8("a lane")
	case sub >= 0x54 && sub <= 0x5b:
		w.memArg(in.Start)
		w.u8("a lane")
	case sub <= 0xff:
	default:
		w.fail(in.Start,
			"relaxed vector instructions are not supported (0xfd 0x%x): their results differ between machines; build "+
				"the guest without that feature", sub)
		return
	}
	in.Op = 0xfd00 | Op(sub)
}

// Walk calls visit for each instruction of one of the module's own functions, given by its number
// among them. The Instr is valid only during the call. Walk returns an [Error] where the code breaks
// the format or a limit.
func (m *Module) Walk(function int, l Limits, visit func(*Instr)) error {
	code := m.Bodies[function].Code
	r := reader{b: m.Bytes, at: code.Start, end: code.End, section: SectionCode.String()}
	w := walker{reader: &r, limits: &l}
	var in Instr // one for all calls, as it escapes to visit
	for r.err == nil && w.depth >= 0 {
		in = w.next()
		if r.err == nil && visit != nil {
			visit(&in)
		}
	}
	if r.err == nil && r.at != r.end {
		r.fail(r.at, "function body %d continues for %d bytes after its end", function, r.left())
	}
	if r.err != nil {
		return r.err
	}
	return nil
}

// BranchTargets calls visit with each label of a br_table from [Module.Walk], the default last.
func (m *Module) BranchTargets(in *Instr, visit func(label uint32)) {
	r := reader{b: m.Bytes, at: in.Start + 1, end: in.End}
	n := int64(r.u32("branch targets"))
	for i := int64(0); i <= n && r.err == nil; i++ {
		if label := r.u32("a label"); r.err == nil {
			visit(label)
		}
	}
}

// WalkExpr calls visit for each instruction of a constant expression, including its end.
func (m *Module) WalkExpr(expr Range, visit func(*Instr)) error {
	r := reader{b: m.Bytes, at: expr.Start, end: expr.End, section: "constant expression"}
	w := walker{reader: &r, limits: &Limits{}}
	var in Instr
	for r.err == nil && r.at < r.end {
		in = w.next()
		if r.err == nil {
			visit(&in)
		}
	}
	if r.err != nil {
		return r.err
	}
	return nil
}

// CheckCode walks all functions.
func (m *Module) CheckCode(l Limits) error {
	for i := range m.Bodies {
		if err := m.Walk(i, l, nil); err != nil {
			return err
		}
	}
	return nil
}

// ConstI32 returns the value of a constant expression that is a single i32.const, as an unsigned
// number like an address. ok is false for any other expression.
func (m *Module) ConstI32(r Range) (uint32, bool) {
	b := m.Slice(r)
	if len(b) < 3 || b[0] != 0x41 || b[len(b)-1] != byte(OpEnd) {
		return 0, false
	}
	var v uint32
	digits := b[1 : len(b)-1]
	for i, c := range digits {
		v |= uint32(c&0x7f) << (7 * i)
		if c >= 0x80 {
			continue
		}
		if c&0x40 != 0 && 7*(i+1) < 32 {
			v |= ^uint32(0) << (7 * (i + 1))
		}
		return v, i == len(digits)-1
	}
	return 0, false
}
