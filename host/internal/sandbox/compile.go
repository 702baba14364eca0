package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/compartment"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// wazeroConfig is how modules are compiled. The compiler process and the host
// have to agree in it, or the one would not find what the other has made.
func wazeroConfig(cache wazero.CompilationCache) wazero.RuntimeConfig {
	return wazero.NewRuntimeConfig().
		WithCompilationCache(cache).
		WithCoreFeatures(api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst).
		WithDebugInfoEnabled(false) // the rewriting has moved the code
}

// compile makes p ready to be instantiated, and tells the stages. With a store, the
// module is verified, rewritten and compiled into a stage, by the compiler process if
// there is one, and what comes of it is loaded; the host executes nothing but what it has
// loaded.
func (p *Program) compile(ctx context.Context, from Source, set service.Settings, tell func(Stage)) (err error) {
	r := p.runtime
	background := context.WithoutCancel(ctx)
	p.wazero = wazero.NewRuntimeWithConfig(background, wazeroConfig(r.cache))
	unload := func() { _ = p.wazero.Close(background); p.giveCode() }
	defer func() {
		if err != nil {
			unload()
		}
	}()
	o := orderOf(p.limits, set)
	limited, cancel := context.WithTimeout(ctx, p.limits.CompileTime)
	defer cancel()
	name := o.name(p.module.Digest)
	end, ok := r.turns.take(limited, name)
	if !ok {
		return r.slots.waitedTooLong(ctx)
	}
	size := int(from.Size)
	if r.code == nil {
		module, release, err := r.slot(ctx, limited, from, end)
		if err != nil {
			return err
		}
		f, whole, err := rewrite(module, o, tell)
		if err != nil {
			release()
			return err
		}
		p.know(f)
		tell(StageCompiling)
		unloadLate := unload
		unload = func() {} // not before the compilation is through
		err = r.compileHere(ctx, limited, p.limits, func() error { return p.compileNow(background, whole, codePerByte*int64(len(whole))) }, func(err error, late bool) {
			release()
			if err == nil && late {
				_ = p.compiled.Close(background)
			}
			if err != nil || late {
				unloadLate()
			}
		})
		if err != nil {
			return err
		}
		return p.provide(ctx)
	}
	// What is there is loaded without waiting for those that compile.
	if err := p.load(name, size); !errors.Is(err, errNotLoaded) {
		end()
		tell(StageRewriting) // so that all ways have the same stages
		tell(StageCompiling)
		if err != nil {
			return err
		}
		return p.provide(ctx)
	}
	module, release, err := r.slot(ctx, limited, from, end)
	if err != nil {
		return err
	}
	if err := r.fill(ctx, limited, name, module, o, p.limits, tell, release); err != nil {
		return err
	}
	p.stored = name
	if err := p.load(name, size); err != nil {
		if errors.Is(err, errNotLoaded) {
			err = &service.Error{Kind: service.KindInternal, Message: "the compiled code is not what this host looks for", Err: err}
		}
		return err
	}
	return p.provide(ctx)
}

// slot waits for a slot and reads the module. end is the end of the turn; the returned
// function calls it, too, and lets go of the module.
func (r *Runtime) slot(ctx, limited context.Context, from Source, end func()) (module []byte, release func(), err error) {
	free, ok := r.slots.take(limited, int(from.Size))
	if !ok {
		end()
		return nil, nil, r.slots.waitedTooLong(ctx)
	}
	module, unread, err := from.Read()
	if err != nil {
		free()
		end()
		return nil, nil, err
	}
	return module, func() { unread(); free(); end() }, nil
}

// provide offers the host's functions to a program whose module is loaded.
func (p *Program) provide(ctx context.Context) error {
	if err := provide(ctx, p.wazero, p.imports); err != nil {
		_ = p.compiled.Close(context.WithoutCancel(ctx))
		return service.Errorf(service.KindInternal, "the host's functions cannot be offered: %w", err)
	}
	return nil
}

// know takes in what the host has to know of the module.
func (p *Program) know(f *facts) {
	p.metered, p.imports, p.module.Tariff = f.metered(), f.imports(), f.tariff
	p.manifest, p.hasManifest = f.manifest, f.hasManifest
	p.tableBytes = int64(f.tableBytes)
	p.heapBytes = heapBytes(f, p.limits)
	p.minBytes = int64(f.memoryPages) * admission.PageBytes
	p.startBytes = p.minBytes
}

// fill builds a module into the store, and calls release when it is through.
func (r *Runtime) fill(ctx, limited context.Context, name string, module []byte, o order, l service.Limits, tell func(Stage), release func()) error {
	r.compilations.Add(1)
	stage, unstage, err := r.code.stage()
	if err != nil {
		release()
		return storeError(err)
	}
	if len(r.compiler) > 0 {
		defer release()
		defer unstage()
		code, err := r.buildApart(ctx, module, o, stage, l, tell)
		if err != nil {
			return err
		}
		return r.install(name, stage, code)
	}
	f, whole, err := rewrite(module, o, tell)
	if err != nil {
		unstage()
		release()
		return err
	}
	tell(StageCompiling)
	return r.compileHere(ctx, limited, l, func() error {
		code, err := compileForm(context.WithoutCancel(ctx), f, whole, stage)
		if err != nil {
			return err
		}
		return r.install(name, stage, code)
	}, func(error, bool) { unstage(); release() })
}

func (r *Runtime) install(name, stage, code string) error {
	if err := r.code.install(name, stage, code); err != nil {
		return storeError(err)
	}
	return nil
}

