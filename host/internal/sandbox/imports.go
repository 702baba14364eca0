package sandbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"unicode/utf16"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// hostFunc is one function that guests may import. It runs on the goroutine that runs the guest. It may end
// the guest by panicking with a *hostTrap, which wazero turns into an error of the call. Any other panic is a
// bug; it, too, ends only the call.
type hostFunc struct {
	run  func(i *Instance, mem api.Memory, s []uint64)
	free bool // costs the guest no fuel
}

// What the host's functions charge for their work on behalf of a guest: about what the guest could have
// executed in that time. These are part of the tariff in TARIFF.md of package metering, and of its version.
const (
	fuelHostCall   = 500    // each call of a host function
	fuelRandomByte = 4      // each byte drawn
	fuelLogByte    = 10     // each byte logged
	fuelLogLine    = 10_000 // each line logged
	fuelVector     = 50     // each vector that fd_write reads
	fuelPoll       = 50     // each subscription; poll_oneoff reads it twice
	bytesPerFuel   = 4      // anything else that is read
)

// The maximum work of a host function between two charges. It charges for each step before it works.
const (
	stepBytes = 64 << 10
	stepItems = 1000
)

// inSteps calls do for the items 0 to n-1, at most step at a time. Before each step it charges fuel for each
// item. It ends early if do does not succeed.
func (i *Instance) inSteps(n, step uint32, fuel int64, do func(from, to uint32) errno) errno {
	for from := uint32(0); from < n; {
		to := from + min(step, n-from)
		i.spend(int64(to-from) * fuel)
		if e := do(from, to); e != errnoSuccess {
			return e
		}
		from = to
	}
	return errnoSuccess
}

// hostTrap is the panic value with which a host function ends the guest.
type hostTrap struct {
	kind service.Kind
	text string
}

// Error implements error, so that the value survives wazero's wrapping.
func (t *hostTrap) Error() string { return t.text }

// offered are all functions that guests may import, by module and name. Package admission has their
// signatures. The map is built once and never written again.
var offered = map[string]map[string]*hostFunc{
	abi.ImportModule: {
		abi.ImportLog:   {run: importLog},
		abi.ImportFault: {run: importFault},
	},
	"env": {
		"abort": {run: importAbort},
	},
	admission.WASI: wasiFunctions(),
}

// importLog is bulkhead_v1.log(level, ptr, len).
func importLog(i *Instance, mem api.Memory, s []uint64) {
	text, ok := mem.Read(uint32(s[1]), uint32(s[2]))
	if !ok {
		panic(&hostTrap{service.KindTrap, fmt.Sprintf("log of bytes [%d:+%d], outside of memory", uint32(s[1]),
			uint32(s[2]))})
	}
	i.logLine(abi.LogLevel(uint32(s[0])), text)
}

// logLine charges for a line and logs it. It reads no more of the line than the budget allows, so a huge line
// costs nothing.
func (i *Instance) logLine(level abi.LogLevel, text []byte) {
	text = text[:min(len(text), i.log.room())]
	i.spend(i.log.cost(len(text), 1))
	i.log.line(level, text)
}

// importFault is bulkhead_v1.fault(ptr, len). The last message wins.
func importFault(i *Instance, mem api.Memory, s []uint64) {
	text, ok := mem.Read(uint32(s[0]), uint32(s[1]))
	if !ok {
		panic(&hostTrap{service.KindTrap, fmt.Sprintf("fault message at bytes [%d:+%d], outside of memory",
			uint32(s[0]), uint32(s[1]))})
	}
	text = text[:min(len(text), abi.MaxMessageSize)]
	i.spend(int64(len(text)) / bytesPerFuel)
	i.words = append(i.words[:0], text...)
}

// importAbort is env.abort(message, file, line, column) of AssemblyScript.
func importAbort(i *Instance, mem api.Memory, s []uint64) {
	message, file := i.scriptString(mem, uint32(s[0])), i.scriptString(mem, uint32(s[1]))
	if message == "" {
		message = "abort"
	}
	if file != "" {
		message = fmt.Sprintf("%s (%s:%d:%d)", message, file, uint32(s[2]), uint32(s[3]))
	}
	panic(&hostTrap{service.KindTrap, message})
}

// scriptString reads a string of AssemblyScript: UTF-16 at ptr, with its length in bytes in the four bytes
// before. Invalid input gives an empty string, as the text is only part of a message.
func (i *Instance) scriptString(mem api.Memory, ptr uint32) string {
	if ptr < 4 {
		return ""
	}
	size, ok := mem.ReadUint32Le(ptr - 4)
	if !ok {
		return ""
	}
	b, ok := mem.Read(ptr, min(size, abi.MaxMessageSize)&^1)
	if !ok {
		return ""
	}
	i.spend(int64(len(b)) / bytesPerFuel)
	units := make([]uint16, len(b)/2)
	for k := range units {
		units[k] = binary.LittleEndian.Uint16(b[2*k:])
	}
	return clean([]byte(string(utf16.Decode(units))))
}

// provide instantiates the host modules that a guest imports from.
func provide(ctx context.Context, r wazero.Runtime, modules []string) error {
	for _, m := range modules {
		if err := provideModule(ctx, r, m, offered[m]); err != nil {
			return err
		}
	}
	return provideModule(ctx, r, metering.ImportModule, metered)
}

// metered are the imports that the rewriting adds. They are not offered: a module that imports them itself is
// refused.
var metered = map[string]*hostFunc{
	metering.ImportRefuel:   {free: true, run: func(i *Instance, _ api.Memory, _ []uint64) { i.refuel() }},
	metering.ImportOverflow: {free: true, run: func(i *Instance, _ api.Memory, _ []uint64) { i.overflow() }},
}

func provideModule(ctx context.Context, r wazero.Runtime, module string, functions map[string]*hostFunc) error {
	b := r.NewHostModuleBuilder(module)
	for name, f := range functions {
		t, _ := admission.Signature(module, name) // functions of the rewriting have no parameters and no results
		b.NewFunctionBuilder().WithGoModuleFunction(goFunction(f), valueTypes(t.Params),
			valueTypes(t.Results)).WithName(name).Export(name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

func goFunction(f *hostFunc) api.GoModuleFunc {
	return func(ctx context.Context, m api.Module, stack []uint64) {
		i, ok := ctx.Value(instanceKey{}).(*Instance)
		if !ok {
			panic("a host function was called outside of an instance")
		}
		if !f.free {
			i.spend(fuelHostCall)
		}
		f.run(i, m.Memory(), stack)
	}
}

func valueTypes(v []wasmbin.ValType) []api.ValueType {
	out := make([]api.ValueType, len(v))
	for i, t := range v {
		out[i] = api.ValueType(t)
	}
	return out
}
