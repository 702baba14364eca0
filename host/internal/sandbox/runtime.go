package sandbox

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Options configure a [Runtime].
type Options struct {
	// CacheDir keeps compiled modules on disk, so that a restart finds them. Nobody
	// but the host may write to it: what is in it is executed. Empty keeps them in memory.
	CacheDir string
	// Logger takes the runtime's own messages. Default: none.
	Logger *slog.Logger
}

// Stage is a step of [Runtime.Compile], for progress.
type Stage string

// The steps of Compile, in order.
const (
	StageVerifying    Stage = "verifying"
	StageCompiling    Stage = "compiling"
	StageInitialising Stage = "initialising"
	StageDescribing   Stage = "describing"
)

// Runtime is what all programs of a host share: the cache of compiled code, and
// the bound on how many modules are compiled at once. It is safe for concurrent use.
type Runtime struct {
	cache  wazero.CompilationCache
	logger *slog.Logger
	slots  chan struct{}  // one is taken by each module being compiled
	behind sync.WaitGroup // compilations whose callers have gone
}

// NewRuntime makes a runtime.
func NewRuntime(o Options) (*Runtime, error) {
	r := &Runtime{logger: o.Logger, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	if o.CacheDir == "" {
		r.cache = wazero.NewCompilationCache()
		return r, nil
	}
	cache, err := wazero.NewCompilationCacheWithDir(o.CacheDir)
	if err != nil {
		return nil, service.Errorf(service.KindInternal, "the compilation cache cannot be opened: %w", err)
	}
	r.cache = cache
	return r, nil
}

// Close frees the compiled code. All programs must be closed before. It waits
// for compilations that ran out of their time, as they cannot be stopped, but
// not longer than ctx.
func (r *Runtime) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		r.behind.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return service.Errorf(service.KindInternal, "a compilation is still running: %w", ctx.Err())
	}
	return r.cache.Close(ctx)
}

// Compile makes a program of a module's bytes: it verifies them, compiles them,
// and starts one instance to learn the manifest. A module that breaks rules is
// refused with KindBadModule and every violation in Reasons, as far as they can
// be found: what runs is only looked at if all that stands is right. name, if
// not empty, is the service the module has to be. progress may be nil; it is
// called before and after each stage on the caller's goroutine, with the bytes
// of the module as total.
//
// The limits hold for the program's instances too. Compile keeps module.
func (r *Runtime) Compile(ctx context.Context, name service.Name, module []byte, l service.Limits, progress func(stage Stage, done, total int64)) (*Program, error) {
	l = l.WithDefaults()
	if err := l.Validate(); err != nil {
		return nil, err
	}
	total := int64(len(module))
	step := func(s Stage, f func() error) error {
		if err := ctx.Err(); err != nil {
			return &service.Error{Op: "compile", Service: name, Kind: service.KindOf(err), Message: "gave up on the module while " + string(s), Err: err}
		}
		if progress != nil {
			progress(s, 0, total)
		}
		if err := f(); err != nil {
			return asBadModule(name, s, err)
		}
		if progress != nil {
			progress(s, total, total)
		}
		return nil
	}

	var parsed *wasmbin.Module
	var prepared []byte
	err := step(StageVerifying, func() (err error) {
		if parsed, err = verify(module, l); err != nil {
			return err
		}
		prepared, err = prepare(parsed)
		return err
	})
	if err != nil {
		return nil, err
	}

	p := &Program{runtime: r, limits: l, imports: parsed.Imports}
	p.module.Digest, p.module.Size = service.DigestOf(module), total
	if err := step(StageCompiling, func() error { return p.compile(ctx, prepared) }); err != nil {
		return nil, err
	}
	var first *Instance
	err = step(StageInitialising, func() (err error) {
		first, err = p.Instantiate(ctx, nil)
		return err
	})
	if err == nil {
		err = step(StageDescribing, func() error { return p.describe(ctx, first, name, parsed) })
		_ = first.Close(ctx)
	}
	if err != nil {
		_ = p.Close(ctx)
		return nil, err
	}
	return p, nil
}

// asBadModule makes a refusal of the module out of whatever stopped a stage,
// unless it is the host's or the caller's own fault.
func asBadModule(name service.Name, s Stage, err error) error {
	e, ok := err.(*service.Error)
	if !ok {
		e = &service.Error{Kind: service.KindBadModule, Message: "the module cannot be used", Reasons: []string{err.Error()}, Err: err}
	}
	switch e.Kind {
	case service.KindBadModule, service.KindInternal, service.KindOverloaded, service.KindCanceled, service.KindDeadline:
	default:
		bad := &service.Error{
			Kind: service.KindBadModule, Message: fmt.Sprintf("the module failed while %s", s),
			Reasons: []string{fmt.Sprintf("%s: %s", e.Kind, e.Message)}, Detail: e.Detail, Err: e,
		}
		if len(e.Reasons) > 0 {
			bad.Reasons = e.Reasons
		}
		e = bad
	}
	e.Op, e.Service = "compile", name
	return e
}

