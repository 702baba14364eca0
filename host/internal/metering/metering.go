package metering

import (
	"fmt"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// Names of what is added to a module.
const (
	// ReservedPrefix begins all of these names. A module that uses the prefix is refused.
	ReservedPrefix = "bulkhead_meter"
	// ImportModule is the module of the two imports.
	ImportModule = "bulkhead_meter_v1"
	// ImportRefuel is called when the fuel global is negative, () -> (). The host adds slices to the
	// global until it is not negative, or ends the call by a panic. A charge by size can be more
	// than one slice.
	ImportRefuel = "refuel"
	// ImportOverflow is called when the stack global is negative, () -> (). It never returns.
	ImportOverflow = "stack"
	// ExportFuel is a mutable i64 global: the fuel that is left. The guest runs on while it is not
	// negative. Values up to 2^62 are safe.
	ExportFuel = "bulkhead_meter_v1.fuel"
	// ExportStack is a mutable i64 global: the bytes of stack that are left. The host sets it before
	// each call, as a call that ends early does not restore it.
	ExportStack = "bulkhead_meter_v1.stack"
	// ExportSetup is a function () -> (), only present if [Metered.Setup] is set. It applies the
	// active data segments and runs the start function.
	ExportSetup = "bulkhead_meter_v1.setup"
	// exportGlobal is followed by the index of an exported global.
	exportGlobal = "bulkhead_meter_v1.global."
)

// TableMax bounds a table that the module defines, in elements of 8 bytes of the host's memory. The
// runtime has no limit of its own.
const TableMax = 100_000 // unless Options says otherwise

// Options say how to rewrite. The zero value is the default.
type Options struct {
	// KeepNaN leaves the bits of a NaN as the machine makes them. Without it, the results of float
	// arithmetic, conversions and rounding are canonical NaNs, so that all machines agree on every
	// bit.
	KeepNaN bool
	// TableMax bounds each table, in elements. 0 means the constant of that name.
	TableMax uint64
	// MaxBytes bounds the rewritten module, in bytes. A module that becomes larger is refused with an
	// [Error] while it is written. 0 means no bound.
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
	// Tariff is the version of the tariff that it is charged by.
	Tariff int
	// Setup says that ExportSetup is present. It must be called once, before everything else, on an
	// instance that is not restored from an image. Fuel and stack must be set before.
	Setup bool
	// Globals are the module's own mutable numeric globals, under their new names.
	Globals []Global
	// Imageable says that memory and Globals are the complete state of an instance.
	Imageable bool
	// Why says what other state there is if Imageable is false.
	Why string
}

// Global is a mutable global of the module that the host can read and set.
type Global struct {
	Export string
	Type   wasmbin.ValType
}

// Error lists the reasons why a module cannot be metered.
type Error struct{ Reasons []string }

// Error implements error.
func (e *Error) Error() string { return strings.Join(e.Reasons, "; ") }

// Check returns the reasons, other than in the code, for which [Rewrite] would refuse a module:
// reserved names and features that are not supported.
func Check(m *wasmbin.Module, o Options) []string {
	var reasons []string
	bad := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	for _, x := range m.Imports {
		if strings.HasPrefix(x.Module, ReservedPrefix) {
			bad("import %.64q.%.64q is reserved: names that start with %q belong to the host", x.Module, x.Name,
				ReservedPrefix)
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

// Rewrite returns the metered module. It refuses a module that it cannot meter with an [Error] or a
// [wasmbin.Error]. It does not check what the engine checks when it compiles the result: a valid
// module gives a valid module, and an invalid one does not become valid. m is not changed, and is
// not used after Rewrite has returned.
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
