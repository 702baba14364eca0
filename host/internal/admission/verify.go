package admission

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// MaxReasons is the maximum number of violations that one refusal lists, beside one that says how many were
// left out.
const MaxReasons = 64

// PageBytes is the unit of linear memory.
const PageBytes = 64 << 10

// MaxMemoryBytes is the largest memory whose addresses and size fit in 32 bits.
const MaxMemoryBytes = 4<<30 - PageBytes

// exports are the functions that a guest must export, with their signatures.
var exports = []struct {
	name     string
	optional bool
	sig      wasmbin.FuncType
	purpose  string
}{
	{abi.ExportReserve, false, wasmbin.FuncType{Params: sig(i32), Results: sig(i32)}, "hands out the mailbox"},
	{abi.ExportCall, false, wasmbin.FuncType{Params: sig(i32), Results: sig(i64)}, "runs the requests in it"},
	{abi.ExportInitialize, true, wasmbin.FuncType{}, "initialises the module"},
}

// Violations collects the rules that a module breaks. The zero value is empty.
type Violations struct {
	reasons []string
	more    int
}

// Add adds a violation. The uploader of the module sees the text.
func (v *Violations) Add(format string, args ...any) {
	if len(v.reasons) == MaxReasons {
		v.more++
		return
	}
	v.reasons = append(v.reasons, fmt.Sprintf(format, args...))
}

// Err is the refusal, of service.KindBadModule, with all violations; nil if there are none.
func (v *Violations) Err() error {
	if len(v.reasons) == 0 {
		return nil
	}
	if v.more > 0 {
		v.reasons = append(v.reasons, fmt.Sprintf("and %d more", v.more))
	}
	return &service.Error{Kind: service.KindBadModule, Message: "the module breaks rules of the ABI",
		Reasons: v.reasons}
}

// Verify checks everything about a module that can be known without running it. The error lists all
// violations; if the file is not a well-formed module, it has one, with its place.
func Verify(module []byte, l service.Limits) (*wasmbin.Module, error) {
	var v Violations
	if v.Size(len(module), l); v.Err() != nil {
		return nil, v.Err()
	}
	limits := binaryLimits(l)
	m, err := wasmbin.Parse(module, limits)
	if err != nil {
		v.Add("%v", err)
		return nil, v.Err()
	}
	v.rules(m, l)
	if err := m.CheckCode(limits); err != nil {
		v.Add("%v", err)
	}
	return m, v.Err()
}

// binaryLimits bound what a service's modules may declare.
func binaryLimits(l service.Limits) wasmbin.Limits {
	limits := wasmbin.DefaultLimits()
	limits.TableElements = uint64(l.TableElements)
	return limits
}

// rules checks everything that a module declares, but not its code.
func (v *Violations) rules(m *wasmbin.Module, l service.Limits) {
	v.imports(m)
	v.memory(m, l)
	v.tables(m)
	v.exports(m)
	if section, ok := m.Custom(abi.ManifestSection); ok && len(section) > abi.MaxManifestSize {
		v.Add("custom section %q has %d bytes; a manifest may have %d", abi.ManifestSection, len(section),
			abi.MaxManifestSize)
	}
}

func (v *Violations) imports(m *wasmbin.Module) {
	unknown := false
	for _, x := range m.Imports {
		name := shortName(x.Module) + "." + shortName(x.Name)
		switch x.Kind {
		case wasmbin.ExternFunc:
		case wasmbin.ExternMemory:
			v.Add("import %s is a memory; a guest owns its memory: define it in the module and export it as %q (for "+
				"LLVM linkers leave --import-memory out)", name, abi.ExportMemory)
			continue
		default:
			v.Add("import %s is a %s; only functions can be imported", name, x.Kind)
			continue
		}
		want, ok := Signature(x.Module, x.Name)
		if !ok {
			v.Add("import %s is unknown", name)
			unknown = true
			continue
		}
		if t := m.Types[x.Type]; !t.Equal(want) {
			v.Add("import %s has the signature %s; expected is %s", name, t, want)
		}
	}
	if unknown {
		v.Add("allowed imports are: %s", allowedImports())
	}
}

