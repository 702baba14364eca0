package host

import (
	"context"
	"errors"
	"log/slog"

	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// InspectOptions say how to inspect a module.
type InspectOptions struct {
	// Limits are those that the module must keep. Zero fields are [service.DefaultLimits].
	Limits service.Limits
	// Compiler is as in [Options].
	Compiler []string
	// Progress, if not nil, is called on Inspect's goroutine.
	Progress func(service.Progress)
}

// Inspect reports what a module is, without a host: what it contains, which rules and limits it breaks, and,
// if it breaks none, what it needs to start. Problems of the module are not an error; they are in the result.
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
