package sandbox

import (
	"sync/atomic"

	"github.com/tetratelabs/wazero/experimental"
)

// pageBytes is the unit of linear memory.
const pageBytes = 64 << 10

// maxMemoryBytes keeps every address and the memory's size within 32 bits.
const maxMemoryBytes = 4<<30 - pageBytes

// linearMemory is one instance's memory. wazero asks it for every growth, so
// the service's limit is enforced here, and a refusal is remembered: it tells a
// guest that ran out of memory from one that trapped for another reason.
//
// Where the system has it, the memory is address space of its own, outside of the
// Go heap: reserved up to the limit at the start, so that it never moves, and
// usable as far as it has grown. Elsewhere it is a slice that is copied when it
// grows. The guest sees no difference.
//
// The instance owns it and calls release, once for all. wazero's Free does
// nothing, as a guest that wazero has closed may still be looked at.
type linearMemory struct {
	limit   uint64
	image   *image // what the memory begins as; nil: zeros, of the size that the module asks for
	held    *atomic.Int64
	b       []byte
	space   space // nil in a memory on the heap
	refused bool  // since the last call began
	failed  error // why there is no memory at all
}

// space is the address space of one memory.
type space interface {
	// grow makes the first size bytes usable and returns them; new ones are zero.
	grow(size uint64) ([]byte, error)
	// show makes the memory what the image says, whatever was in it before.
	show(m *image) ([]byte, error)
	// release gives the space back. Nobody may touch the memory any more.
	release()
}

var (
	_ experimental.LinearMemory    = (*linearMemory)(nil)
	_ experimental.MemoryAllocator = (*linearMemory)(nil)
)

// newMemory makes a memory with room for limit bytes. held counts what all
// memories of a runtime have reserved.
func newMemory(limit uint64, m *image, copying bool, held *atomic.Int64) (*linearMemory, error) {
	mem := &linearMemory{limit: limit, image: m, held: held}
	if !copying {
		s, err := reserve(limit)
		if err != nil {
			return nil, err
		}
		mem.space = s
		held.Add(int64(limit))
	}
	return mem, nil
}

// Allocate implements experimental.MemoryAllocator: an instance has one memory.
func (m *linearMemory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements experimental.LinearMemory. The first call is for the
// memory's minimum; an image is larger than that if the guest grew while it
// initialised, and wazero takes the size that it is given.
func (m *linearMemory) Reallocate(size uint64) []byte {
	if m.b == nil && m.image != nil {
		if err := m.reset(); err != nil {
			m.failed = err
			return make([]byte, size) // wazero wants one; the instance is given up
		}
		return m.b
	}
	if size > m.limit {
		m.refused = true
		return nil
	}
	if m.space != nil {
		b, err := m.space.grow(size)
		if err != nil { // the machine is out of memory
			m.refused = true
			if m.b == nil {
				m.failed = err
				return make([]byte, size)
			}
			return nil
		}
		m.b = b
		return b
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

// reset makes the memory its image again, in place. It must not have grown since.
func (m *linearMemory) reset() error {
	if m.space != nil {
		b, err := m.space.show(m.image)
		if err == nil {
			m.b = b
		}
		return err
	}
	if m.b == nil {
		m.b = make([]byte, m.image.size)
	}
	n := copy(m.b, m.image.bytes)
	clear(m.b[n:])
	return nil
}

// Free implements experimental.LinearMemory.
func (m *linearMemory) Free() {}

// release gives the memory back. It is idempotent.
func (m *linearMemory) release() {
	m.b = nil
	if m.space != nil {
		m.space.release()
		m.space = nil
		m.held.Add(-int64(m.limit))
	}
}
