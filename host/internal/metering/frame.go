package metering

import "github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"

// The stack is counted in bytes of estimated frames. wazero's compiler gives each
// value that is ever spilled a slot of its own, so the frame of a function is
// bounded by the number of values its code computes, plus one for each local at
// each place where ways meet that have set it. Most values are never spilled, and
// so a frame is estimated as a share of that bound: at worst the real stack is
// that many times what was counted.
const (
	// FrameBytes is the least that a frame is counted.
	FrameBytes = 64
	// StackMultiple is the number of values that are counted as one slot, and so the
	// most by which the real stack is larger than what was counted.
	StackMultiple = 16
	// maxValues is where counting stops: a function with more is counted as a frame
	// that no stack can hold.
	maxValues = 1 << 20
	tooLarge  = 1 << 40
)

// frame estimates the frame of one function.
type frame struct {
	values   int64 // computed, or merged
	slot     int64 // bytes of one: 16 if any is a vector
	outgoing int64 // bytes of the largest list of arguments and results of a call
	r        *rewriter

	// Locals in the order in which they were last set, latest first, as a list in
	// two arrays; the locals set since some place are its front.
	setAt        []int32
	newer, older []int32
	latest       int32
}

const noLocal = -1

// begin starts a function with its parameters.
func (f *frame) begin(r *rewriter, function int, t wasmbin.FuncType) {
	*f = frame{r: r, slot: 8, setAt: f.setAt[:0], newer: f.newer[:0], older: f.older[:0], latest: noLocal}
	n := len(t.Params) + r.m.Bodies[function].Locals
	for range n {
		f.setAt = append(f.setAt, -1)
		f.newer = append(f.newer, noLocal)
		f.older = append(f.older, noLocal)
	}
	f.values = int64(len(t.Params))
	for _, list := range [][]wasmbin.ValType{t.Params, t.Results} {
		for _, v := range list {
			f.vector(v)
		}
	}
}

func (f *frame) vector(t wasmbin.ValType) {
	if t == wasmbin.V128 {
		f.slot = 16
	}
}

// instruction counts what a reachable instruction computes.
func (f *frame) instruction(in *wasmbin.Instr) {
	switch op := in.Op; {
	case op == wasmbin.OpLocalSet || op == wasmbin.OpLocalTee:
		f.set(int32(in.Index), int32(in.Start))
	case op == wasmbin.OpLocalGet, op >= 0x41 && op <= 0x44: // names a value, or is a constant
	case op >= wasmbin.OpCall && op <= wasmbin.OpReturnCallIndirect:
		f.call(f.r.signature(in))
	case op >= 0xfd00:
		f.slot = 16
		f.values++
	case op >= 0x20:
		f.values++
	case op == wasmbin.OpBlock || op == wasmbin.OpLoop || op == wasmbin.OpIf:
		if in.Index != wasmbin.NoIndex {
			t := f.r.m.Types[in.Index]
			f.values += int64(len(t.Params) + len(t.Results))
		}
		f.values++
	}
}

// call counts the results of a call, and the room for what does not go by register.
func (f *frame) call(t wasmbin.FuncType) {
	f.values += int64(len(t.Results)) + 2 // the memory's place and size are looked up again
	if registers(t) {
		return
	}
	f.outgoing = max(f.outgoing, 16*int64(len(t.Params)+len(t.Results)))
}

// registers reports whether all arguments and results of a signature travel in
// registers, on every machine.
func registers(t wasmbin.FuncType) bool {
	for _, list := range [2][]wasmbin.ValType{t.Params, t.Results} {
		ints, floats := 0, 0
		for _, v := range list {
			switch v {
			case wasmbin.F32, wasmbin.F64, wasmbin.V128:
				floats++
			default:
				ints++
			}
		}
		if ints > 6 || floats > 8 {
			return false
		}
	}
	return true
}

// set moves a local to the front of the list.
func (f *frame) set(local, at int32) {
	f.setAt[local] = at
	if f.latest == local {
		return
	}
	newer, older := f.newer[local], f.older[local]
	if newer != noLocal {
		f.older[newer] = older
	}
	if older != noLocal {
		f.newer[older] = newer
	}
	if f.latest != noLocal {
		f.newer[f.latest] = local
	}
	f.newer[local], f.older[local] = noLocal, f.latest
	f.latest = local
}

// merge counts the locals that differ by the way on which a construct's label is
// reached: those set inside of it.
func (f *frame) merge(c *control) {
	if c.op == wasmbin.OpLoop && !c.targeted || c.op != wasmbin.OpLoop && c.ends < 2 {
		return
	}
	f.values += 2
	for l := f.latest; l != noLocal && f.setAt[l] >= int32(c.since) && f.values < maxValues; l = f.older[l] {
		f.values++
	}
}

// bytes is the estimate.
func (f *frame) bytes() int64 {
	if f.values >= maxValues {
		return tooLarge
	}
	return (FrameBytes + f.outgoing + f.values*f.slot/StackMultiple + 7) &^ 7
}
