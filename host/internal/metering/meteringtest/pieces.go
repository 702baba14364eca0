package meteringtest

import (
	"encoding/binary"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

const (
	opBlock              = 0x02
	opLoop               = 0x03
	opIf                 = 0x04
	opElse               = 0x05
	opEnd                = 0x0b
	opBr                 = 0x0c
	opBrIf               = 0x0d
	opBrTable            = 0x0e
	opReturn             = 0x0f
	opCall               = 0x10
	opCallIndirect       = 0x11
	opReturnCall         = 0x12
	opReturnCallIndirect = 0x13
)

// node is an instruction. The node of a block, loop or if includes its body.
type node struct {
	op              uint16
	a, b            uint32
	c               int64
	targets         []uint32
	body, other     []*node
	hasElse         bool
	params, results int

	piece *piece // nil if it is unreachable
	first bool   // it is the first one of its piece

	// Of constructs.
	branches int  // number of branches to its label
	leaves   bool // a branch inside goes further out
	long     bool // there is a long call inside
	around   bool // of an if: the code after it is reached only by not entering it
}

// piece is a set of instructions that are charged together.
type piece struct {
	cost      int64
	begun     bool
	at        int64  // cost of the code before it
	front     *piece // the piece that it is charged with if it is short
	afterCall bool   // it comes after a long call: it is charged with front only if it is quick
	slow      bool   // it is not quick
}

// cost is the tariff's table, without charges by size.
func cost(n *node) int64 {
	switch n.op {
	case opBlock, opLoop, 0x01:
		return 0
	case 0x40, 0xfc0f:
		return 301
	}
	return 1
}

// quick is the tariff's list of quick instructions.
var quick = func() map[uint16]bool {
	list := map[uint16]bool{}
	for _, r := range [][2]uint16{
		{0x00, 0x13}, {0x1a, 0x1b}, {0x20, 0x24}, {0x41, 0x44}, {0x45, 0x5a}, {0x67, 0x6c}, {0x71, 0x7e}, {0x83, 0x8a},
		{0xa7, 0xa7}, {0xac, 0xad}, {0xc0, 0xc4},
	} {
		for op := r[0]; op <= r[1]; op++ {
			list[op] = true
		}
	}
	return list
}()

// decoder decodes code into nodes.
type decoder struct {
	b []byte
	m *wasmbin.Module
}

func (d *decoder) u() uint64 {
	v, n := binary.Uvarint(d.b)
	d.b = d.b[n:]
	return v
}

func (d *decoder) signed() int64 {
	var v int64
	for shift := 0; ; shift += 7 {
		c := d.b[0]
		d.b = d.b[1:]
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			if c&0x40 != 0 && shift+7 < 64 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

// sequence decodes up to an end or else, and returns which of them it was.
func (d *decoder) sequence() (nodes []*node, last byte) {
	for {
		op := d.b[0]
		d.b = d.b[1:]
		if op == opEnd || op == opElse {
			return nodes, op
		}
		n := &node{op: uint16(op)}
		nodes = append(nodes, n)
		switch {
		case op == opBlock || op == opLoop || op == opIf:
			switch t := d.signed(); {
			case t >= 0:
				n.params, n.results = len(d.m.Types[t].Params), len(d.m.Types[t].Results)
			case t != -64:
				n.results = 1
			}
			var end byte
			if n.body, end = d.sequence(); end == opElse {
				n.hasElse = true
				n.other, _ = d.sequence()
			}
		case op == opBr || op == opBrIf || op == opCall || op == opReturnCall || op >= 0x20 && op <= 0x26 || op == 0xd2:
			n.a = uint32(d.u())
		case op == 0xd0:
			d.b = d.b[1:]
		case op == opCallIndirect || op == opReturnCallIndirect || op >= 0x28 && op <= 0x3e:
			n.a, n.b = uint32(d.u()), uint32(d.u())
		case op == opBrTable:
			for i := d.u() + 1; i > 0; i-- {
				n.targets = append(n.targets, uint32(d.u()))
			}
		case op == 0x3f || op == 0x40:
			d.u()
		case op == 0x41:
			n.c = int64(uint32(d.signed()))
		case op == 0x42:
			n.c = d.signed()
		case op == 0xfc:
			n.op = 0xfc00 | uint16(d.u())
			switch n.op {
			case 0xfc08, 0xfc0a, 0xfc0c, 0xfc0e:
				n.a, n.b = uint32(d.u()), uint32(d.u())
			case 0xfc09, 0xfc0b, 0xfc0d, 0xfc0f, 0xfc10, 0xfc11:
				n.a = uint32(d.u())
			default:
				panic(fmt.Sprintf("instruction 0x%x", n.op))
			}
		}
	}
}

// pieces divides a function into pieces. The first of two walks finds what is reachable and the
// targets of branches, and the second one follows the rules. light reports whether a function is
// light.
func pieces(function *node, light func(int) bool) {
	reach(function, nil)
	a := &assigner{light: light}
	a.assign(function.body, a.begin(nil))
	for i := len(a.pieces) - 1; i >= 0; i-- {
		if p := a.pieces[i]; p.front != nil && (!p.afterCall && p.cost <= 8 || p.afterCall && !p.slow && p.cost <= 32) {
			p.front.cost += p.cost
			p.front.slow = p.front.slow || p.slow
			p.cost = 0
		}
	}
}

// isLight reports whether a function is light.
func isLight(function *node, bytes int) bool {
	if bytes > 256 {
		return false
	}
	reach(function, nil)
	total := int64(0)
	var visit func(code []*node) bool
	visit = func(code []*node) bool {
		for _, n := range code {
			if n.piece == nil {
				continue
			}
			total += cost(n)
			switch n.op {
			case opCall, opCallIndirect, opReturnCall, opReturnCallIndirect, opLoop, 0x40, 0xfc08, 0xfc0a, 0xfc0b,
				0xfc0c, 0xfc0e, 0xfc0f, 0xfc11:
				return false
			}
			if !visit(n.body) || !visit(n.other) {
				return false
			}
		}
		return true
	}
	return visit(function.body) && total <= 64
}

// assigner follows the rules for pieces.
type assigner struct {
	pieces []*piece // in the order in which they begin
	walked int64    // cost of the code so far
	light  func(int) bool
}

func (a *assigner) begin(front *piece) *piece {
	p := &piece{front: front, at: a.walked}
	a.pieces = append(a.pieces, p)
	return p
}

func (a *assigner) beginAfterCall(front *piece) *piece {
	p := a.begin(front)
	p.afterCall = true
	return p
}

// reach marks branches, and reports whether the code after a node is reachable. outer are the
// constructs around it, the innermost last.
func reach(n *node, outer []*node) bool {
	inside := append(outer[:len(outer):len(outer)], n)
	falls := reachSequence(n.body, inside)
	if n.op == opIf {
		other := true
		if n.hasElse {
			other = reachSequence(n.other, inside)
		}
		n.around = !n.hasElse && !falls && n.branches == 0
		falls = falls || other
	}
	return falls || n.op != opLoop && n.branches > 0
}

func reachSequence(code []*node, around []*node) bool {
	branch := func(label int) {
		to := len(around) - 1 - label
		around[to].branches++
		for _, c := range around[to+1:] {
			c.leaves = true
		}
	}
	for _, n := range code {
		n.piece = &piece{} // it is reachable
		switch n.op {
		case opBlock, opLoop, opIf:
			if !reach(n, around) {
				return false
			}
		case opBrIf:
			branch(int(n.a))
		case opBr:
			branch(int(n.a))
			return false
		case opBrTable:
			for _, t := range n.targets {
				branch(int(t))
			}
			return false
		case opReturn, opReturnCall, opReturnCallIndirect:
			branch(len(around) - 1)
			return false
		case 0x00:
			return false
		}
	}
	return true
}

// assign gives each instruction of a sequence its piece. It returns the piece at its end, and whether
// there is a long call in it.
func (a *assigner) assign(code []*node, p *piece) (end *piece, long bool) {
	for _, n := range code {
		if n.piece == nil {
			break
		}
		if c := cost(n); c > 0 && a.walked+c-p.at > 1000 {
			p = a.begin(nil)
		}
		n.piece, n.first = p, !p.begun
		p.begun = true
		p.cost += cost(n)
		p.slow = p.slow || !quick[n.op]
		a.walked += cost(n)
		switch n.op {
		case opCall, opCallIndirect:
			if n.op == opCallIndirect || !a.light(int(n.a)) {
				long = true
				p = a.beginAfterCall(p)
			}
		case opBrIf:
			p = a.begin(p)
		case opBlock, opLoop, opIf:
			p = a.construct(n, p)
			long = long || n.long
		}
	}
	return p, long
}

// construct assigns pieces inside of a construct that is in p, and returns the piece of the code after
// it.
func (a *assigner) construct(n *node, p *piece) *piece {
	var end *piece
	switch n.op {
	case opIf:
		_, n.long = a.assign(n.body, a.begin(p))
		if n.hasElse {
			_, long := a.assign(n.other, a.begin(p))
			n.long = n.long || long
		}
	case opLoop:
		end, n.long = a.assign(n.body, a.begin(nil))
		if n.branches == 0 || n.leaves {
			return end
		}
	default:
		end, n.long = a.assign(n.body, p)
		if n.branches == 0 {
			return end
		}
	}
	switch {
	case n.leaves && n.around:
		return a.begin(p)
	case n.leaves:
		return a.begin(nil)
	case n.long:
		return a.beginAfterCall(p)
	}
	return p
}
