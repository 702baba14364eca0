package host

import (
	"context"
	"errors"
	"log/slog"

	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// InspectOptions say how to look at a module.
type InspectOptions struct {
	// Limits are those the module is held to. Zero fields are [service.DefaultLimits].
	Limits service.Limits
	// Compiler is as in [Options].
	Compiler []string
	// Progress, if not nil, hears how it goes on, from the goroutine of Inspect.
	Progress func(service.Progress)
}

// Inspect tells what a module is, without a host: what stands in it, what of it
// breaks the rules and limits, and, if nothing does, what it takes to start. That a
// module would be refused is no error; its problems are in the result.
func Inspect(ctx context.Context, module []byte, o InspectOptions) (_ *service.Inspection, err error) {
	runtime, err := sandbox.NewRuntime(sandbox.Options{Compiler: o.Compiler, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, runtime.Close(context.WithoutCancel(ctx))) }()
	return runtime.Inspect(ctx, module, o.Limits, func(s compile.Stage, done, total int64) {
		if o.Progress != nil {
			o.Progress(service.Progress{Stage: string(s), Done: done, Total: total})
		}
	})
}
