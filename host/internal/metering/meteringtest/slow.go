package meteringtest

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// Slow is a slow interpreter that charges by TARIFF.md. It was written from that text, and shares no
// code with the rewriter except the reader of sections. It runs what [Generate] makes: integers,
// memory, tables of functions, and all kinds of control flow and calls.
type Slow struct {
	// Charged is what the tariff charges for all calls so far.
	Charged int64
	// Executed is the cost of what was executed, including charges by size. It is at most Charged; the
	// difference are short pieces that were charged but skipped.
	Executed int64
	// Steps is the number of steps after which a call ends with ErrSteps.
	Steps int
	// Import is called for an imported function, which has no parameters and results.
	Import func(name string)

	m        *wasmbin.Module
	imports  []string
	funcs    []*slowFunc // the module's own functions
	memory   []byte
	maxPages uint32 // pages
	table    []int  // functions, -1 for null
	growth   int    // maximum size of the table
	data     [][]byte
	members  [][]int // members of element segments
	globals  []uint64
	stack    []uint64
	depth    int
	tail     int // function of a tail call
}

type slowFunc struct {
	typ    wasmbin.FuncType
	locals int
	body   *node
}

// slowTrap ends a call.
type slowTrap string

// The traps, in wazero's words.
const (
	trapUnreachable = slowTrap("unreachable")
	trapMemory      = slowTrap("out of bounds memory access")
	trapTable       = slowTrap("invalid table access")
	trapType        = slowTrap("indirect call type mismatch")
	trapDivide      = slowTrap("integer divide by zero")
	trapOverflow    = slowTrap("integer overflow")
	// ErrSteps: the call took more steps than allowed.
	ErrSteps = slowTrap("too many steps")
	// ErrDepth: the calls were deeper than allowed.
	ErrDepth = slowTrap("too deep")
)

// NewSlow makes an instance. It applies data and element segments, but does not run the start
// function.
func NewSlow(module []byte, steps int) (*Slow, error) {
	m, err := wasmbin.Parse(module, wasmbin.Limits{})
	if err != nil {
		return nil, err
	}
	s := &Slow{m: m, Steps: steps}
	for _, x := range m.Imports {
		s.imports = append(s.imports, x.Name)
	}
	light := make([]bool, len(m.Bodies))
	for i, body := range m.Bodies {
		f := &slowFunc{typ: m.Types[m.Functions[i]], locals: body.Locals}
		d := &decoder{b: m.Slice(body.Code), m: m}
		f.body = &node{op: opBlock, results: len(f.typ.Results)}
		f.body.body, _ = d.sequence()
		s.funcs = append(s.funcs, f)
		light[i] = isLight(f.body, body.Code.Len())
	}
	for _, f := range s.funcs {
		pieces(f.body, func(callee int) bool { return callee >= len(s.imports) && light[callee-len(s.imports)] })
	}
	if len(m.Memories) > 0 {
		s.memory = make([]byte, m.Memories[0].Min<<16)
		s.maxPages = 65536
		if m.Memories[0].HasMax {
			s.maxPages = uint32(m.Memories[0].Max)
		}
	}
	if len(m.Tables) > 0 {
		s.table = make([]int, m.Tables[0].Size.Min)
		s.growth = 100_000
		if m.Tables[0].Size.HasMax {
			s.growth = min(s.growth, int(m.Tables[0].Size.Max))
		}
		for i := range s.table {
			s.table[i] = -1
		}
	}
	for _, g := range m.Globals {
		d := &decoder{b: m.Slice(g.Init), m: m}
		n, _ := d.sequence()
		v := uint64(n[0].c)
		if n[0].op == 0xd2 {
			v = uint64(n[0].a) + 1
		}
		s.globals = append(s.globals, v)
	}
	for _, e := range m.Elements {
		var list []int
		d := &decoder{b: m.Slice(e.Members)}
		for range e.Count {
			list = append(list, int(d.u()))
		}
		if e.Mode == wasmbin.Active {
			at, _ := m.ConstI32(e.At)
			copy(s.table[at:], list)
			list = nil
		}
		s.members = append(s.members, list)
	}
	for _, x := range m.Data {
		s.data = append(s.data, slices.Clone(m.Slice(x.Init)))
	}
	return s, nil
}

// Memory returns the linear memory itself, not a copy.
func (s *Slow) Memory() []byte { return s.memory }

// Call runs an exported function.
func (s *Slow) Call(name string, args ...uint64) (results []uint64, err error) {
	e, ok := s.m.Export(name)
	if !ok {
		return nil, fmt.Errorf("no export %q", name)
	}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case slowTrap:
			err = fmt.Errorf("%s", string(r))
		default:
			panic(r)
		}
	}()
	s.stack = append(s.stack[:0], args...)
	s.depth = 0
	s.invoke(int(e.Index))
	return s.stack, nil
}

