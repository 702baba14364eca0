package format

import (
	"encoding/binary"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// writer appends the primitive fields of records. Integers of unknown size are
// unsigned varints, byte strings carry their length as one.
type writer struct{ b []byte }

func (w *writer) uint(v uint64)  { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) u64(v uint64)   { w.b = binary.LittleEndian.AppendUint64(w.b, v) }
func (w *writer) str(s string)   { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) bytes(p []byte) { w.uint(uint64(len(p))); w.b = yield.Append(w.b, p) }

// reader takes them off again. It is total: the first failure sticks, later
// reads give zero values, and nothing is allocated by a length that was read.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) u64() uint64 {
	p := r.take(8)
	if r.bad {
		return 0
	}
	return binary.LittleEndian.Uint64(p)
}

func (r *reader) bytes() []byte { return r.take(r.uint()) }
func (r *reader) str() string   { return string(r.bytes()) }

func (r *reader) fill(p []byte) { copy(p, r.take(uint64(len(p)))) }
