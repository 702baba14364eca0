// Package pages has the memory of guests: the address space in which a linear memory lies, and images with which many
// begin. Where the system can, memories share the pages of an image until they write to them; see [Arena]. Elsewhere
// they are copies; see [Copying].
package pages

import "bytes"

// Backing provides images and memories. It is safe for concurrent use.
type Backing interface {
	// Reserve makes a space for a memory of at most limit bytes.
	Reserve(limit uint64) (Space, error)
	// Keep stores the memory of an image, given without the zeros at its end.
	Keep(memory []byte) (Stored, error)
	// ImageBytes is how many bytes Keep takes for an image of used bytes.
	ImageBytes(used int) int64
	// Close frees all images. Spaces stay until they are released.
	Close() error
}

// Space is the address space of one memory. One goroutine uses it at a time.
type Space interface {
	// Held is how many bytes a memory takes that has grown to size bytes.
	Held(size uint64) uint64
	// Grow makes the first size bytes usable and returns them; new bytes are zero.
	Grow(size uint64) ([]byte, error)
	// Show makes the memory equal to an image of the same backing, whatever its content was. size is that of the
	// image with the zeros at its end.
	Show(image Stored, size uint64) ([]byte, error)
	// Release frees the space. The memory must no longer be accessed.
	Release()
}

// Stored is the memory of an image, in a backing.
type Stored interface {
	// Drop frees it. No memory shows it any longer.
	Drop()
}

var (
	_ Backing = (*Arena)(nil)
	_ Backing = Copying{}
)

// guestPage is the size of a page of WebAssembly, in bytes.
const guestPage = 64 << 10

// Used is the length of b without the zeros at its end.
func Used(b []byte) int {
	var zeros [4 << 10]byte
	for len(b) >= len(zeros) && bytes.Equal(b[len(b)-len(zeros):], zeros[:]) {
		b = b[:len(b)-len(zeros)]
	}
	return len(bytes.TrimRight(b, "\x00"))
}