// allowedImports lists what a guest may import.
func allowedImports() string {
	var parts []string
	for module, functions := range signatures {
		if module == WASI {
			parts = append(parts, module+".*")
			continue
		}
		for name := range functions {
			parts = append(parts, module+"."+name)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func (v *Violations) memory(m *wasmbin.Module, l service.Limits) {
	if n := len(m.Memories); n > 1 {
		v.Add("the module has %d memories; a guest has one", n)
	}
	for _, mem := range m.Memories {
		if mem.Shared {
			v.Add("the memory is shared (threads); build the guest without threads")
		}
		if mem.Is64 {
			v.Add("the memory is 64-bit (memory64); build the guest for wasm32")
		}
		v.MemoryPages(mem.Min, l)
		if mem.HasMax && mem.Max > 65536 {
			v.Add("the memory's maximum is %d pages; a 32-bit memory has at most 65536", mem.Max)
		}
	}
	switch e, ok := m.Export(abi.ExportMemory); {
	case !ok && len(m.Memories) == 0 && m.Imported(wasmbin.ExternMemory) == 0:
		v.Add("the module has no memory; expected is one, exported as %q", abi.ExportMemory)
	case !ok:
		v.Add("export %q is missing; expected is the module's memory", abi.ExportMemory)
	case e.Kind != wasmbin.ExternMemory:
		v.Add("export %q is a %s; expected is the module's memory", abi.ExportMemory, e.Kind)
	}
}

// MemoryPages checks the initial size of a module's memory against a service's limit.
func (v *Violations) MemoryPages(pages uint64, l service.Limits) {
	if limit := uint64(MemoryLimit(l)); pages > limit/PageBytes {
		v.Add("the memory starts with %d pages (%d bytes); this service's limit is %d bytes", pages, pages*PageBytes,
			limit)
	}
}

// Size checks the size of a module, in bytes, against a service's limit.
func (v *Violations) Size(size int, l service.Limits) {
	if int64(size) > l.ModuleBytes {
		v.Add("the module has %d bytes; this service's limit is %d", size, l.ModuleBytes)
	}
}

// MemoryLimit is the maximum size of a guest's memory by the service's limits, in bytes of whole pages.
func MemoryLimit(l service.Limits) int64 {
	return min(l.MemoryBytes, MaxMemoryBytes) / PageBytes * PageBytes
}

func (v *Violations) tables(m *wasmbin.Module) {
	for i, t := range m.Tables {
		if t.Size.Shared || t.Size.Is64 {
			v.Add("table %d is shared or 64-bit; build the guest for wasm32 without threads", i)
		}
	}
}

func (v *Violations) exports(m *wasmbin.Module) {
	known := map[string]bool{}
	missing := false
	for _, want := range exports {
		known[want.name] = true
		e, ok := m.Export(want.name)
		if !ok {
			if !want.optional {
				v.Add("export %q is missing; expected is a function %s that %s", want.name, want.sig, want.purpose)
				missing = true
			}
			continue
		}
		if e.Kind != wasmbin.ExternFunc {
			v.Add("export %q is a %s; expected is a function %s", want.name, e.Kind, want.sig)
			continue
		}
		if t, ok := m.FuncTypeOf(e.Index); !ok || !t.Equal(want.sig) {
			v.Add("export %q has the signature %s; expected is %s", want.name, t, want.sig)
		}
	}
	if _, command := m.Export("_start"); command && missing {
		v.Add(`the module is a program with a main of its own ("_start"); build it as a reactor (for Go -buildmode=c-shared, for clang -mexec-model=reactor)`)
	}
	for _, e := range m.Exports {
		if reserved(e.Name) && !known[e.Name] {
			v.Add("export %s is reserved: names that start with %q belong to the host", shortName(e.Name),
				abi.ReservedPrefix)
		}
	}
}

// reserved reports whether a name belongs to the ABI or to the host's rewriting, so that guests must not
// define it. Exports of other major versions are allowed, so that a module can serve hosts of several
// versions.
func reserved(name string) bool {
	rest, ok := strings.CutPrefix(name, abi.ReservedPrefix)
	if !ok {
		return strings.HasPrefix(name, "bulkhead.")
	}
	version, _, ok := strings.Cut(rest, "_")
	number, err := strconv.ParseUint(strings.TrimPrefix(version, "v"), 10, 16)
	return !ok || err != nil || version != "v"+strconv.FormatUint(number, 10) || number == abi.Version
}

// shortName formats an untrusted name for a message.
func shortName(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("%.64q…", s)
	}
	if plain := strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) < 0; plain &&
		s != "" {
		return s
	}
	return fmt.Sprintf("%q", s)
}