// How a sequence ended: at its end, or by a branch that many constructs out.
const (
	signalNone   = -1
	signalReturn = 1 << 20
	signalTail   = 1<<20 + 1
)

func (s *Slow) invoke(f int) {
	if f < len(s.imports) {
		s.Import(s.imports[f])
		return
	}
	if s.depth++; s.depth > 500 {
		panic(ErrDepth)
	}
	for {
		fn := s.own(f)
		locals := make([]uint64, len(fn.typ.Params)+fn.locals)
		base := len(s.stack) - len(fn.typ.Params)
		copy(locals, s.stack[base:])
		s.stack = s.stack[:base]
		sig := s.run(fn.body, locals)
		if sig != signalTail {
			s.keep(base, len(fn.typ.Results))
			break
		}
		f = s.tail
		s.keep(base, len(s.own(f).typ.Params))
	}
	s.depth--
}

func (s *Slow) own(f int) *slowFunc { return s.funcs[f-len(s.imports)] }

// Global returns a pointer to an exported global.
func (s *Slow) Global(name string) *uint64 {
	e, _ := s.m.Export(name)
	return &s.globals[e.Index]
}

// keep keeps the top n values and removes all others above base.
func (s *Slow) keep(base, n int) {
	copy(s.stack[base:], s.stack[len(s.stack)-n:])
	s.stack = s.stack[:base+n]
}

// run executes a block. A branch to its label ends it.
func (s *Slow) run(n *node, locals []uint64) int {
	base := len(s.stack) - n.params
	code := n.body
	if n.op == opIf {
		if cond := s.pop32(); cond == 0 {
			code = n.other
		}
		base = len(s.stack) - n.params
	}
	for {
		sig := s.sequence(code, locals)
		switch {
		case sig == signalNone:
			return signalNone
		case sig == 0 && n.op == opLoop:
			s.keep(base, n.params)
			continue
		case sig == 0:
			s.keep(base, n.results)
			return signalNone
		case sig >= signalReturn:
			return sig
		}
		return sig - 1
	}
}

func (s *Slow) sequence(code []*node, locals []uint64) int {
	for _, n := range code {
		if s.Steps--; s.Steps < 0 {
			panic(ErrSteps)
		}
		if n.first {
			s.Charged += n.piece.cost
		}
		s.Executed += cost(n)
		if sig := s.step(n, locals); sig != signalNone {
			return sig
		}
	}
	return signalNone
}

func (s *Slow) push(v uint64)     { s.stack = append(s.stack, v) }
func (s *Slow) push32(v uint32)   { s.stack = append(s.stack, uint64(v)) }
func (s *Slow) pop32() uint32     { return uint32(s.pop()) }
func (s *Slow) top() *uint64      { return &s.stack[len(s.stack)-1] }
func (s *Slow) size(units uint64) { s.Charged += int64(units); s.Executed += int64(units) }
func (s *Slow) pop() uint64 {
	v := s.stack[len(s.stack)-1]
	s.stack = s.stack[:len(s.stack)-1]
	return v
}

// step executes one instruction.
func (s *Slow) step(n *node, locals []uint64) int {
	switch n.op {
	case 0x00:
		panic(trapUnreachable)
	case 0x01:
	case opBlock, opLoop, opIf:
		return s.run(n, locals)
	case opBr:
		return int(n.a)
	case opBrIf:
		if s.pop32() != 0 {
			return int(n.a)
		}
	case opBrTable:
		i := min(s.pop32(), uint32(len(n.targets)-1))
		return int(n.targets[i])
	case opReturn:
		return signalReturn
	case opCall:
		s.invoke(int(n.a))
	case opCallIndirect:
		s.invoke(s.indirect(n))
	case opReturnCall:
		s.tail = int(n.a)
		return signalTail
	case opReturnCallIndirect:
		s.tail = s.indirect(n)
		return signalTail
	case 0x1a:
		s.pop()
	case 0x1b:
		c, b, a := s.pop32(), s.pop(), s.pop()
		if c == 0 {
			a = b
		}
		s.push(a)
	case 0x20:
		s.push(locals[n.a])
	case 0x21:
		locals[n.a] = s.pop()
	case 0x22:
		locals[n.a] = *s.top()
	case 0x23:
		s.push(s.globals[n.a])
	case 0x24:
		s.globals[n.a] = s.pop()
	case 0x41, 0x42:
		s.push(uint64(n.c))
	default:
		switch {
		case n.op >= 0x28 && n.op <= 0x40, n.op >= 0xfc08 && n.op <= 0xfc0b:
			s.memoryStep(n)
		case n.op == 0x25, n.op == 0x26, n.op >= 0xd0 && n.op <= 0xd2, n.op >= 0xfc0c:
			s.tableStep(n)
		default:
			s.number(n.op)
		}
	}
	return signalNone
}