// errNotLoaded says that wazero would have to compile.
var errNotLoaded = errors.New("wazero does not find the compiled code")

// load takes what is kept of a module of size bytes from the store, and its code from
// there or from a program that runs. It is errNotLoaded if there is nothing of the kind,
// or not as it was written.
//
// wazero has no way to ask for that alone: what it does not find it compiles. But
// if it is to use several workers it first looks whether its context has ended.
// Loading does not look. So with a context that has ended it loads or fails.
//
// One at a time: wazero shows what it loads to whoever asks for the same binary
// before it has written the code by which it is entered. And so what loading takes
// beside what it leaves is taken once.
func (p *Program) load(name string, size int) error {
	r := p.runtime
	r.loading.Lock()
	defer r.loading.Unlock()
	form, coded, err := r.code.open(name, maxForm(int64(size)))
	if err != nil {
		return fmt.Errorf("%w: %w", errNotLoaded, err)
	}
	f, module, err := parseForm(form)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotLoaded, err)
	}
	if f.tariff != metering.TariffVersion {
		return fmt.Errorf("%w: it is metered by tariff %d", errNotLoaded, f.tariff)
	}
	var v admission.Violations // it may have been built for a service with a higher limit
	if v.MemoryPages(f.memoryPages, p.limits); v.Err() != nil {
		return v.Err()
	}
	ctx := context.Background()
	if coded {
		ended, end := context.WithCancelCause(ctx)
		end(errNotLoaded)
		ctx = experimental.WithCompilationWorkers(ended, 2)
	}
	p.know(f)
	bytes := r.code.size(name)
	if bytes == 0 {
		bytes = codePerByte * int64(len(module))
	}
	return p.compileNow(ctx, module, bytes)
}

// compileNow has wazero compile, or load. What comes of it takes code bytes of memory.
func (p *Program) compileNow(ctx context.Context, module []byte, code int64) (err error) {
	defer func() {
		if bug := recover(); bug != nil { // of wazero's compiler, on a module made to find one
			err = service.Errorf(service.KindBadModule, "the compiler failed on the module: %v", bug)
		}
		if err != nil {
			p.giveCode()
		}
	}()
	if err := p.takeCode(code); err != nil {
		return err
	}
	if p.compiled, err = p.wazero.CompileModule(ctx, module); err != nil {
		return invalidModule(err)
	}
	return nil
}

func invalidModule(err error) error {
	return &service.Error{Kind: service.KindBadModule, Message: "the module does not validate", Reasons: []string{err.Error()}, Err: err}
}

// compileHere compiles in this process, on a goroutine of its own, as wazero
// cannot be interrupted. A compilation beyond its time goes on, unheard, and keeps
// its slot until it ends. through is called when it has ended, before compileHere
// returns or, if that is too late, after.
func (r *Runtime) compileHere(ctx, limited context.Context, l service.Limits, work func() error, through func(err error, late bool)) error {
	var once sync.Mutex // guards late and ended
	late, ended := false, false
	done := make(chan error, 1)
	r.behind.Go(func() {
		err := work()
		once.Lock()
		defer once.Unlock()
		ended = true
		through(err, late)
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-limited.Done():
	}
	once.Lock()
	defer once.Unlock()
	if ended {
		return <-done
	}
	late = true
	if err := ctx.Err(); err != nil {
		return &service.Error{Kind: service.KindOf(err), Message: "the caller gave up while the module compiled", Err: err}
	}
	return service.Errorf(service.KindBadModule, "the module did not compile within %v", l.CompileTime)
}

// compilerError says to the uploader what became of the compiler process.
func compilerError(e *compartment.Error, l service.Limits, cpu time.Duration) error {
	out := &service.Error{Kind: service.KindBadModule, Detail: e.Output, Err: e}
	used := fmt.Sprintf("after %v, with %v of processor time and %d MiB of memory", e.UsedWall.Round(time.Millisecond), e.UsedCPU.Round(time.Millisecond), e.UsedMemory>>20)
	const smaller = "make the module or its largest functions smaller, or have the limit raised"
	switch e.Reason {
	case compartment.Refused:
		out.Message, out.Reasons = "the module does not validate", []string{e.Text}
	case compartment.Memory:
		out.Message = fmt.Sprintf("compiling the module takes more memory than the limit of %d MiB (it ended %s); %s", l.CompileBytes>>20, used, smaller)
	case compartment.CPU:
		out.Message = fmt.Sprintf("compiling the module takes more processor time than the limit of %v for one of its size (it ended %s); %s", cpu.Round(time.Millisecond), used, smaller)
	case compartment.Wall:
		out.Message = fmt.Sprintf("the module did not compile within %v (it ended %s); %s", l.CompileTime, used, smaller)
	case compartment.Crashed:
		out.Message = "the compiler crashed on the module (it ended " + used + "); the host's log has its last words"
	case compartment.Canceled:
		out.Kind, out.Message = service.KindOf(e.Err), "the caller gave up while the module compiled"
	case compartment.Killed:
		out.Kind, out.Message = service.KindUnavailable, "the compiler process was killed from outside (it ended "+used+"); the machine may be short of memory; try again"
	default:
		out.Kind, out.Message = service.KindInternal, "the compiler process does not work"
	}
	if out.Kind == service.KindBadModule && out.Reasons == nil {
		out.Reasons = []string{out.Message}
		out.Message = "the module cannot be compiled"
	}
	return out
}
