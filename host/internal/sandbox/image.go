package sandbox

import (
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/pages"
	"github.com/tetratelabs/wazero/api"
)

// image is a guest right after its initialisation: its memory and the values of its mutable globals. All
// sandboxes of a program begin as copies of it. Where the system allows, copies share the image's pages until
// they write to them. Then a start copies nothing, and a reset discards only the pages that were written to.
//
// [metering.Metered.Imageable] guarantees that this is the guest's whole state: its tables and segments do
// not change while it runs.
type image struct {
	size    uint64       // of the memory, in bytes
	globals []uint64     // by metering.Metered.Globals
	memory  pages.Stored // without the zeros at its end
	hold    *holding
	bytes   int64 // taken from the budget for it

	mu     sync.Mutex // guards all below
	shown  int        // number of memories that use it
	closed bool
}

// captureImage takes the image of an instance that has just started.
func captureImage(
	from pages.Backing, memory []byte, module api.Module, globals []metering.Global, hold *holding,
) (*image, error) {
	used := memory[:pages.Used(memory)]
	m := &image{size: uint64(len(memory)), hold: hold, bytes: from.ImageBytes(len(used))}
	for _, g := range globals {
		m.globals = append(m.globals, module.ExportedGlobal(g.Export).Get())
	}
	if err := hold.takeStart(m.bytes); err != nil {
		return nil, err
	}
	var err error
	if m.memory, err = from.Keep(used); err != nil {
		hold.give(m.bytes)
		return nil, noMemory(err)
	}
	return m, nil
}

// restore sets the globals of a module to their values in the image.
func (m *image) restore(globals []api.MutableGlobal) {
	for k, g := range globals {
		g.Set(m.globals[k])
	}
}

// enter keeps the image for a memory that uses it; false if the image is closed.
func (m *image) enter() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.shown++
	}
	return !m.closed
}

// leave undoes enter.
func (m *image) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shown--
	m.dropUnused()
}

func (m *image) gone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// close frees the image once no memory uses it. It is idempotent.
func (m *image) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.dropUnused()
}

func (m *image) dropUnused() {
	if m.closed && m.shown == 0 && m.memory != nil {
		m.memory.Drop()
		m.memory = nil
		m.hold.give(m.bytes)
	}
}
