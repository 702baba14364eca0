package lsm

import (
	"encoding/binary"
	"math/bits"
)

// filter is a blocked Bloom filter (Putze et al., "Cache-, Hash- and Space-Efficient Bloom
// Filters", 2007): all bits of a key are in one line of the processor's cache. With 10 bits a key
// one look in some sixty for what is not there goes astray.
type filter []byte

// The constants of wyhash.
const (
	hashStep = 0xa0761d6478bd642f
	hashLast = 0xe7037ed1a0b428db
	hashKey  = 0x8ebc6af09c88c6e3
)

const (
	filterLine       = 64 // bytes
	filterBitsPerKey = 10
	filterProbes     = 6
)

// filterHashes are what goes into a filter: the key of each entry, and each group once.
type filterHashes struct {
	all   []uint64
	group uint64 // of the latest entry
}

// add adds an entry, which comes behind those before.
func (h *filterHashes) add(group, key uint64) {
	if group != key && (group != h.group || len(h.all) == 0) {
		h.all = append(h.all, group)
	}
	h.group = group
	h.all = append(h.all, key)
}

func (h filterHashes) filter() filter {
	lines := max(1, (len(h.all)*filterBitsPerKey+8*filterLine-1)/(8*filterLine))
	f := make(filter, lines*filterLine)
	for _, x := range h.all {
		f.add(x)
	}
	return f
}

// line is the cache line that a hash belongs to.
func (f filter) line(h uint64) []byte {
	lines := uint64(len(f) / filterLine)
	i, _ := bits.Mul64(h, lines)
	return f[i*filterLine:][:filterLine]
}

func (f filter) add(h uint64) {
	line := f.line(h)
	x := uint32(h)
	step := x>>17 | x<<15
	for range filterProbes {
		line[x>>3&(filterLine-1)] |= 1 << (x & 7)
		x += step
	}
}

// mayHave is false only if h was not added. An empty filter may have everything.
func (f filter) mayHave(h uint64) bool {
	if len(f) < filterLine {
		return true
	}
	line := f.line(h)
	x := uint32(h)
	step := x>>17 | x<<15
	for range filterProbes {
		if line[x>>3&(filterLine-1)]&(1<<(x&7)) == 0 {
			return false
		}
		x += step
	}
	return true
}

// hashOf is a part of the disk format: filters rest on it. It multiplies and folds eight bytes at a
// time, as wyhash does. It need not withstand who looks for keys of the same hash: these cost a
// look into a table, and nothing else.
func hashOf(b []byte) uint64 {
	h := uint64(len(b)) * hashLast
	for ; len(b) >= 8; b = b[8:] {
		h = fold(h^binary.LittleEndian.Uint64(b), hashStep)
	}
	var last uint64
	for i, c := range b {
		last |= uint64(c) << (8 * i)
	}
	return fold(h^last, hashLast)
}

// hashes are those of the group that a key belongs to and of the whole key; they are the same if it
// has no group.
func hashes(key []byte, group func([]byte) int) (ofGroup, whole uint64) {
	n := group(key)
	if n == 0 {
		whole = hashOf(key)
		return whole, whole
	}
	ofGroup = hashOf(key[:n])
	return ofGroup, fold(ofGroup^hashOf(key[n:]), hashKey)
}

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
