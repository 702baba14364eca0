package metering

import "github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"

// The stack is counted in bytes of estimated frames. wazero's compiler gives each value that is ever
// spilled a slot of its own. So the number of slots in a frame is bounded by the number of values
// that the code computes, plus, at each place where control-flow paths merge, one for each local
// that they set. Most values are never spilled, so a frame is estimated as a fraction of that bound.
const (
	// FrameBytes is the minimum size of a frame, in bytes.
	FrameBytes = 64
	// StackMultiple is the number of values that are counted as one slot. So the real stack is at
	// most this many times as large as what was counted.
	StackMultiple = 16
	// maxValues is where counting stops: a function with more values is counted as a frame that
	// exceeds every stack.
	maxValues = 1 << 20
	tooLarge  = 1 << 40
)

// frame estimates the frame of one function.
type frame struct {
	values   int64 // number of values that are computed or merged
	slot     int64 // bytes of a slot: 16 if any value is a vector
	outgoing int64 // bytes of the largest list of arguments and results of a call
	r        *rewriter

	// Locals in the order in which they were last set, the latest first, as a list in two arrays.
	// The locals that were set since some place are the front of the list.
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

// instruction counts the values that a reachable instruction computes.
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

// call counts the results of a call, and the space for arguments and results outside of registers.
func (f *frame) call(t wasmbin.FuncType) {
	f.values += int64(len(t.Results)) + 2 // address and size of memory are loaded again
	if registers(t) {
		return
	}
	f.outgoing = max(f.outgoing, 16*int64(len(t.Params)+len(t.Results)))
}

// registers reports whether all arguments and results of a signature are passed in registers, on
// every machine.
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

// merge counts the locals that may differ between the paths that merge at a construct's label: those
// that were set inside of it.
func (f *frame) merge(c *control) {
	if c.op == wasmbin.OpLoop && !c.targeted || c.op != wasmbin.OpLoop && c.ends < 2 {
		return
	}
	f.values += 2
	for l := f.latest; l != noLocal && f.setAt[l] >= int32(c.since) && f.values < maxValues; l = f.older[l] {
		f.values++
	}
}

// bytes returns the estimated size of the frame.
func (f *frame) bytes() int64 {
	if f.values >= maxValues {
		return tooLarge
	}
	return (FrameBytes + f.outgoing + f.values*f.slot/StackMultiple + 7) &^ 7
}