// Program is a compiled module. It is safe for concurrent use.
type Program struct {
	runtime  *Runtime
	module   service.Module
	limits   service.Limits
	imports  []wasmbin.Import
	wazero   wazero.Runtime // of this program alone: closing it harms nobody else
	compiled wazero.CompiledModule
}

// Module is what is known of the module.
func (p *Program) Module() service.Module { return p.module }

// Close ends all instances and frees the program. No call may be running.
func (p *Program) Close(ctx context.Context) error {
	err := p.wazero.Close(ctx)
	if e := p.compiled.Close(ctx); err == nil {
		err = e
	}
	return err
}

// compile compiles on a goroutine of its own, as wazero cannot be interrupted: a
// compilation beyond its time goes on, unheard, and keeps its slot until it ends.
func (p *Program) compile(ctx context.Context, module []byte) error {
	r := p.runtime
	limited, cancel := context.WithTimeout(ctx, p.limits.CompileTime)
	defer cancel()
	select {
	case r.slots <- struct{}{}:
	case <-limited.Done():
		if err := ctx.Err(); err != nil {
			return &service.Error{Kind: service.KindOf(err), Message: "the caller gave up while other modules were compiled", Err: err}
		}
		return service.Errorf(service.KindOverloaded, "other modules are being compiled; try again")
	}
	config := wazero.NewRuntimeConfig().
		WithCompilationCache(r.cache).
		WithCoreFeatures(api.CoreFeaturesV2).
		WithDebugInfoEnabled(false). // prepare has moved the code
		WithCloseOnContextDone(true)
	background := context.WithoutCancel(ctx)
	p.wazero = wazero.NewRuntimeWithConfig(background, config)
	compiled := make(chan error, 1)
	r.behind.Add(1)
	go func() {
		defer r.behind.Done()
		defer func() { <-r.slots }()
		compiled <- p.compileNow(background, module)
	}()
	select {
	case err := <-compiled:
		return err
	case <-limited.Done():
	}
	w := p.wazero
	r.behind.Add(1)
	go func() { // clean up when it is through
		defer r.behind.Done()
		if err := <-compiled; err == nil {
			_ = w.Close(background)
			_ = p.compiled.Close(background)
		}
	}()
	if err := ctx.Err(); err != nil {
		return &service.Error{Kind: service.KindOf(err), Message: "the caller gave up while the module compiled", Err: err}
	}
	return service.Errorf(service.KindBadModule, "the module did not compile within %v", p.limits.CompileTime)
}

func (p *Program) compileNow(ctx context.Context, module []byte) (err error) {
	defer func() {
		if bug := recover(); bug != nil { // of wazero's compiler, on a module made to find one
			err = service.Errorf(service.KindBadModule, "the compiler failed on the module: %v", bug)
		}
		if err != nil {
			_ = p.wazero.Close(ctx)
		}
	}()
	if err := provide(ctx, p.wazero, p.imports); err != nil {
		return service.Errorf(service.KindInternal, "the host's functions cannot be offered: %w", err)
	}
	p.compiled, err = p.wazero.CompileModule(ctx, module)
	if err != nil {
		return &service.Error{Kind: service.KindBadModule, Message: "the module does not validate", Reasons: []string{err.Error()}, Err: err}
	}
	return nil
}

// describe asks an instance for its manifest and checks it.
func (p *Program) describe(ctx context.Context, i *Instance, name service.Name, m *wasmbin.Module) error {
	raw, err := i.describe(ctx)
	if err != nil {
		return err
	}
	manifest, err := service.ParseManifest(raw)
	if err != nil {
		return err
	}
	var v verification
	if name != "" && manifest.Service != string(name) {
		v.bad("the module is service %q; it was uploaded as %q", manifest.Service, name)
	}
	for _, c := range manifest.Capabilities {
		v.bad("the module wants the capability %q; this host offers none", c)
	}
	if section, ok := m.Custom(abi.ManifestSection); ok {
		baked, err := service.ParseManifest(section)
		if err != nil {
			v.bad("custom section %q: %v", abi.ManifestSection, err)
		} else if string(baked.AppendJSON(nil)) != string(manifest.AppendJSON(nil)) {
			v.bad("custom section %q and the answer to Describe differ; build the module again, or leave the section out", abi.ManifestSection)
		}
	}
	p.module.Manifest = manifest
	return v.err()
}
