package sandbox

import (
	"bytes"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
)

// copying is the backing for systems that cannot map images. Memories are slices on the Go heap, which are
// copied when they grow; images are copied into them. The guest sees no difference.
type copying struct{}

func (copying) reserve(limit uint64) (space, error) { return &copied{limit: limit}, nil }

func (copying) keep(memory []byte) (stored, error) { return cloned(bytes.Clone(memory)), nil }

func (copying) imageBytes(used int) int64 { return int64(used) }

func (copying) close() error { return nil }

// cloned is an image on the Go heap.
type cloned []byte

func (cloned) drop() {}

// copied is a memory on the Go heap.
type copied struct {
	limit uint64
	b     []byte
}

// held implements space. It rounds up, so that a guest that grows page by page does not have its memory
// copied each time.
func (c *copied) held(size uint64) uint64 {
	have := uint64(cap(c.b))
	if size <= have {
		return have
	}
	return min(max(size, have/4*5), c.limit) / admission.PageBytes * admission.PageBytes
}

func (c *copied) grow(size uint64) ([]byte, error) {
	if size > c.limit {
		return nil, fmt.Errorf("a memory of %d bytes in a space of %d", size, c.limit)
	}
	if room := c.held(size); room > uint64(cap(c.b)) || c.b == nil {
		grown := make([]byte, size, room)
		copy(grown, c.b)
		c.b = grown
	}
	c.b = c.b[:size] // never written to before: memory does not shrink
	return c.b, nil
}

func (c *copied) show(m *image) ([]byte, error) {
	if c.b == nil {
		c.b = make([]byte, m.size)
	}
	if uint64(len(c.b)) != m.size {
		return nil, fmt.Errorf("a memory of %d bytes is not in the place of an image of %d", len(c.b), m.size)
	}
	n := copy(c.b, m.memory.(cloned))
	clear(c.b[n:])
	return c.b, nil
}

func (c *copied) release() { c.b = nil }