func (s *Slow) indirect(n *node) int {
	i := s.pop32()
	if int64(i) >= int64(len(s.table)) || s.table[i] < 0 {
		panic(trapTable)
	}
	if f := s.table[i]; s.own(f).typ.Equal(s.m.Types[n.a]) {
		return f
	}
	panic(trapType)
}

// at returns a window of memory, or traps.
func (s *Slow) at(address, length uint64) []byte {
	if address+length > uint64(len(s.memory)) {
		panic(trapMemory)
	}
	return s.memory[address : address+length]
}

func (s *Slow) memoryStep(n *node) {
	switch n.op {
	case 0x28:
		s.push32(binary.LittleEndian.Uint32(s.at(uint64(s.pop32())+uint64(n.b), 4)))
	case 0x29:
		s.push(binary.LittleEndian.Uint64(s.at(uint64(s.pop32())+uint64(n.b), 8)))
	case 0x2d:
		s.push32(uint32(s.at(uint64(s.pop32())+uint64(n.b), 1)[0]))
	case 0x36:
		v := s.pop32()
		binary.LittleEndian.PutUint32(s.at(uint64(s.pop32())+uint64(n.b), 4), v)
	case 0x37:
		v := s.pop()
		binary.LittleEndian.PutUint64(s.at(uint64(s.pop32())+uint64(n.b), 8), v)
	case 0x3f:
		s.push32(uint32(len(s.memory) >> 16))
	case 0x40:
		more := s.pop32()
		s.size(uint64(more) * 16384)
		have := uint32(len(s.memory) >> 16)
		if uint64(have)+uint64(more) > uint64(s.maxPages) {
			s.push32(^uint32(0))
			return
		}
		s.memory = append(s.memory, make([]byte, uint64(more)<<16)...)
		s.push32(have)
	case 0xfc08:
		length, from, to := s.pop32(), s.pop32(), s.pop32()
		segment := s.data[n.a]
		s.inSteps(length, 65536, s.fits(to, length, len(s.memory)) && s.fits(from, length, len(segment)), trapMemory,
			func(n uint32) { s.size(uint64(n) / 4) })
		copy(s.memory[to:], segment[from:from+length])
	case 0xfc09:
		s.data[n.a] = nil
	case 0xfc0a:
		length, from, to := s.pop32(), s.pop32(), s.pop32()
		s.inSteps(length, 65536, s.fits(to, length, len(s.memory)) && s.fits(from, length, len(s.memory)), trapMemory,
			func(n uint32) { s.size(uint64(n) / 4) })
		copy(s.memory[to:], s.memory[from:from+length])
	case 0xfc0b:
		length, v, to := s.pop32(), s.pop32(), s.pop32()
		s.inSteps(length, 65536, s.fits(to, length, len(s.memory)), trapMemory, func(n uint32) {
			s.size(uint64(n) / 4)
		})
		for i := range length {
			s.memory[to+i] = byte(v)
		}
	default:
		panic(fmt.Sprintf("instruction 0x%x", n.op))
	}
}

// fits reports whether a range is within size.
func (s *Slow) fits(place, length uint32, size int) bool {
	return uint64(place)+uint64(length) <= uint64(size)
}

// inSteps charges an instruction by size. If it traps, only its first step is charged.
func (s *Slow) inSteps(length, step uint32, fits bool, trap slowTrap, charge func(uint32)) {
	if !fits {
		charge(min(length, step))
		panic(trap)
	}
	for ; length > step; length -= step {
		charge(step)
	}
	charge(length)
}

