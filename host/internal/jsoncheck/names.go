package jsoncheck

import (
	"bytes"
	"hash/maphash"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of the search for repeated names: the number of members of all open objects, and the bytes
// of those names that are written with escapes.
const (
	maxNames   = 32 << 10
	maxEscaped = 256 << 10
)

// Room bounds the memory that [Check] uses for a text of the given size, in bytes, in addition to
// the text.
func Room(size int) int { return 10 * min(size, 5*maxNames) }

// names holds the names of the members so far of all open objects, those of the innermost object
// last. A few names are compared one by one, which is enough for most objects. Larger objects also
// have their names in a hash table. Objects are closed in the reverse of the order in which they
// were opened, so the entries that leave the table are always those that were added last, and no
// probe chain breaks.
type names struct {
	text    []byte // the text that contains the names
	escaped []byte // the names that are written with escapes, unescaped
	all     []memberName
	objects []openObject

	slots  []uint32 // indices into all, plus 1; a power of two of them; 0: free
	hashed int      // number of slots in use
	seed   maphash.Seed

	firstNames   [16]memberName
	firstObjects [8]openObject
}

// memberName is where a name is: at an offset in the text or, if the offset is below 0, at -at-1 in
// escaped.
type memberName struct {
	at, size int32
	object   uint32 // number of its object if it is in the table; otherwise 0
}

type openObject struct {
	names   int // index of its first name
	escaped int // index of its first byte in escaped
}

// fewNames is the number of names up to which an object's names are compared one by one.
const fewNames = 12

var namesPool = sync.Pool{New: func() any { return new(names) }}

// begin prepares n for a text.
func (n *names) begin(text []byte) {
	n.text, n.all, n.objects = text, n.firstNames[:0], n.firstObjects[:0]
}

// end drops the references to the text, and memory that only few texts need.
func (n *names) end() {
	n.text, n.all, n.objects = nil, nil, nil
	if n.escaped != nil || n.slots != nil {
		*n = names{}
	}
}

func (n *names) of(m memberName) []byte {
	if m.at < 0 {
		return n.escaped[-m.at-1:][:m.size]
	}
	return n.text[m.at:][:m.size]
}

func (n *names) open() { n.objects = append(n.objects, openObject{len(n.all), len(n.escaped)}) }

// close removes the names of the innermost object.
func (n *names) close() {
	last := n.objects[len(n.objects)-1]
	for i := len(n.all) - 1; i >= last.names && n.all[i].object != 0; i-- {
		n.slots[n.find(i)] = 0
		n.hashed--
	}
	n.objects, n.all, n.escaped = n.objects[:len(n.objects)-1], n.all[:last.names], n.escaped[:last.escaped]
}

// add adds a name of the innermost object, given by its bounds in the text; it may contain escapes.
// twice reports that the object has the name already, room that it could be stored.
func (n *names) add(from, to int, escapes bool) (twice, room bool) {
	m := memberName{at: int32(from), size: int32(to - from)}
	if escapes {
		m.at = int32(-len(n.escaped) - 1)
		n.escaped = appendPlain(n.escaped, n.text[from:to])
		m.size = int32(len(n.escaped)) + m.at + 1
	}
	if len(n.all) == maxNames || len(n.escaped) > maxEscaped {
		return false, false
	}
	begin := n.objects[len(n.objects)-1].names
	before := n.all[begin:]
	n.all = append(n.all, m)
	if len(before) < fewNames {
		name := n.of(m)
		for i := range before {
			if before[i].size == m.size && bytes.Equal(n.of(before[i]), name) {
				return true, true
			}
		}
		return false, true
	}
	first := len(n.all) - 1
	if len(before) == fewNames {
		first = begin
	}
	for i := first; i < len(n.all); i++ {
		n.all[i].object = uint32(begin) + 1
		if n.put(i) {
			return true, true
		}
	}
	return false, true
}

// put puts a name into the table unless an equal one is there.
func (n *names) put(i int) (equal bool) {
	if 2*n.hashed >= len(n.slots) {
		n.grow(i)
	}
	slot := n.find(i)
	if n.slots[slot] != 0 {
		return true
	}
	n.slots[slot] = uint32(i) + 1
	n.hashed++
	return false
}

// grow enlarges the table, and inserts the names before the given one again.
func (n *names) grow(end int) {
	if n.slots == nil {
		n.seed = maphash.MakeSeed()
	}
	n.slots = make([]uint32, max(64, 2*len(n.slots)))
	for i := range end {
		if n.all[i].object != 0 {
			n.slots[n.find(i)] = uint32(i) + 1
		}
	}
}

// find returns the slot of a name or an equal one, or the free slot for it.
func (n *names) find(i int) int {
	m := n.all[i]
	name := n.of(m)
	mask := len(n.slots) - 1
	slot := int(maphash.Bytes(n.seed, name)+uint64(m.object)*0x9e3779b97f4a7c15) & mask
	for ; n.slots[slot] != 0; slot = (slot + 1) & mask {
		if other := n.all[n.slots[slot]-1]; other.object == m.object && other.size == m.size &&
			bytes.Equal(n.of(other), name) {
			break
		}
	}
	return slot
}

// appendPlain appends what a string in valid JSON, without its quotes, stands for.
func appendPlain(b, written []byte) []byte {
	for i := 0; i < len(written); i++ {
		c := written[i]
		if c != '\\' {
			b = append(b, c)
			continue
		}
		i++
		switch c := written[i]; c {
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, _ := unit(written, i-1)
			i += 4
			if utf16.IsSurrogate(r) {
				low, _ := unit(written, i+1)
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			b = utf8.AppendRune(b, r)
		default:
			b = append(b, c)
		}
	}
	return b
}
