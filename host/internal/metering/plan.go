package metering

import (
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// A function is rewritten in two steps. The first step walks the code once and makes a plan: a list
// of edits, in the order of the code, and the cost of each piece. The second step copies the code
// and applies the edits.
//
// A piece is a set of instructions that are executed together or not at all, as long as nothing
// traps; TARIFF.md defines it. It is charged at one point, before its first instruction, and it is
// executed soon after. A piece ends at a call, except for quick instructions, and has a maximum
// length of code. So a guest has never paid for much that it has not executed yet, and a check
// stops it in time when it has no fuel.

// edit is a change of a function's code, or information for writing it.
type edit struct {
	kind editKind
	at   int   // offset in the module
	end  int   // the code in [at:end) is left out
	arg  int64 // its meaning depends on the kind
}

// piece is what is charged at one point.
type piece struct {
	cost  int64
	begin int64 // the cost of all code before it
	front int   // the piece that it is charged with if it is short, or nowhere
	slow  bool  // it has instructions that are not quick
	quick bool  // it may be charged with front only if it is quick
}

type editKind uint8

const (
	editPoint editKind = iota // charge a piece; arg: its place in plan.pieces
	// the same, at the head of a loop with an if around its body; arg: in plan.bodies
	editLoopPoint
	editLoopEnd          // the end of that body; arg: the same
	editBlockPoint       // the head of one with a block around it; arg: the same
	editBlockEnd         // the end of that
	editParamPoint       // the same, if the loop takes parameters
	editCall             // arg: old function
	editCallIndirect     // nothing changes, but what is known of the fuel
	editRefFunc          // arg: old function
	editReturn           // arg: the label of the whole function
	editReleaseFrame     // release the frame, before a tail call
	editTailCall         // arg: old function
	editOrdinaryIndirect // an indirect tail call becomes a call
	editHelper           // a helper does it; arg: its place among them
	editReference        // of a function, from a global; arg: the global
	editNaN              // make NaNs canonical; arg: their type
	editBlock            // from here on control flow, which changes nothing by itself
	editLoop             //
	editIf               //
	editElse             //
	editEnd              //
	editBranch           // arg: label
	editJump             // the same, and the label as it is written; arg: that << 32 | label
	editLabel            // another label, in code that is not reached; arg: label
	editTable            // other labels; arg: the place of their list in plan.labels
	editDead             // what follows is not reached
	editNothing          // withdrawn
)

// plan is the plan of one function. The same object is used for one function after the other.
type plan struct {
	edits  []edit
	pieces []piece
	bodies []body   // loops whose bodies are put into an if or a block
	copied int      // number of locals that are copied for loops
	labels []uint32 // for each br_table that changes: the number of its labels, and the labels
	walked int64    // the cost of the code so far
	calls  bool     // it calls functions of the module
	loops  bool
	sized  bool // has charges by size

	needs [3]bool // which temporary locals it needs, in the order of temporaries
	frame frame
	fixed int // number of the function's own locals, with parameters
}

// temporaries are the types of the locals that edits use.
var temporaries = [3]wasmbin.ValType{wasmbin.F32, wasmbin.F64, wasmbin.V128}

const (
	tempF32  = 0
	tempF64  = 1
	tempV128 = 2
)

// nowhere is the point of unreachable code.
const nowhere = -1

// control is one open construct.
type control struct {
	op        wasmbin.Op
	reachable bool // its start can be reached
	targeted  bool // it is the target of a branch
	fallen    bool // of an if with else: the end of its first part can be reached
	point     int  // the piece before it
	headEdit  int  // of a loop: the edit of its first piece
	long      bool // there is a long call inside
	reach     int  // the outermost construct that a branch from inside goes to
	ends      int  // number of paths that lead to the code after it
	since     int  // where it starts, for the frame
	loop      int  // its index in plan.bodies, or nowhere
	wraps     int  // number of constructs put around bodies of loops, from the function to this one
	use       use
}

// freeEdits is the number of edits that every function may have. Beyond it, a function may have one
// edit for each byte of its code. Code that does something has about one edit for three bytes.
const freeEdits = 1 << 16

// planner makes the plan of a function.
type planner struct {
	*plan
	maxEdits int
	r        *rewriter
	stack    []control // the function is the first
	point    int       // piece of the next instruction, or nowhere
	at       int       // end of the last instruction
	nan      nanState
	locals   uint32
	err      error
}

// analyse makes the plan of one of the module's own functions.
func (r *rewriter) analyse(i int) error {
	m := r.m
	p := planner{plan: &r.plan, r: r, stack: r.planStack[:0]}
	t := m.Types[m.Functions[i]]
	*p.plan = plan{edits: p.edits[:0], pieces: p.pieces[:0], bodies: p.bodies[:0], labels: p.labels[:0],
		frame: p.plan.frame, fixed: len(t.Params) + m.Bodies[i].Locals}
	p.locals = uint32(p.fixed)
	p.nan.stack = r.nanStack[:0]
	p.frame.begin(r, i, t)
	code := m.Bodies[i].Code
	p.maxEdits = freeEdits + code.Len()
	p.at = code.Start
	p.stack = append(p.stack, control{op: wasmbin.OpBlock, reachable: true, point: nowhere, reach: 0, loop: nowhere})
	p.newPoint(editPoint, nowhere)
	err := m.Walk(i, wasmbin.Limits{}, p.instruction)
	r.planStack = p.stack
	r.nanStack = p.nan.stack
	for k := range p.edits {
		if e := &p.edits[k]; e.kind == editNaN {
			p.needs[nanTemporary[e.arg]] = true
		}
	}
	if p.err != nil {
		return p.err
	}
	p.roundUp()
	return err
}

// roundUp charges short pieces together with the pieces before them. Pieces are numbered in the
// order in which they begin, so the pieces that are charged with a piece are known before the piece
// itself is looked at.
func (p *plan) roundUp() {
	for k := len(p.pieces) - 1; k > 0; k-- {
		x := &p.pieces[k]
		maxCost := int64(ShortPiece)
		if x.quick {
			maxCost = QuickPiece
		}
		if x.front == nowhere || x.cost > maxCost || x.quick && x.slow {
			continue
		}
		f := &p.pieces[x.front]
		f.cost += x.cost
		f.slow = f.slow || x.slow
		x.cost = 0
	}
}

func (p *planner) add(kind editKind, at, end int, arg int64) {
	if len(p.edits) >= p.maxEdits {
		if p.err == nil {
			p.err = &Error{
				Reasons: []string{
					fmt.Sprintf(
						"a function of %d bytes, at offset %d, has more than %d places "+
							"where something is to be counted",
						p.maxEdits-freeEdits, at, p.maxEdits)}}
		}
		return
	}
	p.edits = append(p.edits, edit{kind, at, end, arg})
}

// newPoint begins a piece after the last instruction. If it is short, it is charged with front, a
// piece that has begun whenever this one does.
func (p *planner) newPoint(kind editKind, front int) {
	p.point = len(p.pieces)
	p.pieces = append(p.pieces, piece{begin: p.walked, front: front})
	p.add(kind, p.at, p.at, int64(p.point))
}

// afterCall begins a piece after a long call, or after a construct with one inside. It is charged with
// the piece before it only if it is short and has only quick instructions: many functions can be
// returning at once.
func (p *planner) afterCall(front int) {
	p.newPoint(editPoint, front)
	p.pieces[p.point].quick = true
}

// count adds an instruction to its piece, or begins a new piece if that would become too long.
func (p *planner) count(in *wasmbin.Instr) {
	cost := costOf(in.Op)
	if p.walked+cost-p.pieces[p.point].begin > MaxPiece && cost > 0 {
		p.newPoint(editPoint, nowhere)
	}
	p.walked += cost
	x := &p.pieces[p.point]
	x.cost += cost
	x.slow = x.slow || !quick(in.Op)
}

func (p *planner) bad(in *wasmbin.Instr, what string) {
	if p.err == nil {
		p.err = p.r.bad(in.Start, wasmbin.SectionCode, "%s %d does not exist", what, in.Index)
	}
}

// instruction adds the next instruction to the plan.
func (p *planner) instruction(in *wasmbin.Instr) {
	if p.err != nil {
		return
	}
	if p.check(in); p.err != nil {
		return
	}
	if p.point != nowhere {
		p.count(in)
	}
	p.at = in.End
	if p.point != nowhere {
		p.frame.instruction(in)
		p.nan.instruction(p, in)
		p.top().use.local(in)
	}
	switch in.Op {
	case wasmbin.OpBlock, wasmbin.OpLoop, wasmbin.OpIf:
		p.open(in)
	case wasmbin.OpElse:
		p.otherwise(in)
	case wasmbin.OpEnd:
		p.loopEnd(in)
		p.close()
	case wasmbin.OpBr:
		p.jump(in)
		p.dead()
	case wasmbin.OpBrIf:
		p.jump(in)
		if p.point != nowhere {
			p.newPoint(editPoint, p.point)
		}
	case wasmbin.OpBrTable:
		p.table(in)
		p.dead()
	case wasmbin.OpReturn:
		label := uint32(len(p.stack) - 1)
		p.add(editReturn, in.Start, in.End, int64(p.moved(label)))
		p.branch(in, label)
		p.dead()
	case wasmbin.OpUnreachable:
		p.dead()
	case wasmbin.OpReturnCall, wasmbin.OpReturnCallIndirect:
		p.tailCall(in)
	case wasmbin.OpCall:
		p.add(editCall, in.Start, in.End, int64(in.Index))
		p.called(in)
	case wasmbin.OpCallIndirect:
		p.add(editCallIndirect, in.Start, in.Start, 0)
		p.called(in)
	case wasmbin.OpRefFunc:
		p.reference(in)
	default:
		if isBulk(in.Op) && p.point != nowhere {
			p.sized = true
			p.add(editHelper, in.Start, in.End, int64(p.r.helper(in)))
		}
	}
}

// called begins a piece after a call, except of a light function or a host function.
func (p *planner) called(in *wasmbin.Instr) {
	if p.point == nowhere || in.Op == wasmbin.OpCall && in.Index < p.r.imported {
		return
	}
	p.calls = true
	if in.Op == wasmbin.OpCall && p.r.light[in.Index-p.r.imported] >= 0 {
		return
	}
	p.top().long = true
	p.afterCall(p.point)
}

// reference plans ref.func. Its machine code would call the runtime, which keeps memory for each
// execution. It is replaced by a global with the reference.
func (p *planner) reference(in *wasmbin.Instr) {
	if !p.r.declared(in.Index) {
		p.err = p.r.bad(in.Start, wasmbin.SectionCode,
			"function %d is referred to, but nothing outside of the code declares that", in.Index)
		return
	}
	if p.point == nowhere {
		p.add(editRefFunc, in.Start, in.End, int64(in.Index))
		return
	}
	p.add(editReference, in.Start, in.End, int64(p.r.reference(in.Index)))
}

// tailCall plans a tail call. If the arguments are not all passed in registers, a runtime may make
// an ordinary call instead. Then the frame stays, and must stay counted.
func (p *planner) tailCall(in *wasmbin.Instr) {
	direct := in.Op == wasmbin.OpReturnCall
	p.calls = p.calls || p.point != nowhere && (!direct || in.Index >= p.r.imported)
	label := uint32(len(p.stack) - 1)
	switch {
	case p.err != nil:
		return
	case registers(p.r.signature(in)):
		p.add(editReleaseFrame, in.Start, in.Start, 0)
		if direct {
			p.add(editTailCall, in.Start, in.End, int64(in.Index))
		}
	default:
		if direct {
			p.add(editCall, in.Start, in.End, int64(in.Index))
		} else {
			p.add(editOrdinaryIndirect, in.Start, in.Start+1, 0)
		}
		p.add(editReturn, in.End, in.End, int64(p.moved(label)))
	}
	p.branch(in, label)
	p.dead()
}

// check checks the indexes in an instruction against the original module.
func (p *planner) check(in *wasmbin.Instr) {
	m := p.r.m
	switch in.Op {
	case wasmbin.OpCall, wasmbin.OpReturnCall, wasmbin.OpRefFunc:
		if in.Index >= p.r.functions {
			p.bad(in, "function")
		}
	case wasmbin.OpCallIndirect, wasmbin.OpReturnCallIndirect:
		if int64(in.Index) >= int64(len(m.Types)) {
			p.bad(in, "type")
		}
	case wasmbin.OpBlock, wasmbin.OpLoop, wasmbin.OpIf:
		if in.Index != wasmbin.NoIndex && int64(in.Index) >= int64(len(m.Types)) {
			p.bad(in, "type")
		}
	case wasmbin.OpLocalGet, wasmbin.OpLocalSet, wasmbin.OpLocalTee:
		if in.Index >= p.locals {
			p.bad(in, "local")
		}
	case wasmbin.OpGlobalGet, wasmbin.OpGlobalSet:
		if in.Index >= p.r.globals {
			p.bad(in, "global")
		}
	case wasmbin.OpMemoryInit, wasmbin.OpDataDrop:
		if int64(in.Index) >= int64(len(m.Data)) || !p.r.numbered {
			p.bad(in, "data segment")
		}
		p.r.notImageable("the code names data segments (instruction 0x%x)", int(in.Op))
	case wasmbin.OpTableSet, wasmbin.OpTableGrow, wasmbin.OpTableFill, wasmbin.OpTableCopy, wasmbin.OpTableInit,
		wasmbin.OpElemDrop:
		p.r.notImageable("the code changes tables (instruction 0x%x)", int(in.Op))
	}
}

func (p *planner) top() *control { return &p.stack[len(p.stack)-1] }

func (p *planner) open(in *wasmbin.Instr) {
	c := control{
		op: in.Op, reachable: p.point != nowhere, point: p.point, reach: len(p.stack), since: p.at,
		loop: nowhere, wraps: p.top().wraps,
	}
	if c.reachable {
		switch in.Op {
		case wasmbin.OpBlock:
			p.add(editBlock, p.at, p.at, 0)
		case wasmbin.OpLoop:
			p.loops = true
			p.add(editLoop, p.at, p.at, 0)
			c.headEdit = len(p.edits)
			if in.Index != wasmbin.NoIndex && len(p.r.m.Types[in.Index].Params) > 0 {
				p.newPoint(editParamPoint, nowhere)
			} else {
				p.loopHead(&c, in)
			}
		case wasmbin.OpIf:
			p.add(editIf, p.at, p.at, 0)
			p.newPoint(editPoint, c.point)
		}
	}
	p.stack = append(p.stack, c)
}

func (p *planner) otherwise(in *wasmbin.Instr) {
	c := p.top()
	if c.op != wasmbin.OpIf {
		if p.err == nil {
			p.err = p.r.bad(in.Start, wasmbin.SectionCode, "else outside of an if")
		}
		return
	}
	c.op = wasmbin.OpElse
	if !c.reachable {
		return
	}
	if p.point != nowhere {
		c.fallen = true
		c.ends++
	}
	p.add(editElse, p.at, p.at, 0)
	p.newPoint(editPoint, c.point)
}

// close ends a construct, and determines the piece of the code after it.
func (p *planner) close() {
	depth := len(p.stack) - 1
	c := *p.top()
	p.stack = p.stack[:depth]
	if depth == 0 {
		p.add(editEnd, p.at-1, p.at-1, 0)
		return
	}
	if !c.reachable {
		return
	}
	parent := p.top()
	parent.reach = min(parent.reach, c.reach)
	parent.use.inner(c.use)
	loop := c.op == wasmbin.OpLoop
	again := loop && c.targeted
	parent.long = parent.long || c.long
	if p.point != nowhere {
		c.ends++
	}
	if c.op == wasmbin.OpIf { // no else: there is a path around it
		c.ends++
	}
	p.add(editEnd, p.at, p.at, 0)
	if loop && !again && c.loop == nowhere {
		p.edits[c.headEdit].kind = editPoint // then it is only a block
	}
	p.frame.merge(&c)
	leaves := c.reach < depth
	switch {
	case c.ends == 0:
		p.point = nowhere
	case c.op == wasmbin.OpBlock && !c.targeted || loop && (leaves || !again):
	// It can only be left through its end.
	case leaves && c.op == wasmbin.OpIf && c.ends == 1:
		p.newPoint(editPoint, c.point) // an if without else; only the path around it leads here
	case leaves:
		p.newPoint(editPoint, nowhere)
	case c.long:
		p.afterCall(c.point)
	default:
		p.point = c.point
	}
}

// branch records a branch to a label.
func (p *planner) branch(in *wasmbin.Instr, label uint32) {
	if p.targets(in, label) {
		p.add(editBranch, p.at, p.at, int64(label))
	}
}

// targets reports whether a branch can be reached, and records it for the target's construct.
func (p *planner) targets(in *wasmbin.Instr, label uint32) bool {
	if int64(label) >= int64(len(p.stack)) {
		if p.err == nil {
			p.err = p.r.bad(in.Start, wasmbin.SectionCode, "label %d does not exist", label)
		}
		return false
	}
	if p.point == nowhere {
		return false
	}
	to := len(p.stack) - 1 - int(label)
	p.stack[to].targeted = true
	if p.stack[to].op != wasmbin.OpLoop {
		p.stack[to].ends++
	}
	p.top().reach = min(p.top().reach, to)
	return true
}

func (p *planner) dead() {
	if p.point != nowhere {
		p.add(editDead, p.at, p.at, 0)
	}
	p.point = nowhere
}
