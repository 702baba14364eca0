package meteringtest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// Features are the features that the rewriter supports.
const Features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst

// Engine is one of wazero's two engines.
type Engine string

// The engines.
const (
	Compiler    Engine = "compiler"
	Interpreter Engine = "interpreter"
)

// Engines are both engines.
var Engines = []Engine{Compiler, Interpreter}

// Causes of the error of a metered call that was ended.
var (
	ErrFuel  = errors.New("out of fuel")
	ErrStack = errors.New("stack exhausted")
)

// Meter grants fuel as a host does. The zero Meter grants none.
type Meter struct {
	Slice   int64 // fuel that is granted at once
	Limit   int64 // fuel that may be granted in total
	Stack   int64 // bytes of stack
	Granted int64 // fuel granted so far
	Refuels int   // calls of the import
	Deepest func(api.Module)

	fuel api.MutableGlobal
}

type meterKey struct{}

// Into returns a context in which the imports find the meter.
func (m *Meter) Into(ctx context.Context) context.Context {
	return context.WithValue(ctx, meterKey{}, m)
}

// Begin sets the globals before a call.
func (m *Meter) Begin(module api.Module) {
	m.Granted = min(m.Slice, m.Limit)
	m.Refuels = 0
	m.fuel = global(module, metering.ExportFuel)
	m.fuel.Set(uint64(m.Granted))
	global(module, metering.ExportStack).Set(uint64(m.Stack))
}

// Charged returns the fuel that was charged since Begin.
func (m *Meter) Charged(module api.Module) int64 {
	return m.Granted - int64(global(module, metering.ExportFuel).Get())
}

func global(module api.Module, name string) api.MutableGlobal {
	g, ok := module.ExportedGlobal(name).(api.MutableGlobal)
	if !ok {
		panic(fmt.Sprintf("global %q is not there", name))
	}
	return g
}

// NewRuntime starts a runtime with the meter's imports.
func NewRuntime(ctx context.Context, e Engine) (wazero.Runtime, error) {
	config := wazero.NewRuntimeConfigCompiler()
	if e == Interpreter {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	r := wazero.NewRuntimeWithConfig(ctx, config.WithCoreFeatures(Features))
	_, err := r.NewHostModuleBuilder(metering.ImportModule).
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(refuel), nil, nil).Export(metering.ImportRefuel).
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(overflow), nil, nil).Export(metering.ImportOverflow).
		Instantiate(ctx)
	return r, err
}

func refuel(ctx context.Context, _ api.Module, _ []uint64) {
	m := ctx.Value(meterKey{}).(*Meter)
	fuel := m.fuel
	m.Refuels++
	for int64(fuel.Get()) < 0 {
		more := min(m.Slice, m.Limit-m.Granted)
		if more <= 0 {
			panic(ErrFuel)
		}
		m.Granted += more
		fuel.Set(fuel.Get() + uint64(more))
	}
}

func overflow(ctx context.Context, module api.Module, _ []uint64) {
	if m := ctx.Value(meterKey{}).(*Meter); m.Deepest != nil {
		m.Deepest(module)
	}
	panic(ErrStack)
}

// Rewrite parses and rewrites a module without any limits.
func Rewrite(module []byte, o metering.Options) (*metering.Metered, error) {
	m, err := wasmbin.Parse(module, wasmbin.Limits{})
	if err != nil {
		return nil, err
	}
	if err := m.CheckCode(wasmbin.Limits{}); err != nil {
		return nil, err
	}
	return metering.Rewrite(m, o)
}

// Trap returns the kind of a call's failure, without what differs between engines and between a
// module and its rewritten form: traces and indexes.
func Trap(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrFuel):
		return ErrFuel.Error()
	case errors.Is(err, ErrStack):
		return ErrStack.Error()
	}
	s, _, _ := strings.Cut(err.Error(), "\n")
	s = strings.TrimSuffix(s, " (recovered by wazero)")
	return strings.TrimPrefix(s, "wasm error: ")
}
