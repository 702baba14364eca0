package metering

import (
	"fmt"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// The names of what is added to a module.
const (
	// ReservedPrefix starts all of them. A module that uses it is refused.
	ReservedPrefix = "bulkhead_meter"
	// ImportModule is the module of the two imports.
	ImportModule = "bulkhead_meter_v1"
	// ImportRefuel is called with the fuel global below zero, () -> (). The host adds
	// slices to the global until it is not, or ends the call by panicking. A charge
	// by size can be more than one slice.
	ImportRefuel = "refuel"
	// ImportOverflow is called with the stack global below zero, () -> (). It never
	// returns.
	ImportOverflow = "stack"
	// ExportFuel is a mutable i64 global: the fuel left. The guest runs on while it is
	// not negative. Values up to 2^62 are safe.
	ExportFuel = "bulkhead_meter_v1.fuel"
	// ExportStack is a mutable i64 global: the bytes of stack left. The host sets it
	// before each call from outside, as a call that ends early leaves it where it was.
	ExportStack = "bulkhead_meter_v1.stack"
	// ExportSetup is a function () -> (), there only if [Metered.Setup] says so: it
	// applies the active data segments and runs the start function.
	ExportSetup = "bulkhead_meter_v1.setup"
	// exportGlobal comes before the index of a captured global.
	exportGlobal = "bulkhead_meter_v1.global."
)

// TableMax bounds a table of the module's own, in elements of 8 bytes of the
// host's memory. The runtime has no limit of its own.
const TableMax = 100_000 // unless Options says otherwise

// Options say how to rewrite. The zero value is the default.
type Options struct {
	// KeepNaN leaves the bits of a NaN as the machine makes them. Without it the
	// results of float arithmetic, conversions and roundings are canonical NaNs, so
	// that all machines agree to the bit.
	KeepNaN bool
	// TableMax bounds each table, in elements. 0 is the constant of that name.
	TableMax uint64
	// MaxBytes bounds the rewritten module, in bytes; what would be larger is refused
	// while it is written, with an [Error]. 0 is no bound.
	MaxBytes int64
}

func (o Options) tableMax() uint64 {
	if o.TableMax == 0 {
		return TableMax
	}
	return o.TableMax
}

// Metered is a rewritten module.
type Metered struct {
	Binary []byte
	// Tariff is the version of the tariff it is charged by.
	Tariff int
	// Setup says that ExportSetup is there, and has to be called once, before all
	// else, on an instance that does not start from an image. Fuel and stack have to
	// be set before.
	Setup bool
	// Globals are the module's own mutable numeric globals under their new names.
	Globals []Global
	// Imageable says that memory and Globals are the whole state of an instance.
	Imageable bool
	// Why says what other state there is, if not Imageable.
	Why string
}

// Global is a mutable global of the module's own that the host can read and set.
type Global struct {
	Export string
	Type   wasmbin.ValType
}

// Error lists what makes a module one that cannot be metered.
type Error struct{ Reasons []string }

// Error implements error.
func (e *Error) Error() string { return strings.Join(e.Reasons, "; ") }

// Check lists everything outside of the code that [Rewrite] refuses about a
// module: names that are reserved, and features that are not metered.
func Check(m *wasmbin.Module, o Options) []string {
	var reasons []string
	bad := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	for _, x := range m.Imports {
		if strings.HasPrefix(x.Module, ReservedPrefix) {
			bad("import %.64q.%.64q is reserved: names that start with %q belong to the host", x.Module, x.Name, ReservedPrefix)
		}
		if x.Kind > wasmbin.ExternGlobal {
			bad("import %.64q.%.64q is a %s; exceptions are not supported", x.Module, x.Name, x.Kind)
		}
	}
	for _, e := range m.Exports {
		if strings.HasPrefix(e.Name, ReservedPrefix) {
			bad("export %.64q is reserved: names that start with %q belong to the host", e.Name, ReservedPrefix)
		}
	}
	if n := len(m.Memories) + m.Imported(wasmbin.ExternMemory); n > 1 {
		bad("the module has %d memories; several memories are not supported", n)
	}
	for _, mem := range m.Memories {
		if mem.Shared {
			bad("the memory is shared; threads are not supported")
		}
		if mem.Is64 {
			bad("the memory is 64-bit; memory64 is not supported")
		}
	}
	for i, t := range m.Tables {
		if t.Size.Shared || t.Size.Is64 {
			bad("table %d is shared or 64-bit; neither is supported", i)
		}
		if t.Size.Min > o.tableMax() {
			bad("table %d starts with %d elements; a table may have %d", i, t.Size.Min, o.tableMax())
		}
	}
	return reasons
}

// Rewrite makes the metered module. It refuses, with an [Error] or a
// [wasmbin.Error], what it does not know how to meter; it does not validate what
// the engine that compiles the result validates anyway. A valid module gives a
// valid one, and one that is not valid does not become valid. m is not changed
// and may be let go of afterwards.
func Rewrite(m *wasmbin.Module, o Options) (*Metered, error) {
	if reasons := Check(m, o); len(reasons) > 0 {
		return nil, &Error{Reasons: reasons}
	}
	r := newRewriter(m, o)
	if err := r.sections(); err != nil {
		return nil, err
	}
	return &Metered{
		Binary: r.out.Bytes(), Tariff: TariffVersion, Setup: r.setup, Globals: r.captured,
		Imageable: r.why == "", Why: r.why,
	}, nil
}
