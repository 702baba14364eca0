package sandbox

import (
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero/experimental"
)

// linearMemory is one instance's memory. wazero asks it for every growth, so the
// service's limit and the host's budget are enforced here, and a refusal is
// remembered: it tells a guest that ran out of memory from one that trapped for
// another reason.
//
// The instance owns it and calls release, once for all. wazero's Free does
// nothing, as a guest that wazero has closed may still be looked at.
type linearMemory struct {
	limit   uint64
	image   *image // what the memory begins as; nil: zeros
	hold    *holding
	covered uint64 // bytes of it that the instance has taken from the budget for as long as it lives
	taken   uint64 // what was taken for growth beyond that
	started bool   // it is the memory of a guest that takes calls
	b       []byte
	space   space
	refused bool  // growth beyond the limit, since the last request began
	short   error // why the host had no memory for a growth, since the last request began
}

// space is where one memory is.
type space interface {
	// held is what a memory of that size takes, once it has grown so far.
	held(size uint64) uint64
	// grow makes the first size bytes usable and returns them; new ones are zero.
	grow(size uint64) ([]byte, error)
	// show makes the memory what the image says, whatever was in it before.
	show(m *image) ([]byte, error)
	// release gives the space back. Nobody may touch the memory any more.
	release()
}

// backing is where images and memories come from: one way for each kind of system.
type backing interface {
	// reserve makes a space for a memory of at most limit bytes.
	reserve(limit uint64) (space, error)
	// keep stores the memory of an image, up to its last byte that is not zero.
	keep(memory []byte) (stored, error)
	// imageBytes is what keep takes for so many bytes.
	imageBytes(used int) int64
	close() error
}

// stored is the memory of an image, in a backing.
type stored interface {
	// drop gives it back. No memory shows it any more.
	drop()
}

var (
	_ experimental.LinearMemory    = (*linearMemory)(nil)
	_ experimental.MemoryAllocator = (*linearMemory)(nil)
)

// newMemory makes a memory with room for limit bytes: that of the image, or one of
// size zeros. covered bytes of it are taken already; the rest is taken from hold.
// There is either the whole of it or an error: wazero is not asked to make an
// instance without a memory.
func newMemory(from backing, limit, size uint64, m *image, hold *holding, covered uint64) (*linearMemory, error) {
	if size > limit {
		return nil, service.Errorf(service.KindInvalid, "the memory starts with %d bytes; the limit is %d", size, limit)
	}
	s, err := from.reserve(limit)
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

// noMemory says that the system refused to map memory. That is an error, and never
// made good from elsewhere: the machine, or the process's share of it, is used up.
func noMemory(err error) error {
	return &service.Error{Kind: service.KindUnavailable, RetryAfter: retryMemory, Err: err,
		Message: "the system has no memory for the sandbox; nothing was written"}
}

// begin begins a request.
func (m *linearMemory) begin() { m.refused, m.short = false, nil }

// Allocate implements experimental.MemoryAllocator: an instance has one memory.
func (m *linearMemory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements experimental.LinearMemory. The first call is for the
// memory's minimum, which is there; an image is larger than that if the guest grew
// while it initialised, and wazero takes the size that it is given.
//
// A growth that the host cannot afford is refused as one beyond the limit is, and
// the guest goes on. But what it makes of that would not be what it makes of the
// same command on another day, so its answer is void; see [Instance.enter].
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

// take takes what a memory of that size needs beyond what it has.
func (m *linearMemory) take(size uint64) error {
	want := m.space.held(size)
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
	b, err := m.space.grow(size)
	if err != nil {
		return noMemory(err)
	}
	m.b = b
	return nil
}

// reset makes the memory its image again, in place. It must not have grown since.
func (m *linearMemory) reset() error {
	if m.image.gone() {
		return errProgramClosed
	}
	b, err := m.space.show(m.image)
	if err != nil {
		return noMemory(err)
	}
	m.b = b
	return nil
}

// Free implements experimental.LinearMemory.
func (m *linearMemory) Free() {}

// release gives the memory back. It is idempotent.
func (m *linearMemory) release() {
	m.b = nil
	if m.space == nil {
		return
	}
	m.space.release()
	m.space = nil
	m.hold.give(int64(m.taken))
	m.taken = 0
	if m.image != nil {
		m.image.leave()
	}
}
