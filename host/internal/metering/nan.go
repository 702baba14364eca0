package metering

import "github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"

// Kinds of instructions that make a NaN canonical, by the type of the NaN.
const (
	nanNone = iota
	nanF32
	nanF64
	nanF32x4
	nanF64x2
)

// nanTemporary is the temporary local that each of them needs.
var nanTemporary = [...]int{nanF32: tempF32, nanF64: tempF64, nanF32x4: tempV128, nanF64x2: tempV128}

// nanOf returns the kind for an instruction whose NaN results differ between machines. Sign
// operations, moves and selections keep bits, and conversions from integers give no NaN.
func nanOf(op wasmbin.Op) int {
	switch {
	case op >= 0x8d && op <= 0x97: // f32: ceil, floor, trunc, nearest, sqrt, add, sub, mul, div, min, max
		return nanF32
	case op >= 0x9b && op <= 0xa5: // f64 likewise
		return nanF64
	case op == 0xb6: // f32.demote_f64
		return nanF32
	case op == 0xbb: // f64.promote_f32
		return nanF64
	case op >= 0xfd67 && op <= 0xfd6a, // f32x4: ceil, floor, trunc, nearest
		op >= 0xfde3 && op <= 0xfde9, // sqrt, add, sub, mul, div, min, max
		op == 0xfd5e:                 // f32x4.demote_f64x2_zero
		return nanF32x4
	case op == 0xfd74, op == 0xfd75, op == 0xfd7a, op == 0xfd94, // f64x2: ceil, floor, trunc, nearest
		op >= 0xfdef && op <= 0xfdf5, // sqrt, add, sub, mul, div, min, max
		op == 0xfd5f:                 // f64x2.promote_low_f32x4
		return nanF64x2
	}
	return nanNone
}

// nanState follows results that may be NaN on the operand stack. A NaN need not be canonical if the
// next instruction is arithmetic, a comparison or a conversion to an integer: these treat all NaNs
// alike, and their own result is made canonical.
type nanState struct {
	// stack is the known top of the operand stack. For each value it holds the edit that makes the
	// value canonical, or noEdit.
	stack []int32
}

const noEdit = -1

func (n *nanState) push(edit int) { n.stack = append(n.stack, int32(edit)) }

// pop removes values. If the instruction that takes them treats all NaNs alike, the edits of values
// of the given kind are withdrawn, or all edits if it is nanNone.
func (n *nanState) pop(p *planner, values int, alike bool, kind int) {
	for ; values > 0 && len(n.stack) > 0; values-- {
		top := len(n.stack) - 1
		if e := n.stack[top]; e != noEdit && alike && (kind == nanNone || p.edits[e].arg == int64(kind)) {
			p.edits[e].kind = editNothing
		}
		n.stack = n.stack[:top]
	}
}

// instruction processes one reachable instruction.
func (n *nanState) instruction(p *planner, in *wasmbin.Instr) {
	if p.r.o.KeepNaN {
		return
	}
	op := in.Op
	pops, alike, kind := operands(op)
	switch {
	case pops < 0:
		n.stack = n.stack[:0]
		return
	case op == 0x1a: // drop
		n.pop(p, 1, true, nanNone)
		return
	}
	n.pop(p, pops, alike, kind)
	switch {
	case nanOf(op) != nanNone:
		n.push(len(p.edits))
		p.add(editNaN, in.End, in.End, int64(nanOf(op)))
	case op != wasmbin.OpLocalSet && op != wasmbin.OpGlobalSet && !(op >= 0x36 && op <= 0x3e):
		n.push(noEdit)
	}
}

