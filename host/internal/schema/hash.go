package schema

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// hash identifies a value: equal values have the same hash, however they are written, and different
// ones have different hashes, except with negligible probability. The seeds are secret, so nobody
// can construct a collision.
type hash [2]uint64

var hashSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// shape distinguishes the hashes of values of different types.
type shape byte

const (
	shapeWord shape = iota + 1 // null, true, false
	shapeNumber
	shapeString
	shapeArray
	shapeObject
	shapeMember
)

func hashOf(k shape, a, b []byte) (sum hash) {
	for i := range sum {
		h := maphash.Bytes(hashSeeds[i], a)
		if len(b) > 0 {
			h = mixed(h, maphash.Bytes(hashSeeds[i], b))
		}
		sum[i] = mixed(uint64(k), h)
	}
	return sum
}

// among reports whether a value is in the list.
func (c *check) among(v *values, at, end int) bool {
	if c.b[at] == '"' && end-at > 6*v.short+2 { // each character has at most 6 bytes
		return false
	}
	h, ok := c.hash(at)
	if !ok {
		return false
	}
	for i := range v.list {
		if v.list[i] == h {
			return true
		}
	}
	return false
}

// hash returns the hash of the value at an offset.
func (c *check) hash(at int) (sum hash, ok bool) {
	sum, _, ok = c.hashValue(c.walk.Space(at))
	return sum, ok
}

func (c *check) hashValue(at int) (sum hash, end int, ok bool) {
	if at >= len(c.b) {
		_, ok = c.malformed()
		return sum, 0, ok
	}
	c.spend(lookSteps)
	switch c.b[at] {
	case '{', '[':
		return c.hashChildren(at)
	case '"':
		if end, ok = c.walk.String(at); !ok {
			break
		}
		c.spend(end - at)
		return hashOf(shapeString, c.plain(c.b[at:end]), nil), end, true
	case 't', 'f', 'n':
		if end, ok = c.walk.Value(at); !ok {
			break
		}
		return hashOf(shapeWord, c.b[at:end], nil), end, true
	default:
		if end, ok = c.walk.Number(at); !ok {
			break
		}
		x, ok := c.parse(at, end)
		if !ok {
			return sum, 0, false
		}
		var exp [9]byte
		binary.LittleEndian.PutUint64(exp[:], uint64(x.exp))
		if x.negative {
			exp[8] = 1
		}
		return hashOf(shapeNumber, exp[:], x.digits), end, true
	}
	_, ok = c.malformed()
	return sum, 0, ok
}

// hashChildren returns the hash of an array, or of an object, whose members may be in any order.
func (c *check) hashChildren(at int) (sum hash, end int, ok bool) {
	if c.depth++; c.depth > maxCalls || len(c.path) > maxNesting {
		c.halt("the data is nested deeper than its values are compared")
		return sum, 0, false
	}
	object := c.b[at] == '{'
	of := shapeArray
	if object {
		of = shapeObject
	}
	path := len(c.path)
	sum = hashOf(of, nil, nil)
	end, ok = c.each(at, func(_, nameAt, nameEnd, value int) (int, bool) {
		var name hash
		if object {
			name = hashOf(shapeMember, c.plain(c.b[nameAt:nameEnd]), nil)
		}
		h, end, ok := c.hashValue(c.walk.Space(value))
		for i := range sum {
			if object {
				sum[i] += mixed(name[i], h[i])
			} else {
				sum[i] = mixed(sum[i], h[i])
			}
		}
		return end, ok && !c.stopped()
	})
	c.depth, c.path = c.depth-1, c.path[:path]
	return sum, end, ok
}

// mixed combines two hashes; their order matters.
func mixed(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, bits.RotateLeft64(b, 32)^0xd6e8feb86659fd93)
	return hi ^ lo
}
