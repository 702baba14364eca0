package sandbox

import (
	"bytes"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/tetratelabs/wazero/api"
)

// image is a guest as it is after it has initialised: its memory and the values of
// its mutable globals. All sandboxes of a program begin as copies of it. Where the
// system can, the copies share the image's pages until they write to them; nothing
// is copied at the start, and a reset gives the written pages back.
//
// That this is all of a guest's state is what [metering.Metered.Imageable] promises:
// its tables and segments do not change while it runs.
type image struct {
	size    uint64   // of the memory
	globals []uint64 // by metering.Metered.Globals
	bytes   []byte   // the memory up to its last byte that is not zero; nil if it is in a file

	mu     sync.Mutex // guards file
	file   imageFile  // the same bytes, for the system to map
	closed bool
}

// captureImage takes the image of an instance that has just been started.
func captureImage(memory []byte, module api.Module, globals []metering.Global, copying bool) (*image, error) {
	m := &image{size: uint64(len(memory))}
	for _, g := range globals {
		m.globals = append(m.globals, module.ExportedGlobal(g.Export).Get())
	}
	used := usedBytes(memory)
	if copying {
		m.bytes = bytes.Clone(memory[:used])
		return m, nil
	}
	// Whole pages: the rest of the last one is zero.
	const page = 4 << 10
	used = min((used+page-1)/page*page, len(memory))
	var err error
	m.file, err = newImageFile(memory[:used])
	return m, err
}

// usedBytes is the length of b without the zeros at its end.
func usedBytes(b []byte) int {
	var zeros [4 << 10]byte
	for len(b) >= len(zeros) && bytes.Equal(b[len(b)-len(zeros):], zeros[:]) {
		b = b[:len(b)-len(zeros)]
	}
	return len(bytes.TrimRight(b, "\x00"))
}

// restore sets the globals of a module as they are in the image.
func (m *image) restore(globals []api.MutableGlobal) {
	for k, g := range globals {
		g.Set(m.globals[k])
	}
}

// close gives the image back. Memories that show it keep what they have.
func (m *image) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		m.file.close()
	}
}
