package compile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// Facts are what the host needs to know of a module that it does not parse itself. They come from the process
// that verifies and rewrites the module: the compiler process, if there is one.
type Facts struct {
	Tariff      int               // version of the tariff that it is charged by
	Setup       bool              // see [metering.Metered]
	Why         string            // why instances cannot begin as copies of an image; empty if they can
	Globals     []metering.Global // the globals that are state
	Modules     []string          // modules that it imports functions from, without duplicates
	MemoryPages uint64            // memory at the start
	TableBytes  uint64            // maximum for the tables and segments of an instance
	AllGlobals  uint64            // number of all globals, including those that are no state
	Manifest    []byte            // content of the manifest section
	HasManifest bool
}

// A form is what is kept of a module beside its machine code. The compiler process returns it to the host:
//
//	bytes    formMagic
//	uvarint  tariff
//	byte     flags: 1 setup, 2 there is a manifest section
//	string   why
//	uvarint  pages of memory at the start
//	uvarint  bytes of tables and segments
//	uvarint  number of all globals
//	uvarint  number of globals that are state; for each a string, its export, and a byte, its type
//	uvarint  number of modules imported from; for each a string
//	string   content of the manifest section
//	bytes    to the end: the module that wazero loads; see skeleton
//
// A string is a uvarint, its length, and its bytes. Whoever changes the format changes formVersion.
const formMagic = "bulkhead form 2\n"

// formVersion is part of the name of everything that is kept of a module. Raise it when the same module would
// be verified differently, rewritten differently under the same tariff, or kept differently. Otherwise the
// results of an earlier version are used.
const formVersion = 3

// Bounds of a form.
const (
	maxWhy        = 1 << 10
	maxGlobalName = 64
	maxModules    = 64
	maxModuleName = 64
	maxTableBytes = 16 << 30
	// maxFactBytes is the maximum size of what comes before the module.
	maxFactBytes = abi.MaxManifestSize + 1<<20
)

const (
	flagSetup    = 1
	flagManifest = 2
)

// maxGrowth is the maximum size of the rewritten form of a module of size bytes.
func maxGrowth(size int64) int64 { return 3*size + 1<<20 }

// maxForm is the maximum size of the form of a module of size bytes.
func maxForm(size int64) int64 { return maxFactBytes + maxGrowth(size) }

func factsOf(m *wasmbin.Module, r *metering.Metered, o Order) *Facts {
	f := &Facts{Tariff: r.Tariff, Setup: r.Setup, Globals: r.Globals, Why: clip(r.Why, maxWhy)}
	f.TableBytes, f.AllGlobals = tablesOf(m, uint64(o.tableElements), !r.Imageable), uint64(len(m.Globals))
	seen := map[string]bool{}
	for _, x := range m.Imports {
		if !seen[x.Module] {
			seen[x.Module] = true
			f.Modules = append(f.Modules, x.Module)
		}
	}
	for _, mem := range m.Memories {
		f.MemoryPages = mem.Min
	}
	f.Manifest, f.HasManifest = m.Custom(abi.ManifestSection)
	return f
}

// Metered returns what instances need to know.
func (f *Facts) Metered() *metering.Metered {
	return &metering.Metered{Tariff: f.Tariff, Setup: f.Setup, Globals: f.Globals, Imageable: f.Why == "", Why: f.Why}
}

// referenceBytes is the size of an element of a table or of a segment.
const referenceBytes = 8

// tablesOf is the maximum size of the tables and segments of an instance. A table that grows is copied into
// one that is larger by a quarter than necessary.
func tablesOf(m *wasmbin.Module, maxElements uint64, tablesChange bool) (bytes uint64) {
	for _, t := range m.Tables {
		n := t.Size.Min
		if tablesChange {
			elements := maxElements
			if t.Size.HasMax {
				elements = min(elements, t.Size.Max)
			}
			n = max(n, elements) * 5 / 4
		}
		bytes += n * referenceBytes
	}
	for _, e := range m.Elements {
		bytes += uint64(e.Count) * referenceBytes
	}
	return bytes
}

