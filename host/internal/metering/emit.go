package metering

import (
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// construct is an open construct while a function is written. It holds what the paths to its label have
// been charged since their last check.
type construct struct {
	loop   bool
	label  int64 // the maximum over all branches to it, -1 if there are none
	around int64 // of an if: the value at its start; -1 once it has an else
}

// writer writes one function.
type writer struct {
	r          *rewriter
	function   int // its number among the module's own functions
	b          []byte
	unchecked  int64 // charged since the last check, on the worst path; -1 if this is unreachable
	constructs []construct
	counted    bool  // its stack is counted
	frame      int64 // bytes
	temps      [3]uint32

	localTypes []wasmbin.ValType // types of the first maxCopied locals, or nil if not yet known
}

// code returns the content of the code section.
func (r *rewriter) code() ([]byte, error) {
	m := r.m
	if err := r.findLight(); err != nil {
		return nil, err
	}
	size := 64
	for _, s := range m.Sections {
		if s.ID == wasmbin.SectionCode {
			size += s.Content.Len() * 3 / 2
		}
	}
	code := make([]byte, 0, size)
	var body []byte
	for i := range m.Bodies {
		if err := r.analyse(i); err != nil {
			return nil, err
		}
		var stopped int
		if body, stopped = r.write(body[:0], i, len(code)); stopped >= 0 {
			return nil, r.tooLarge(stopped, len(code)+len(body))
		}
		code = append(wasmbin.AppendU32(code, uint32(len(body))), body...)
	}
	r.writeSetup()
	for _, f := range r.added() {
		code = append(wasmbin.AppendU32(code, uint32(len(f.body))), f.body...)
	}
	return append(wasmbin.AppendU32(nil, uint32(len(m.Bodies)+len(r.added()))), code...), nil
}

// findLight finds the light functions: they are so small that their callers' checks suffice.
func (r *rewriter) findLight() error {
	r.light = make([]int64, len(r.m.Bodies))
	for i := range r.m.Bodies {
		r.light[i] = -1
		if r.m.Bodies[i].Code.Len() > MaxLightBytes {
			continue
		}
		if err := r.analyse(i); err != nil {
			return err
		}
		if p := &r.plan; !p.calls && !p.loops && !p.sized {
			var sum int64
			for _, x := range p.pieces {
				sum += x.cost
			}
			if sum <= MaxLight {
				r.light[i] = sum
			}
		}
	}
	return nil
}

// troubleBody is the body of the function that is called when a counter is negative. It tells the
// host which one.
func (r *rewriter) troubleBody() []byte {
	b := append([]byte{0}, r.stackGet...)
	b = append(b, 0x42, 0, 0x53, byte(wasmbin.OpIf), 0x40) // i64.const 0, i64.lt_s
	b = wasmbin.AppendU32(append(b, byte(wasmbin.OpCall)), r.overflow)
	b = append(b, byte(wasmbin.OpUnreachable), byte(wasmbin.OpEnd))
	b = wasmbin.AppendU32(append(b, byte(wasmbin.OpCall)), r.refuel)
	return append(b, byte(wasmbin.OpEnd))
}

// appendCharge subtracts units from the fuel.
func (r *rewriter) appendCharge(b []byte, units int64) []byte {
	b = append(append(b, r.fuelGet...), 0x42)
	b = append(wasmbin.AppendS64(b, units), 0x7d) // i64.sub
	return append(b, r.fuelSet...)
}

// appendCheck asks for fuel if none is left.
func (r *rewriter) appendCheck(b []byte) []byte {
	return r.appendTrouble(append(b, r.fuelGet...))
}

// appendTrouble calls for help if the number on the stack is negative. The call is in the else:
// where control-flow paths merge, wazero's compiler starts with the registers of the path that it
// has seen first, so that the usual path keeps its values in registers.
func (r *rewriter) appendTrouble(b []byte) []byte {
	b = append(b, 0x42, 0, 0x59, byte(wasmbin.OpIf), 0x40, byte(wasmbin.OpElse)) // i64.const 0, i64.ge_s
	return append(append(b, r.callTrouble...), byte(wasmbin.OpEnd))
}

// tooLarge returns the error for a module whose code has size bytes when it is rewritten up to the
// offset at.
func (r *rewriter) tooLarge(at, size int) error {
	return &Error{Reasons: []string{fmt.Sprintf(
		"the module grows too much when it is rewritten to count what it does: it had become %d bytes after %d of "+
			"its %d, and a module of that size may become %d; its code has too many branches, calls or instructions "+
			"that are charged by size for its length",
		size, at, len(r.m.Bytes), r.o.MaxBytes)}}
}

// beyond reports whether a module with size bytes of code is larger than allowed.
func (r *rewriter) beyond(size int) bool { return r.o.MaxBytes > 0 && int64(size) > r.o.MaxBytes }

// write appends a function's body by its plan. before is the number of bytes of code before it. If
// the module becomes too large, write stops and returns the offset; otherwise stopped is -1.
func (r *rewriter) write(b []byte, i, before int) (_ []byte, stopped int) {
	p := &r.plan
	body := &r.m.Bodies[i]
	w := writer{r: r, function: i, b: b, constructs: r.constructs[:0], frame: p.frame.bytes()}
	w.counted = p.calls || w.frame > maxLeafFrame
	w.declarations(body, p)
	w.constructs = append(w.constructs, construct{label: -1, around: -1})
	w.entry(p.pieces[0].cost, r.light[i] < 0, r.m.Types[r.m.Functions[i]].Results)
	at := body.Code.Start
	for k := 1; k < len(p.edits); k++ {
		e := &p.edits[k]
		w.b = append(w.b, r.m.Bytes[at:e.at]...)
		at = e.end
		w.edit(e, p)
		if r.beyond(before + len(w.b)) {
			return w.b, at
		}
	}
	w.b = append(w.b, r.m.Bytes[at:body.Code.End]...)
	r.constructs = w.constructs
	if r.beyond(before + len(w.b)) {
		return w.b, body.Code.End
	}
	return w.b, -1
}

// maxLeafFrame is the largest estimated frame, in bytes, of a function whose stack is not counted
// because it calls no function of the module.
const maxLeafFrame = 512

// declarations appends the function's own locals and the temporary ones.
func (w *writer) declarations(body *wasmbin.Body, p *plan) {
	added := uint32(0)
	for k, needed := range p.needs {
		if needed {
			w.temps[k] = uint32(p.fixed) + added
			added++
		}
	}
	declared := w.r.m.Slice(body.Declarations)
	if added == 0 {
		w.b = append(w.b, declared...)
		return
	}
	runs, n := leb(declared)
	w.b = append(wasmbin.AppendU32(w.b, runs+added), declared[n:]...)
	for k, needed := range p.needs {
		if needed {
			w.b = append(w.b, 1, byte(temporaries[k]))
		}
	}
}

// entry charges the first piece and the frame, with one check for both.
func (w *writer) entry(cost int64, check bool, results []wasmbin.ValType) {
	r := w.r
	w.unchecked = cost
	switch {
	case w.counted:
		w.take(r.fuelGet, r.fuelSet, cost)
		w.take(r.stackGet, r.stackSet, w.frame)
		w.b = append(w.b, 0x84) // i64.or: negative if one of them is
		w.b = r.appendTrouble(w.b)
		w.unchecked = 0
	case check:
		w.take(r.fuelGet, r.fuelSet, cost)
		w.b = r.appendTrouble(w.b)
		w.unchecked = 0
	case cost > 0:
		w.b = r.appendCharge(w.b, cost)
	}
	if !w.counted {
		return
	}
	// A block around the whole body: a branch that leaves the function leaves this block
	// instead, and then reaches the only place where the frame is released.
	w.b = append(w.b, byte(wasmbin.OpBlock))
	switch len(results) {
	case 0:
		w.b = append(w.b, 0x40)
	case 1:
		w.b = append(w.b, byte(results[0]))
	default:
		w.b = wasmbin.AppendS64(w.b, int64(r.typeIndex(wasmbin.FuncType{Results: results})))
	}
}

// take subtracts n from a counter and pushes the rest.
func (w *writer) take(get, set []byte, n int64) {
	if n > 0 {
		w.b = append(append(w.b, get...), 0x42)
		w.b = append(wasmbin.AppendS64(w.b, n), 0x7d) // i64.sub
		w.b = append(w.b, set...)
	}
	w.b = append(w.b, get...)
}

// releaseFrame releases the frame.
func (w *writer) releaseFrame() {
	w.b = append(append(w.b, w.r.stackGet...), 0x42)
	w.b = append(wasmbin.AppendS64(w.b, w.frame), 0x7c) // i64.add
	w.b = append(w.b, w.r.stackSet...)
}

func (w *writer) edit(e *edit, p *plan) {
	r := w.r
	switch e.kind {
	case editPoint:
		w.charge(p.pieces[e.arg].cost, false)
	case editParamPoint:
		w.charge(p.pieces[e.arg].cost, true)
	case editLoopPoint, editLoopEnd, editBlockPoint:
		l := &p.bodies[e.arg]
		w.loop(e.kind, l, p.pieces[l.piece].cost)
	case editBlockEnd:
		w.b = append(w.b, byte(wasmbin.OpEnd))
	case editLabel:
		w.b = wasmbin.AppendU32(w.b, uint32(e.arg))
	case editTable:
		w.newLabels(p.labels[e.arg:])
	case editCall:
		w.call(uint32(e.arg))
	case editCallIndirect:
		w.grow(MaxLight)
		w.returned()
	case editRefFunc:
		w.b = wasmbin.AppendU32(append(w.b, byte(wasmbin.OpRefFunc)), r.function(uint32(e.arg)))
	case editReturn:
		w.leave(uint32(e.arg))
	case editReleaseFrame:
		w.exit(maxReturned - MaxLight) // the called function may be light
		if w.counted {
			w.releaseFrame()
		}
	case editTailCall:
		w.b = wasmbin.AppendU32(append(w.b, byte(wasmbin.OpReturnCall)), r.function(uint32(e.arg)))
	case editOrdinaryIndirect:
		w.b = append(w.b, byte(wasmbin.OpCallIndirect))
	case editHelper:
		w.b = wasmbin.AppendU32(append(w.b, byte(wasmbin.OpCall)), r.trouble+1+uint32(e.arg))
		w.unchecked = min(w.unchecked, 0)
	case editReference:
		w.b = wasmbin.AppendU32(append(w.b, byte(wasmbin.OpGlobalGet)), uint32(e.arg))
	case editNaN:
		w.b = appendNaN(w.b, int(e.arg), w.temps[nanTemporary[e.arg]])
	default:
		w.flow(e)
	}
}

// charge charges a piece, and checks if necessary.
func (w *writer) charge(cost int64, check bool) {
	if w.unchecked += cost; check || w.unchecked > maxUnchecked {
		w.take(w.r.fuelGet, w.r.fuelSet, cost)
		w.b = w.r.appendTrouble(w.b)
		w.unchecked = 0
	} else if cost > 0 {
		w.b = w.r.appendCharge(w.b, cost)
	}
}

// grow records that the function charges without a check.
func (w *writer) grow(by int64) {
	if w.unchecked >= 0 && by > 0 {
		w.charge(0, w.unchecked+by > maxUnchecked)
		w.unchecked += by
	}
}

// call appends a call. The called function checks at its entry, unless it is light.
func (w *writer) call(old uint32) {
	r := w.r
	light := old < r.imported
	if !light {
		cost := r.light[old-r.imported]
		light = cost >= 0
		w.grow(cost)
	}
	w.b = wasmbin.AppendU32(append(w.b, byte(wasmbin.OpCall)), r.function(old))
	if !light {
		w.returned()
	}
}

// returned records that a function has returned, which may have charged up to maxReturned since its
// last check.
func (w *writer) returned() {
	if w.unchecked >= 0 {
		w.unchecked = maxReturned
	}
}

// exit checks at a return, if more than allowed has been charged since the last check.
func (w *writer) exit(allowed int64) {
	if w.unchecked > allowed {
		w.charge(0, true)
	}
}

// leave appends a return.
func (w *writer) leave(label uint32) {
	if !w.counted {
		w.exit(maxReturned)
		w.b = append(w.b, byte(wasmbin.OpReturn))
		return
	}
	w.b = wasmbin.AppendU32(append(w.b, byte(wasmbin.OpBr)), label)
}

// flow follows the control flow, to know what is charged without a check. The plan has only code
// that is reachable.
func (w *writer) flow(e *edit) {
	top := len(w.constructs) - 1
	switch e.kind {
	case editBlock:
		w.constructs = append(w.constructs, construct{label: -1, around: -1})
	case editLoop:
		w.constructs = append(w.constructs, construct{loop: true, label: -1, around: -1})
	case editIf:
		w.constructs = append(w.constructs, construct{label: -1, around: w.unchecked})
	case editElse:
		c := &w.constructs[top]
		c.label = max(c.label, w.unchecked)
		w.unchecked, c.around = c.around, -1
	case editEnd:
		c := w.constructs[top]
		w.constructs = w.constructs[:top]
		w.unchecked = max(w.unchecked, c.label, c.around)
		if top > 0 {
			return
		}
		if w.counted {
			w.b = append(w.b, byte(wasmbin.OpEnd))
			w.releaseFrame()
		}
		w.exit(maxReturned)
	case editJump, editBranch:
		if e.kind == editJump {
			w.b = wasmbin.AppendU32(w.b, uint32(e.arg>>32))
		}
		if c := &w.constructs[top-int(uint32(e.arg))]; !c.loop {
			c.label = max(c.label, w.unchecked)
		}
	case editDead:
		w.unchecked = -1
	}
}
