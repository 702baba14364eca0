package pages

import (
	"bytes"
	"fmt"
)

// Copying is the backing for systems that cannot map images. Memories are slices on the Go heap, which are
// copied when they grow; images are copied into them. The guest sees no difference.
type Copying struct{}

// Reserve implements Backing.
func (Copying) Reserve(limit uint64) (Space, error) { return &copied{limit: limit}, nil }

// Keep implements Backing.
func (Copying) Keep(memory []byte) (Stored, error) { return cloned(bytes.Clone(memory)), nil }

// ImageBytes implements Backing.
func (Copying) ImageBytes(used int) int64 { return int64(used) }

// Close implements Backing.
func (Copying) Close() error { return nil }

// cloned is an image on the Go heap.
type cloned []byte

// Drop implements Stored.
func (cloned) Drop() {}

// copied is a memory on the Go heap.
type copied struct {
	limit uint64
	b     []byte
}

// Held implements Space. It rounds up, so that a guest that grows page by page does not have its memory
// copied each time.
func (c *copied) Held(size uint64) uint64 {
	have := uint64(cap(c.b))
	if size <= have {
		return have
	}
	return min(max(size, have/4*5), c.limit) / guestPage * guestPage
}

// Grow implements Space.
func (c *copied) Grow(size uint64) ([]byte, error) {
	if size > c.limit {
		return nil, fmt.Errorf("a memory of %d bytes in a space of %d", size, c.limit)
	}
	if room := c.Held(size); room > uint64(cap(c.b)) || c.b == nil {
		grown := make([]byte, size, room)
		copy(grown, c.b)
		c.b = grown
	}
	c.b = c.b[:size] // never written to before: memory does not shrink
	return c.b, nil
}

// Show implements Space.
func (c *copied) Show(image Stored, size uint64) ([]byte, error) {
	if c.b == nil {
		c.b = make([]byte, size)
	}
	if uint64(len(c.b)) != size {
		return nil, fmt.Errorf("a memory of %d bytes is not in the place of an image of %d", len(c.b), size)
	}
	n := copy(c.b, image.(cloned))
	clear(c.b[n:])
	return c.b, nil
}

// Release implements Space.
func (c *copied) Release() { c.b = nil }