// appendForm appends the form of a module, without what wazero loads.
func appendForm(b []byte, f *Facts) []byte {
	flags := byte(0)
	if f.Setup {
		flags |= flagSetup
	}
	if f.HasManifest {
		flags |= flagManifest
	}
	b = append(b, formMagic...)
	b = append(binary.AppendUvarint(b, uint64(f.Tariff)), flags)
	b = binary.AppendUvarint(appendText(b, f.Why), f.MemoryPages)
	b = binary.AppendUvarint(binary.AppendUvarint(b, f.TableBytes), f.AllGlobals)
	b = binary.AppendUvarint(b, uint64(len(f.Globals)))
	for _, g := range f.Globals {
		b = append(appendText(b, g.Export), byte(g.Type))
	}
	b = binary.AppendUvarint(b, uint64(len(f.Modules)))
	for _, m := range f.Modules {
		b = appendText(b, m)
	}
	return appendText(b, string(f.Manifest))
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// parseForm reads a form. It trusts nothing: the form comes from a disk, or from a process that has parsed an
// untrusted module. The returned module is a view of b.
func parseForm(b []byte) (_ *Facts, module []byte, err error) {
	r := formReader{b: b}
	if !strings.HasPrefix(string(b[:min(len(b), len(formMagic))]), formMagic) {
		return nil, nil, errors.New("not a form")
	}
	r.b = r.b[len(formMagic):]
	f := &Facts{Tariff: int(r.number("a tariff", 1<<16))}
	flags := r.byte("flags")
	if flags&^(flagSetup|flagManifest) != 0 {
		r.fail("unknown flags 0x%02x", flags)
	}
	f.Setup, f.HasManifest = flags&flagSetup != 0, flags&flagManifest != 0
	f.Why = r.text("a reason", maxWhy)
	f.MemoryPages = r.number("pages of memory", admission.MaxMemoryBytes/admission.PageBytes)
	f.TableBytes = r.number("bytes of tables", maxTableBytes)
	f.AllGlobals = r.number("globals", uint64(wasmbin.DefaultLimits().Globals))
	for n := r.number("globals", uint64(wasmbin.DefaultLimits().Globals)); n > 0 && r.err == nil; n-- {
		g := metering.Global{Export: r.text("a global's name", maxGlobalName),
			Type: wasmbin.ValType(r.byte("a global's type"))}
		if r.err == nil && (!strings.HasPrefix(g.Export, metering.ReservedPrefix) || g.Type < wasmbin.F64 ||
			g.Type > wasmbin.I32) {
			r.fail("a global that the rewriting has not exported")
		}
		f.Globals = append(f.Globals, g)
	}
	seen := map[string]bool{}
	for n := r.number("modules", maxModules); n > 0 && r.err == nil; n-- {
		m := r.text("a module's name", maxModuleName)
		if r.err == nil && (!admission.Offered(m) || seen[m]) {
			r.fail("imports from a module that this host does not offer, or twice from one")
		}
		seen[m] = true
		f.Modules = append(f.Modules, m)
	}
	if text := r.text("a manifest section", abi.MaxManifestSize); f.HasManifest {
		f.Manifest = []byte(text)
	} else if text != "" {
		r.fail("a manifest section that is not there")
	}
	if r.err != nil {
		return nil, nil, r.err
	}
	return f, r.b, nil
}

// formReader reads values from a form. After the first failure all values are zero.
type formReader struct {
	b   []byte
	err error
}

func (r *formReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.b = nil
}

func (r *formReader) byte(what string) byte {
	if len(r.b) == 0 {
		r.fail("ends before %s", what)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *formReader) number(what string, maximum uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > maximum {
		r.fail("%s: not a number, or above %d", what, maximum)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *formReader) text(what string, maxBytes int) string {
	n := r.number("the length of "+what, uint64(maxBytes))
	if uint64(len(r.b)) < n {
		r.fail("ends inside %s", what)
		return ""
	}
	v := string(r.b[:n])
	r.b = r.b[n:]
	return v
}

// A refusal is why the compiler process refuses a module:
//
//	bytes    refusalMagic
//	string   message
//	uvarint  number of reasons; of each a string
const refusalMagic = "bulkhead refusal 1\n"

// Bounds of a refusal. A verification returns admission.MaxReasons reasons, and one that says how many were
// left out.
const (
	maxReasonBytes  = 4 << 10
	maxRefusalBytes = (admission.MaxReasons + 3) * (maxReasonBytes + 8)
)

func appendRefusal(b []byte, message string, reasons []string) []byte {
	reasons = reasons[:min(len(reasons), admission.MaxReasons+1)]
	b = appendText(append(b, refusalMagic...), clip(message, maxReasonBytes))
	b = binary.AppendUvarint(b, uint64(len(reasons)))
	for _, r := range reasons {
		b = appendText(b, clip(r, maxReasonBytes))
	}
	return b
}

func parseRefusal(b []byte) (message string, reasons []string, err error) {
	r := formReader{b: b}
	if !strings.HasPrefix(string(b[:min(len(b), len(refusalMagic))]), refusalMagic) {
		return "", nil, errors.New("not a refusal")
	}
	r.b = r.b[len(refusalMagic):]
	message = r.text("a message", maxReasonBytes)
	for n := r.number("reasons", admission.MaxReasons+1); n > 0 && r.err == nil; n-- {
		reasons = append(reasons, strings.ToValidUTF8(r.text("a reason", maxReasonBytes), "\uFFFD"))
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes after the last reason", len(r.b))
	}
	return strings.ToValidUTF8(message, "\uFFFD"), reasons, r.err
}

// clip cuts a text to at most n bytes, but not within a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
