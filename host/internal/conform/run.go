package conform

import (
	"context"
	"errors"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Run checks a module in the host's own sandbox. For a module that the host refuses it returns a report
// too. An error is not the module's fault: ctx has ended, or the host cannot compile modules now.
func Run(ctx context.Context, module []byte, o Options) (rep Report, err error) {
	o.Limits = o.Limits.WithDefaults()
	if err := o.Limits.Validate(); err != nil {
		return Report{}, err
	}
	r, err := sandbox.NewRuntime(sandbox.Options{})
	if err != nil {
		return Report{}, err
	}
	// Closing continues when ctx has ended. Its error does not matter.
	defer func() { _ = r.Close(context.WithoutCancel(ctx)) }()
	p, err := r.Compile(ctx, "", module, o.Limits, service.Settings{}, nil)
	var bad *service.Error
	switch {
	case errors.As(err, &bad) && bad.Kind == service.KindBadModule:
		rep = refused(sortReasons(bad), o)
	case err != nil:
		return Report{}, err
	default:
		defer func() { _ = p.Close(context.WithoutCancel(ctx)) }()
		if rep, err = Check(ctx, &program{p: p, o: o}, o); err != nil {
			return Report{}, err
		}
	}
	rep.Module, rep.Bytes = service.DigestOf(module), len(module)
	return rep, nil
}

// sortReasons finds the rules that the reasons of a refusal are about. The host writes reasons for people; a
// reason that is not recognised concerns the module as a whole.
func sortReasons(bad *service.Error) map[string][]string {
	reasons := bad.Reasons
	if len(reasons) == 0 {
		reasons = []string{bad.Message}
	}
	out := map[string][]string{}
	var inGuest *service.Error
	ran := errors.As(bad.Err, &inGuest)
	for _, reason := range reasons {
		rule := ruleStatic
		switch {
		case ran && inGuest.Kind == service.KindInvalid, strings.HasPrefix(reason, "custom section "),
			strings.HasPrefix(reason, "the module wants "):
			rule = ruleManifest
		case ran:
			rule = ruleStart
		case strings.HasPrefix(reason, "import "), strings.HasPrefix(reason, "allowed imports"):
			rule = ruleImports
		case strings.HasPrefix(reason, "export "), strings.HasPrefix(reason, "the module is a program"):
			rule = ruleExports
		}
		out[rule] = append(out[rule], reason)
	}
	return out
}

// program adapts the sandbox to [Subject].
type program struct {
	p *sandbox.Program
	o Options
}

var (
	_ Subject  = (*program)(nil)
	_ Instance = (*sandbox.Instance)(nil)
)

func (p *program) Manifest() abi.Manifest { return p.p.Module().Manifest }

func (p *program) Instantiate(ctx context.Context) (Instance, error) {
	var log sandbox.Logger
	if p.o.Logger != nil {
		log = sandbox.SlogLogger(p.o.Logger)
	}
	i, err := p.p.Instantiate(ctx, log)
	if err != nil {
		return nil, err
	}
	return i, nil
}