// tableStep executes instructions on tables and references. A reference is the number of a function
// plus one, or 0 for null.
func (s *Slow) tableStep(n *node) {
	bySize := func(n uint32) { s.size(uint64(n) * 2) }
	switch n.op {
	case 0x25:
		s.push(uint64(s.table[s.element()] + 1))
	case 0x26:
		v := int(s.pop()) - 1
		s.table[s.element()] = v
	case 0xd0:
		s.push(0)
	case 0xd1:
		s.push32(uint32(bits.LeadingZeros64(s.pop()) / 64))
	case 0xd2:
		s.push(uint64(n.a) + 1)
	case 0xfc0c:
		length, from, to := s.pop32(), s.pop32(), s.pop32()
		list := s.members[n.a]
		s.inSteps(length, 4096, s.fits(to, length, len(s.table)) && s.fits(from, length, len(list)), trapTable, bySize)
		copy(s.table[to:], list[from:from+length])
	case 0xfc0d:
		s.members[n.a] = nil
	case 0xfc0e:
		length, from, to := s.pop32(), s.pop32(), s.pop32()
		s.inSteps(length, 4096, s.fits(to, length, len(s.table)) && s.fits(from, length, len(s.table)), trapTable,
			bySize)
		copy(s.table[to:], s.table[from:from+length])
	case 0xfc0f:
		length, v := s.pop32(), int(s.pop())-1
		have := uint32(len(s.table))
		if !s.fits(have, length, s.growth) {
			bySize(min(length, 4096))
			s.push32(^uint32(0))
			return
		}
		bySize(length)
		for range length {
			s.table = append(s.table, v)
		}
		s.push32(have)
	case 0xfc10:
		s.push32(uint32(len(s.table)))
	case 0xfc11:
		length, v, to := s.pop32(), int(s.pop())-1, s.pop32()
		s.inSteps(length, 4096, s.fits(to, length, len(s.table)), trapTable, bySize)
		for i := range length {
			s.table[to+i] = v
		}
	default:
		panic(fmt.Sprintf("instruction 0x%x", n.op))
	}
}

// element pops an index into the table, or traps.
func (s *Slow) element() uint32 {
	i := s.pop32()
	if int64(i) >= int64(len(s.table)) {
		panic(trapTable)
	}
	return i
}

// number executes integer arithmetic.
func (s *Slow) number(op uint16) {
	bit := func(b bool) {
		v := uint64(0)
		if b {
			v = 1
		}
		s.push(v)
	}
	switch {
	case op == 0x45:
		bit(s.pop32() == 0)
	case op == 0x50:
		bit(s.pop() == 0)
	case op == 0xa7:
		s.push32(s.pop32())
	case op == 0xac:
		s.push(uint64(int64(int32(s.pop32()))))
	case op == 0xad:
		s.push(uint64(s.pop32()))
	case op == 0x67:
		s.push32(uint32(bits.LeadingZeros32(s.pop32())))
	case op == 0x7b:
		s.push(uint64(bits.OnesCount64(s.pop())))
	case op >= 0x46 && op <= 0x4f:
		b, a := s.pop32(), s.pop32()
		bit(compare(op-0x46, a, b, int32(a), int32(b)))
	case op >= 0x51 && op <= 0x5a:
		b, a := s.pop(), s.pop()
		bit(compare(op-0x51, a, b, int64(a), int64(b)))
	case op >= 0x6a && op <= 0x76:
		b, a := s.pop32(), s.pop32()
		s.push32(uint32(arithmetic(op-0x6a, uint64(a), uint64(b), uint64(int64(int32(a))), uint64(int64(int32(b))),
			32)))
	case op >= 0x7c && op <= 0x88:
		b, a := s.pop(), s.pop()
		s.push(arithmetic(op-0x7c, a, b, a, b, 64))
	default:
		panic(fmt.Sprintf("instruction 0x%x", op))
	}
}

// compare executes the n-th comparison, given the operands as unsigned and as signed numbers.
func compare[U uint32 | uint64, S int32 | int64](n uint16, a, b U, signedA, signedB S) bool {
	return []bool{
		a == b, a != b, signedA < signedB, a < b, signedA > signedB, a > b, signedA <= signedB, a <= b,
		signedA >= signedB, a >= b,
	}[n]
}

// arithmetic executes the n-th binary operation, given the operands as unsigned and as signed numbers.
func arithmetic(n uint16, a, b, signedA, signedB uint64, width uint) uint64 {
	if n >= 3 && n <= 6 && b == 0 {
		panic(trapDivide)
	}
	shift := b & uint64(width-1)
	switch n {
	case 0:
		return a + b
	case 1:
		return a - b
	case 2:
		return a * b
	case 3:
		if signedB == ^uint64(0) && a == 1<<(width-1) {
			panic(trapOverflow)
		}
		return uint64(int64(signedA) / int64(signedB))
	case 4:
		return a / b
	case 5:
		if signedB == ^uint64(0) {
			return 0
		}
		return uint64(int64(signedA) % int64(signedB))
	case 6:
		return a % b
	case 7:
		return a & b
	case 8:
		return a | b
	case 9:
		return a ^ b
	case 10:
		return a << shift
	case 11:
		return uint64(int64(signedA) >> shift)
	default:
		return a >> shift
	}
}
