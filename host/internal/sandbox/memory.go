package sandbox

import (
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/pages"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero/experimental"
)

// linearMemory is the memory of one instance. wazero asks it for every growth, so the service's limit and the
// host's budget are enforced here. A refusal is remembered: it distinguishes a guest that ran out of memory
// from one that trapped for another reason.
//
// The instance owns it and calls release once. wazero's Free does nothing, as the memory of a guest that
// wazero has closed may still be read.
type linearMemory struct {
	limit   uint64
	image   *image // initial content; nil: zeros
	hold    *holding
	covered uint64 // bytes that the instance has taken from the budget for its whole life
	taken   uint64 // bytes taken for growth beyond covered
	started bool   // the guest takes calls
	b       []byte
	space   pages.Space
	refused bool  // growth beyond the limit was refused since the present request began
	short   error // why the host had no memory for a growth since the present request began
}

var (
	_ experimental.LinearMemory    = (*linearMemory)(nil)
	_ experimental.MemoryAllocator = (*linearMemory)(nil)
)

// newMemory makes a memory with room for limit bytes. It begins as m, or as size zeros if m is nil. covered
// bytes are already taken from the budget; newMemory takes the rest from hold. It returns the whole memory or
// an error: wazero is never asked to make an instance without its memory.
func newMemory(from pages.Backing, limit, size uint64, m *image, hold *holding, covered uint64) (*linearMemory, error) {
	if size > limit {
		return nil, service.Errorf(service.KindInvalid, "the memory starts with %d bytes; the limit is %d", size, limit)
	}
	s, err := from.Reserve(limit)
	if err != nil {
		return nil, noMemory(err)
	}
	mem := &linearMemory{limit: limit, hold: hold, covered: covered, space: s}
	switch {
	case m == nil:
		err = mem.grow(size)
	case !m.enter():
		err = errProgramClosed
	default:
		mem.image = m
		if err = mem.take(m.size); err == nil {
			err = mem.reset()
		}
	}
	if err != nil {
		mem.release()
		return nil, err
	}
	return mem, nil
}

// noMemory is the error for a refusal of the system to map memory. There is no fallback: the memory of the
// machine, or the process's share of it, is exhausted.
func noMemory(err error) error {
	return &service.Error{Kind: service.KindUnavailable, RetryAfter: retryMemory, Err: err,
		Message: "the system has no memory for the sandbox; nothing was written"}
}

// begin begins a request.
func (m *linearMemory) begin() { m.refused, m.short = false, nil }

// Allocate implements experimental.MemoryAllocator: an instance has one memory.
func (m *linearMemory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements experimental.LinearMemory. The first call is for the memory's minimum, which is
// always there. An image is larger than the minimum if the guest grew during its initialisation; wazero uses
// the size that it is given.
//
// If the host cannot afford a growth, the growth fails as it does beyond the limit, and the guest goes on.
// But then its answer depends on how full the host was, and not only on the command, so the answer is void;
// see [Instance.enter].
func (m *linearMemory) Reallocate(size uint64) []byte {
	if size <= uint64(len(m.b)) {
		return m.b
	}
	if size > m.limit {
		m.refused = true
		return nil
	}
	if err := m.grow(size); err != nil {
		m.short = err
		return nil
	}
	return m.b
}

// take takes from the budget what a memory of size bytes needs beyond what it has.
func (m *linearMemory) take(size uint64) error {
	want := m.space.Held(size)
	if want <= m.covered+m.taken {
		return nil
	}
	more := want - m.covered - m.taken
	take := m.hold.takeStart
	if m.started {
		take = m.hold.take
	}
	if err := take(int64(more)); err != nil {
		return err
	}
	m.taken += more
	return nil
}

func (m *linearMemory) grow(size uint64) error {
	if err := m.take(size); err != nil {
		return err
	}
	b, err := m.space.Grow(size)
	if err != nil {
		return noMemory(err)
	}
	m.b = b
	return nil
}

// reset makes the memory equal to its image again, in place. It must not have grown since.
func (m *linearMemory) reset() error {
	if m.image.gone() {
		return errProgramClosed
	}
	b, err := m.space.Show(m.image.memory, m.image.size)
	if err != nil {
		return noMemory(err)
	}
	m.b = b
	return nil
}

// Free implements experimental.LinearMemory.
func (m *linearMemory) Free() {}

// release frees the memory. It is idempotent.
func (m *linearMemory) release() {
	m.b = nil
	if m.space == nil {
		return
	}
	m.space.Release()
	m.space = nil
	m.hold.give(int64(m.taken))
	m.taken = 0
	if m.image != nil {
		m.image.leave()
	}
}
