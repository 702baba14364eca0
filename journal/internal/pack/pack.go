// Package pack makes pieces of memory smaller and whole again, as blocks of S2, a descendant of
// Snappy whose decoder also reads that. It is the only package that knows the library. The format:
// https://github.com/klauspost/compress/tree/master/s2.
package pack

import (
	"fmt"

	"github.com/klauspost/compress/s2"
)

// Pack packs raw, into the memory of into if that is large enough. It is false if that saves less
// than an eighth; what it returns is then only memory to use again.
func Pack(into, raw []byte) ([]byte, bool) {
	if most := s2.MaxEncodedLen(len(raw)); most > cap(into) {
		into = make([]byte, most)
	}
	small := s2.Encode(into[:cap(into)], raw)
	return small, len(small) < len(raw)-len(raw)/8
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
