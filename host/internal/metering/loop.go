package metering

import (
	"math/bits"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// A loop that is the target of a branch is charged and checked at its head. The check is written so
// that it costs little in wazero's machine code:
//
//	loop
//	  charge
//	  there is fuel
//	  if
//	    the body
//	  else
//	    ask for fuel, take the charge back
//	    br to the loop
//	  end
//	end
//
// The compiler lays out blocks in the order of the code. So the body follows the head without a
// jump, and the code that asks for fuel comes after everything else. That code branches back to the
// head, so the body has only one predecessor, and the compiler keeps what it knows there.
//
// The if is an additional construct for branches out of the body: their labels grow by one.
//
// If a value that the loop changes must be preserved across a call in the loop, the compiler stores
// it at each change. To avoid this for the call that asks for fuel, the values are copied before
// that call, and only the copies are preserved.

// body describes a loop whose body is put into an if.
type body struct {
	piece   int    // the piece at its head
	typ     []byte // its type, which is also the type of the if
	changed uint64 // bit set of the locals that it changes and that have values at its head
}

// maxCopied is the maximum number of copies that a function makes for loops, and the number of its
// locals that can be copied. The slots of this many copies are less than the minimum that each frame
// is counted: [StackMultiple] times [FrameBytes].
const maxCopied = 64

// use says how a construct uses the first locals of its function, as bit sets.
type use struct {
	any  uint64 // read or set
	read uint64 // read before they are set, in the order of the code
	set  uint64
}

// local records an instruction that reads or sets a local.
func (u *use) local(in *wasmbin.Instr) {
	if in.Index >= maxCopied {
		return
	}
	bit := uint64(1) << in.Index
	switch in.Op {
	case wasmbin.OpLocalGet:
		u.read |= bit &^ u.any
	case wasmbin.OpLocalSet, wasmbin.OpLocalTee:
		u.set |= bit
	default:
		return
	}
	u.any |= bit
}

// inner adds the use by an inner construct.
func (u *use) inner(c use) {
	u.read |= c.read &^ u.any
	u.any |= c.any
	u.set |= c.set
}

// loopHead begins a loop's body, with an if around it.
func (p *planner) loopHead(c *control, in *wasmbin.Instr) {
	p.newPoint(editLoopPoint, nowhere)
	c.loop = len(p.bodies)
	c.wraps++
	p.bodies = append(p.bodies, body{piece: p.point, typ: p.r.m.Bytes[in.Start+1 : in.End]})
	p.edits[len(p.edits)-1].arg = int64(c.loop)
}

// loopEnd ends the body, at the end of the loop.
func (p *planner) loopEnd(in *wasmbin.Instr) {
	c := p.top()
	if c.loop == nowhere {
		return
	}
	if !c.targeted { // then it is only a block
		p.edits[c.headEdit].kind = editBlockPoint
		p.add(editBlockEnd, in.Start, in.Start, 0)
		return
	}
	l := &p.bodies[c.loop]
	l.changed = c.use.read & c.use.set
	if n := bits.OnesCount64(l.changed); p.copied+n <= maxCopied {
		p.copied += n
	} else {
		l.changed = 0
	}
	p.add(editLoopEnd, in.Start, in.Start, int64(c.loop))
}

// moved returns the number of a label in the rewritten function.
func (p *planner) moved(label uint32) uint32 {
	to := len(p.stack) - 1 - int(label)
	if to < 0 { // it does not exist
		return label
	}
	wraps := p.top().wraps
	if to > 0 {
		wraps -= p.stack[to-1].wraps
	}
	return label + uint32(wraps)
}

// jump plans a br or a br_if.
func (p *planner) jump(in *wasmbin.Instr) {
	label := p.moved(in.Index)
	switch {
	case label == in.Index:
		p.branch(in, in.Index)
	case p.point == nowhere:
		p.add(editLabel, in.Start+1, in.End, int64(label))
	case p.targets(in, in.Index):
		p.add(editJump, in.Start+1, in.End, int64(label)<<32|int64(in.Index))
	}
}

// table plans a br_table.
func (p *planner) table(in *wasmbin.Instr) {
	if p.top().wraps > 0 {
		at := len(p.labels)
		p.labels = append(p.labels, 0)
		p.r.m.BranchTargets(in, func(label uint32) { p.labels = append(p.labels, p.moved(label)) })
		p.labels[at] = uint32(len(p.labels) - at - 1)
		p.add(editTable, in.Start+1, in.End, int64(at))
	}
	p.r.m.BranchTargets(in, func(label uint32) { p.branch(in, label) })
}

// loop writes what surrounds a loop's body.
func (w *writer) loop(kind editKind, l *body, cost int64) {
	switch kind {
	case editLoopPoint:
		w.loopHead(l, cost)
	case editLoopEnd:
		w.loopEnd(l, cost)
	case editBlockPoint:
		w.blockPoint(l, cost)
	}
}

// loopHead charges the piece at the head of a loop, and checks.
func (w *writer) loopHead(l *body, cost int64) {
	w.take(w.r.fuelGet, w.r.fuelSet, cost)
	w.b = append(w.b, 0x42, 0, 0x59, byte(wasmbin.OpIf)) // i64.const 0, i64.ge_s
	w.b = append(w.b, l.typ...)
	w.unchecked = 0
}

// loopEnd writes the code that asks for fuel and branches back to the head.
func (w *writer) loopEnd(l *body, cost int64) {
	w.b = append(w.b, byte(wasmbin.OpElse))
	for set := l.changed; set != 0; set &= set - 1 {
		w.copyLocal(bits.TrailingZeros64(set))
	}
	w.b = append(w.b, w.r.callTrouble...)
	if cost > 0 {
		w.b = w.r.appendCharge(w.b, -cost)
	}
	w.b = append(w.b, byte(wasmbin.OpBr), 1, byte(wasmbin.OpEnd))
}

// blockPoint charges the piece at the head of a loop that is no branch's target.
func (w *writer) blockPoint(l *body, cost int64) {
	w.charge(cost, false)
	w.b = append(append(w.b, byte(wasmbin.OpBlock)), l.typ...)
}

// copyLocal sets a local to its own value, by an instruction that the compiler does not optimise
// away.
func (w *writer) copyLocal(local int) {
	var same []byte
	switch w.localType(local) {
	case wasmbin.I32:
		same = []byte{0x41, 0, 0x6a} // i32.const 0, i32.add
	case wasmbin.I64:
		same = []byte{0x42, 0, 0x7c} // i64.const 0, i64.add
	case wasmbin.F32:
		same = []byte{0xbc, 0xbe} // i32.reinterpret_f32, f32.reinterpret_i32
	case wasmbin.F64:
		same = []byte{0xbd, 0xbf} // i64.reinterpret_f64, f64.reinterpret_i64
	default:
		return
	}
	w.b = wasmbin.AppendU32(append(w.b, byte(wasmbin.OpLocalGet)), uint32(local))
	w.b = append(w.b, same...)
	w.b = wasmbin.AppendU32(append(w.b, byte(wasmbin.OpLocalSet)), uint32(local))
}

// localType returns the type of one of the function's first locals. They are looked up once.
func (w *writer) localType(local int) wasmbin.ValType {
	if w.localTypes == nil {
		m := w.r.m
		w.localTypes = append(make([]wasmbin.ValType, 0, maxCopied), m.Types[m.Functions[w.function]].Params...)
		declared := m.Slice(m.Bodies[w.function].Declarations)
		runs, n := leb(declared)
		for declared = declared[n:]; runs > 0; runs-- {
			count, n := leb(declared)
			for ; count > 0 && len(w.localTypes) < maxCopied; count-- {
				w.localTypes = append(w.localTypes, wasmbin.ValType(declared[n]))
			}
			declared = declared[n+1:]
		}
	}
	return w.localTypes[local]
}

// newLabels appends the labels of a br_table.
func (w *writer) newLabels(list []uint32) {
	n := list[0]
	w.b = wasmbin.AppendU32(w.b, n-1) // the last is the default
	for _, label := range list[1 : n+1] {
		w.b = wasmbin.AppendU32(w.b, label)
	}
}
