package kernels

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering/meteringtest"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// Kernel is an export (n i32) -> i64 that does its work n times.
type Kernel struct {
	Language string
	Name     string
	Floats   bool // it has floats, which canonical NaNs make slower
}

// All are the kernels. Those that are most like the work of services come first.
var All = []Kernel{
	{"go", "json", false}, {"go", "hash", false}, {"go", "sort", false}, {"go", "matrix", true},
	{"go", "strings", false},
	{"go", "loop", false}, {"go", "recursion", false}, {"go", "memcpy", false}, {"go", "maps", false},
	{"go", "sieve", false},
	{"c", "crc", false}, {"c", "sort", false}, {"c", "matrix", true}, {"c", "scan", false},
	{"c", "loop", false}, {"c", "recursion", false}, {"c", "memcpy", false}, {"c", "sieve", false},
}

//go:embed testdata/ckernels/kernels.wasm
var ckernels []byte

// Module returns the module with all kernels of a language.
func Module(language string) ([]byte, error) {
	if language == "c" {
		return ckernels, nil
	}
	return goKernels()
}

// goKernels builds the Go module once. It needs only Go.
var goKernels = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "gokernels")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "kernels.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "./testdata/gokernels")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(file)
})

// Variant is a way of running a module.
type Variant string

// The variants.
const (
	Plain       Variant = "plain"       // unchanged
	Metered     Variant = "metered"     // rewritten, NaNs unchanged
	Canonical   Variant = "canonical"   // rewritten, with canonical NaNs
	ContextDone Variant = "contextdone" // unchanged; wazero checks for the end of a context
)

// Variants are all variants.
var Variants = []Variant{Plain, Metered, Canonical, ContextDone}

// slice is the fuel that is granted at once, the maximum that a host grants.
const slice = 65_536

// Instance is a running module in one of its variants.
type Instance struct {
	runtime wazero.Runtime
	module  api.Module
	meter   *meteringtest.Meter // nil if it is not metered
	ctx     context.Context
	cancel  context.CancelFunc
	stack   [1]uint64
}

// Start runs a module.
func Start(ctx context.Context, module []byte, v Variant) (_ *Instance, err error) {
	i := &Instance{}
	i.ctx, i.cancel = context.WithCancel(ctx)
	defer func() {
		if err != nil && i.runtime != nil {
			i.Close()
		}
	}()
	if v == ContextDone {
		i.runtime = wazero.NewRuntimeWithConfig(ctx,
			wazero.NewRuntimeConfigCompiler().WithCoreFeatures(meteringtest.Features).WithCloseOnContextDone(true))
	} else if i.runtime, err = meteringtest.NewRuntime(ctx, meteringtest.Compiler); err != nil {
		return nil, err
	}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, i.runtime); err != nil {
		return nil, err
	}
	setup := false
	if v == Metered || v == Canonical {
		m, err := meteringtest.Rewrite(module, metering.Options{KeepNaN: v == Metered})
		if err != nil {
			return nil, err
		}
		module, setup = m.Binary, m.Setup
		i.meter = &meteringtest.Meter{Slice: slice, Limit: 1 << 60, Stack: 1 << 20}
		i.ctx = i.meter.Into(i.ctx)
	}
	config := wazero.NewModuleConfig().WithStartFunctions().WithRandSource(rand.Reader)
	if i.module, err = i.runtime.InstantiateWithConfig(i.ctx, module, config); err != nil {
		return nil, err
	}
	starts := []string{"_initialize"}
	if setup {
		starts = []string{metering.ExportSetup, "_initialize"}
	}
	for _, name := range starts {
		if f := i.module.ExportedFunction(name); f != nil {
			if err := i.call(f); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return i, nil
}

// Run runs a kernel n times.
func (i *Instance) Run(name string, n int) (int64, error) {
	f := i.module.ExportedFunction(name)
	if f == nil {
		return 0, fmt.Errorf("kernel %q is not there", name)
	}
	i.stack[0] = uint64(n)
	err := i.call(f)
	return int64(i.stack[0]), err
}

func (i *Instance) call(f api.Function) error {
	if i.meter != nil {
		i.meter.Begin(i.module)
	}
	return f.CallWithStack(i.ctx, i.stack[:])
}

// Fuel returns what the last call was charged, 0 if it was not metered.
func (i *Instance) Fuel() int64 {
	if i.meter == nil {
		return 0
	}
	return i.meter.Charged(i.module)
}

// Close ends the instance and frees its memory.
func (i *Instance) Close() {
	i.cancel()
	_ = i.runtime.Close(context.Background()) // frees memory
}
