package sandbox

import "github.com/tetratelabs/wazero/experimental"

// pageBytes is the unit of linear memory.
const pageBytes = 64 << 10

// maxMemoryBytes keeps every address and the memory's size within 32 bits.
const maxMemoryBytes = 4<<30 - pageBytes

// linearMemory is one instance's memory. wazero asks it for every growth, so
// the service's limit is enforced here, and a refusal is remembered: it tells a
// guest that ran out of memory from one that trapped for another reason.
type linearMemory struct {
	limit   uint64
	b       []byte
	refused bool // since the last call began
}

var (
	_ experimental.LinearMemory    = (*linearMemory)(nil)
	_ experimental.MemoryAllocator = (*linearMemory)(nil)
)

// Allocate implements experimental.MemoryAllocator: an instance has one memory.
func (m *linearMemory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements experimental.LinearMemory.
func (m *linearMemory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.refused = true
		return nil
	}
	if size <= uint64(cap(m.b)) {
		m.b = m.b[:size] // never written before, as memory does not shrink
		return m.b
	}
	// A guest that grows page by page must not copy its memory each time.
	room := min(max(size, uint64(cap(m.b))/4*5), m.limit)
	grown := make([]byte, size, room/pageBytes*pageBytes)
	copy(grown, m.b)
	m.b = grown
	return m.b
}

// Free implements experimental.LinearMemory.
func (m *linearMemory) Free() { m.b = nil }
