package sandbox

import (
	"cmp"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// segmentGap is the longest run of zeros that is written out to join two data
// segments: about what a segment of its own costs the host to keep.
const segmentGap = 64

// joinSegments writes the data section's content with neighbouring segments
// joined, or returns nil if there is nothing to join. Go's linker cuts its data
// at each run of zeros, into some 30,000 pieces, which wazero applies one by one
// at each start and keeps a list of an instance.
//
// Segments are joined only if no two of them overlap: then their order does not
// matter, and the zeros between them fall on memory that is zero already. A
// module whose code names segments by number has a data count section, and keeps
// its segments as they are.
func joinSegments(m *wasmbin.Module) []byte {
	for _, s := range m.Sections {
		if s.ID == wasmbin.SectionDataCount {
			return nil
		}
	}
	type piece struct {
		at   uint64
		data []byte
	}
	pieces := make([]piece, 0, len(m.Data))
	for _, d := range m.Data {
		at, ok := m.ConstI32(d.At)
		if d.Mode != wasmbin.Active || d.Memory != 0 || !ok {
			return nil
		}
		pieces = append(pieces, piece{uint64(at), m.Slice(d.Init)})
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return cmp.Compare(a.at, b.at) })
	joined := pieces[:0]
	for _, p := range pieces {
		if n := len(joined); n > 0 {
			last := &joined[n-1]
			end := last.at + uint64(len(last.data))
			if p.at < end {
				return nil
			}
			if p.at-end <= segmentGap {
				last.data = append(last.data, make([]byte, p.at-end)...) // the first append copies: Slice has no room behind
				last.data = append(last.data, p.data...)
				continue
			}
		}
		joined = append(joined, p)
	}
	if len(joined) == len(m.Data) {
		return nil
	}
	b := wasmbin.AppendU32(nil, uint32(len(joined)))
	for _, p := range joined {
		b = append(b, 0, 0x41) // active in memory 0; i32.const
		b = wasmbin.AppendS64(b, int64(int32(uint32(p.at))))
		b = append(b, byte(wasmbin.OpEnd))
		b = wasmbin.AppendU32(b, uint32(len(p.data)))
		b = append(b, p.data...)
	}
	return b
}
