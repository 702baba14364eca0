// Package pack makes pieces of memory smaller and whole again, as blocks of S2, a descendant of
// Snappy whose decoder also reads that. It is the only package that knows the library. The format:
// https://github.com/klauspost/compress/tree/master/s2.
package pack

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/klauspost/compress/s2"
)

// Pack packs raw, into the memory of into if that is large enough. It is false if that saves less
// than an eighth; what it returns is then only memory to use again.
func Pack(into, raw []byte) ([]byte, bool) {
	small := encode(into, raw)
	return small, len(small) < len(raw)-len(raw)/8
}

// encode makes a block. What is long is packed in pieces, so that others can run meanwhile, and
// the pieces are joined: the front of into is for the block, the rest for them.
func encode(into, raw []byte) []byte {
	most := s2.MaxEncodedLen(min(len(raw), yield.Step))
	if len(raw) <= yield.Step {
		return s2.Encode(atLeast(into, most), raw)
	}
	count := (len(raw) + yield.Step - 1) / yield.Step
	into = atLeast(into, 2*count*most)
	pieces := make([][]byte, 0, count)
	room := into[count*most:]
	for piece := range slices.Chunk(raw, yield.Step) {
		pieces = append(pieces, s2.Encode(room[:most:most], piece))
		room = room[most:]
		runtime.Gosched()
	}
	block, err := s2.ConcatBlocks(into[:0:count*most], pieces...)
	if err != nil { // a piece is no block
		return s2.Encode(into, raw)
	}
	return into[:len(block)] // block stands there: it is not longer than its room, so it was not moved
}

// atLeast is into with all its memory, or new memory if that is less than n.
func atLeast(into []byte, n int) []byte {
	if cap(into) < n {
		return yield.Uncleared(n)[:n]
	}
	return into[:cap(into)]
}

// Unpack makes whole what Pack packed, in the memory of into if that is large enough. If it is not, there is a bit
// more than needed, for the next time, unless into is nil. It is total,
// and takes no more than most bytes of memory: what claims to be longer is an error.
func Unpack(into, packed []byte, most int) ([]byte, error) {
	n, err := s2.DecodedLen(packed)
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, fmt.Errorf("it claims %d bytes, more than the %d there may be", n, most)
	}
	if cap(into) < n {
		more := 0
		if into != nil {
			more = n / 4
		}
		into = make([]byte, n+more)
	}
	return s2.Decode(into[:n], packed)
}
