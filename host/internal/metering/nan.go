package metering

import "github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"

// The ways to make a NaN canonical.
const (
	nanNone = iota
	nanF32
	nanF64
	nanF32x4
	nanF64x2
)

// nanTemporary is the local that each of them needs.
var nanTemporary = [...]int{nanF32: tempF32, nanF64: tempF64, nanF32x4: tempV128, nanF64x2: tempV128}

// nanOf is the way for the result of an instruction whose NaNs differ between
// machines. Sign operations, moves and selections keep bits, and conversions from
// integers give no NaN.
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

// nanState decides which results are made canonical.
type nanState struct{}

// instruction looks at one reachable instruction.
func (n *nanState) instruction(p *planner, in *wasmbin.Instr) {
	if p.r.o.KeepNaN {
		return
	}
	if way := nanOf(in.Op); way != nanNone {
		p.needs[nanTemporary[way]] = true
		p.add(editNaN, in.End, in.End, int64(way))
	}
}

// appendNaN replaces the number on top of the stack by the canonical NaN if it is
// not equal to itself. t is a local for it.
func appendNaN(b []byte, way int, t uint32) []byte {
	get := func() { b = wasmbin.AppendU32(append(b, byte(wasmbin.OpLocalGet)), t) }
	b = wasmbin.AppendU32(append(b, byte(wasmbin.OpLocalTee)), t)
	b = append(b, nanConstants[way]...)
	get()
	get()
	return append(b, nanSelections[way]...)
}

// nanConstants push the canonical NaN.
var nanConstants = [...][]byte{
	nanF32:   {0x43, 0, 0, 0xc0, 0x7f},
	nanF64:   {0x44, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f},
	nanF32x4: {0xfd, 0x0c, 0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f},
	nanF64x2: {0xfd, 0x0c, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f},
}

// nanSelections compare two numbers, and choose between the two below.
var nanSelections = [...][]byte{
	nanF32:   {0x5b, 0x1b},             // f32.eq, select
	nanF64:   {0x61, 0x1b},             // f64.eq, select
	nanF32x4: {0xfd, 0x41, 0xfd, 0x52}, // f32x4.eq, v128.bitselect
	nanF64x2: {0xfd, 0x47, 0xfd, 0x52}, // f64x2.eq, v128.bitselect
}