// operands returns how many values an instruction takes, -1 if that is not known here, and whether
// it treats all NaNs alike. For vectors, alike holds only for NaNs of the returned kind.
func operands(op wasmbin.Op) (pops int, alike bool, kind int) {
	switch {
	case op == wasmbin.OpLocalGet, op == wasmbin.OpGlobalGet, op == 0x3f, op >= 0x41 && op <= 0x44:
		return 0, false, 0
	case op == 0x1a, op == wasmbin.OpLocalSet, op == wasmbin.OpLocalTee, op == wasmbin.OpGlobalSet,
		op >= 0x28 && op <= 0x35:
		return 1, false, 0
	case op >= 0x36 && op <= 0x3e: // stores
		return 2, false, 0
	case op == 0x1b, op == 0x1c: // select
		return 3, false, 0
	case op == 0x45, op == 0x50, op >= 0x67 && op <= 0x69, op >= 0x79 && op <= 0x7b, // of one integer
		op == 0x8b, op == 0x8c, op == 0x99, op == 0x9a, // abs, neg
		op == 0xa7, op == 0xac, op == 0xad, op >= 0xb2 && op <= 0xb5, op >= 0xb7 && op <= 0xba,
		op >= 0xbc && op <= 0xc4:
		return 1, false, 0
	case op >= 0x5b && op <= 0x66: // float comparisons
		return 2, true, 0
	case op >= 0xa8 && op <= 0xab, op >= 0xae && op <= 0xb1, op >= 0xfc00 && op <= 0xfc07: // to integers
		return 1, true, 0
	case op >= 0x8d && op <= 0x91, op >= 0x9b && op <= 0x9f, op == 0xb6, op == 0xbb: // of one float
		return 1, true, 0
	case op >= 0x92 && op <= 0x97, op >= 0xa0 && op <= 0xa5: // of two floats
		return 2, true, 0
	case op >= 0x46 && op <= 0xa6: // of two integers; copysign
		return 2, false, 0
	}
	return vectorOperands(op)
}

func vectorOperands(op wasmbin.Op) (pops int, alike bool, kind int) {
	switch {
	case op >= 0xfd41 && op <= 0xfd46, op >= 0xfde4 && op <= 0xfde9:
		return 2, true, nanF32x4
	case op >= 0xfd47 && op <= 0xfd4c, op >= 0xfdf0 && op <= 0xfdf5:
		return 2, true, nanF64x2
	case op >= 0xfd67 && op <= 0xfd6a, op == 0xfde3, op == 0xfd5f, op == 0xfdf8, op == 0xfdf9:
		return 1, true, nanF32x4
	case op == 0xfd74, op == 0xfd75, op == 0xfd7a, op == 0xfd94, op == 0xfdef, op == 0xfd5e, op == 0xfdfc, op == 0xfdfd:
		return 1, true, nanF64x2
	case op == 0xfd0c: // v128.const
		return 0, false, 0
	case op == 0xfd00, op >= 0xfd0f && op <= 0xfd14: // v128.load, splats
		return 1, false, 0
	}
	return -1, false, 0
}

// appendNaN replaces the number on top of the stack by the canonical NaN if it does not equal
// itself. t is a local for it.
func appendNaN(b []byte, kind int, t uint32) []byte {
	get := func() { b = wasmbin.AppendU32(append(b, byte(wasmbin.OpLocalGet)), t) }
	b = wasmbin.AppendU32(append(b, byte(wasmbin.OpLocalTee)), t)
	b = append(b, nanConstants[kind]...)
	get()
	get()
	return append(b, nanSelections[kind]...)
}

// nanConstants push the canonical NaN.
var nanConstants = [...][]byte{
	nanF32:   {0x43, 0, 0, 0xc0, 0x7f},
	nanF64:   {0x44, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f},
	nanF32x4: {0xfd, 0x0c, 0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f},
	nanF64x2: {0xfd, 0x0c, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f},
}

// nanSelections compare two numbers and select one of the two below.
var nanSelections = [...][]byte{
	nanF32:   {0x5b, 0x1b},             // f32.eq, select
	nanF64:   {0x61, 0x1b},             // f64.eq, select
	nanF32x4: {0xfd, 0x41, 0xfd, 0x52}, // f32x4.eq, v128.bitselect
	nanF64x2: {0xfd, 0x47, 0xfd, 0x52}, // f64x2.eq, v128.bitselect
}
