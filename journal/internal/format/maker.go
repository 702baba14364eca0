package format

import (
	"crypto/sha256"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/pack"
)

// HashOf is the SHA-256 of a batch, which the next one of its log has. It yields now and then.
func HashOf(batch []byte) (sum ChainHash) {
	if len(batch) <= yield.Step {
		return sha256.Sum256(batch)
	}
	h := sha256.New()
	yield.Write(h, batch)
	h.Sum(sum[:0])
	return sum
}

// BatchMaker is what the committer makes batches with.
type BatchMaker struct {
	Codec   journal.Codec
	scratch []byte   // what is being packed
	spare   [][]byte // memory of batches that were packed
}

// Take returns empty memory with room for at least size bytes.
func (m *BatchMaker) Take(size int) []byte {
	if last := len(m.spare) - 1; last >= 0 {
		b := m.spare[last]
		m.spare = m.spare[:last]
		if cap(b) >= size {
			return b[:0]
		} // else it is dropped
	}
	return yield.Uncleared(size)
}

// pack returns b with the body of its batch packed, if that is worth it: in memory of its own, so that b can
// be used again.
func (m *BatchMaker) pack(b []byte, h *BatchHeader) []byte {
	head := BatchHeaderSize + len(h.Log)
	h.codec = codecNone
	if m.Codec != journal.CodecS2 || len(b)-head > MaxPacked {
		return b
	}
	small, ok := pack.Pack(m.scratch, b[head:])
	m.scratch = small
	if !ok {
		return b
	}
	h.codec = codecS2
	return yield.Append(append(yield.Uncleared(head+len(small)), b[:head]...), small)
}

// Finish makes a batch of b, which has room for the header and then the records.
func (m *BatchMaker) Finish(b []byte, h *BatchHeader) (batch []byte, hash ChainHash) {
	const most, count = 1 << 20, 8
	batch = m.pack(b, h)
	if h.codec != codecNone && cap(b) <= most && len(m.spare) < count {
		m.spare = append(m.spare, b)
	}
	return batch, endBatch(batch, h)
}
