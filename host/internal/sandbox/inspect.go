package sandbox

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Inspect reports what a module is. Problems of the module are not an error; they are in the result. A module
// without problems so far is also compiled and started, to learn the rest. progress may be nil.
func (r *Runtime) Inspect(
	ctx context.Context, module []byte, l service.Limits, progress func(stage compile.Stage, done, total int64),
) (*service.Inspection, error) {
	l = l.WithDefaults()
	if err := l.Validate(); err != nil {
		return nil, err
	}
	i := admission.Inspect(module, l, compile.OrderOf(l, service.Settings{}).Metering(len(module)))
	if len(i.Problems) > 0 {
		return i, nil
	}
	p, err := r.Compile(ctx, "", module, l, service.Settings{}, progress)
	if err != nil {
		return i, refusedIn(i, err)
	}
	defer func() { _ = p.Close(ctx) }()
	s := p.Start()
	i.Start = &service.InspectedStart{Fuel: s.Fuel, MemoryBytes: s.MemoryBytes}
	if s.Image {
		i.Start.ImageBytes = s.MemoryBytes
	}
	manifest := p.Module().Manifest
	i.Manifest = &manifest
	return i, nil
}

// refusedIn adds a refusal of the module to the inspection. It returns any other error.
func refusedIn(i *service.Inspection, err error) error {
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindBadModule {
		return err
	}
	i.Problems = append(i.Problems, e.Reasons...)
	if len(e.Reasons) == 0 {
		i.Problems = append(i.Problems, e.Message)
	}
	return nil
}
