package compile

import (
	"bytes"
	"crypto/sha256"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// wholeSection is the custom section that marks a skeleton.
const wholeSection = "bulkhead.whole"

// maxNames is the maximum size of the function names that are kept, in bytes. If a module has more, stack
// traces have no names.
const maxNames = 4 << 20

// stub is a function body with its size. It fits any signature: it has no locals and consists of unreachable.
var stub = []byte{3, 0, byte(wasmbin.OpUnreachable), byte(wasmbin.OpEnd)}

// skeleton returns a module without what only its compiler needs. It declares what the module declares, but
// its functions do nothing. Of the custom sections only the names of functions are left, if they are not too
// many.
//
// Together with the machine code of the whole module this is all that is needed to run it. A skeleton is much
// smaller than its module, and loading it does not read the code again. As two modules may differ only in
// their code, a skeleton contains the hash of the whole module.
func skeleton(whole []byte) ([]byte, error) {
	m, err := wasmbin.Parse(whole, wasmbin.Limits{}) // its limits were checked before the rewriting
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
