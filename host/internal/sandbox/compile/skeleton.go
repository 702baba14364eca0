package compile

import (
	"bytes"
	"crypto/sha256"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// wholeSection is the custom section of a skeleton that tells it from those of other modules.
const wholeSection = "bulkhead.whole"

// maxNames bounds the names of functions that are kept, in bytes. Those of a module
// that has more are left out of its traps' stacks.
const maxNames = 4 << 20

// stub is a function's body, with its size in front, of any signature: it declares no
// locals and consists of unreachable.
var stub = []byte{3, 0, byte(wasmbin.OpUnreachable), byte(wasmbin.OpEnd)}

// skeleton is a module without what only its compiler needs to know: it declares what
// the module declares, but its functions do nothing, and what is left of its custom
// sections is the names of its functions, if they are not too many.
//
// With the machine code of the whole module this is all that is needed to run it. It is
// a fraction of its size, and loading it does not walk its code again. As two modules
// may differ in nothing but their code, a skeleton holds the hash of the whole.
func skeleton(whole []byte) ([]byte, error) {
	m, err := wasmbin.Parse(whole, wasmbin.Limits{}) // its limits were checked before it was rewritten
	if err != nil {
		return nil, err
	}
	size := 128 + len(whole) + len(stub)*len(m.Bodies)
	for _, b := range m.Bodies {
		size -= b.Entry.Len()
	}
	w := wasmbin.NewWriter(size)
	for _, s := range m.Sections {
		switch {
		case s.ID == wasmbin.SectionCode:
			count := wasmbin.AppendU32(nil, uint32(len(m.Bodies)))
			w.Section(s.ID, append(count, bytes.Repeat(stub, len(m.Bodies))...))
		case s.ID != wasmbin.SectionCustom, s.Name == wasmbin.NameSection && s.Entry.Len() <= maxNames:
			w.Raw(m.Slice(s.Entry))
		}
	}
	sum := sha256.Sum256(whole)
	w.Custom(wholeSection, sum[:])
	return w.Bytes(), nil
}
