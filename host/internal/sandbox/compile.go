package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/compartment"
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

// compile makes p ready to be instantiated. With a store, the code is compiled
// into a stage, by the compiler process if there is one, and then loaded; the
// host executes nothing but what it has loaded.
func (p *Program) compile(ctx context.Context, module []byte) (err error) {
	r := p.runtime
	background := context.WithoutCancel(ctx)
	p.wazero = wazero.NewRuntimeWithConfig(background, wazeroConfig(r.cache))
	unload := func() { _ = p.wazero.Close(background) }
	defer func() {
		if err != nil {
			unload()
		}
	}()
	if err := provide(ctx, p.wazero, p.imports); err != nil {
		return service.Errorf(service.KindInternal, "the host's functions cannot be offered: %w", err)
	}
	name := codeName(module)
	limited, cancel := context.WithTimeout(ctx, p.limits.CompileTime)
	defer cancel()
	release, err := r.begin(ctx, limited, name)
	if err != nil {
		return err
	}
	if r.code == nil {
		unloadLate := unload
		unload = func() {} // not before the compilation is through
		return r.compileHere(ctx, limited, p.limits, func() error { return p.compileNow(background, module) }, func(err error, late bool) {
			release()
			if err == nil && late {
				_ = p.compiled.Close(background)
			}
			if err != nil || late {
				unloadLate()
			}
		})
	}
	if r.code.holds(name) {
		if err := p.load(module); !errors.Is(err, errNotLoaded) {
			release()
			return err
		}
	}
	stored, err := r.fill(ctx, limited, name, module, p.limits, release)
	switch {
	case err != nil:
		return err
	case !stored:
		return p.compileNow(background, module)
	}
	p.stored = name
	if err := p.load(module); err != nil {
		return &service.Error{Kind: service.KindInternal, Message: "the compiled code is not what this host looks for", Err: err}
	}
	return nil
}

// fill compiles a module into the store, and calls release when it is through.
// stored is false if there is nothing to store: without a compiler for this
// machine wazero interprets, and what that takes it makes anew each time.
func (r *Runtime) fill(ctx, limited context.Context, name string, module []byte, l service.Limits, release func()) (stored bool, err error) {
	r.compilations.Add(1)
	stage, unstage, err := r.code.stage()
	if err != nil {
		release()
		return false, storeError(err)
	}
	if len(r.compiler) > 0 {
		defer release()
		defer unstage()
		file, err := r.compileApart(ctx, module, stage, l)
		if err != nil {
			return false, err
		}
		return true, r.install(name, stage, file)
	}
	var kept atomic.Bool // not stored, which is the caller's while this may go on
	err = r.compileHere(ctx, limited, l, func() error {
		file, err := compileInto(context.WithoutCancel(ctx), module, stage)
		if err != nil || file == "" {
			return err
		}
		kept.Store(true)
		return r.install(name, stage, file)
	}, func(error, bool) { unstage(); release() })
	return err == nil && kept.Load(), err
}

func (r *Runtime) install(name, stage, file string) error {
	if err := r.code.install(name, stage, file); err != nil {
		return storeError(err)
	}
	return nil
}

// errNotLoaded says that wazero would have to compile.
var errNotLoaded = errors.New("wazero does not find the compiled code")

// load takes the compiled code from the store, or from a program that runs.
//
// wazero has no way to ask for that alone: what it does not find it compiles. But
// if it is to use several workers it first looks whether its context has ended.
// Loading does not look. So with a context that has ended it loads or fails.
//
// One at a time: wazero shows what it loads to whoever asks for the same binary
// before it has written the code by which it is entered.
func (p *Program) load(module []byte) (err error) {
	p.runtime.loading.Lock()
	defer p.runtime.loading.Unlock()
	ended, end := context.WithCancelCause(context.Background())
	end(errNotLoaded)
	return p.compileNow(experimental.WithCompilationWorkers(ended, 2), module)
}

// compileNow has wazero compile, or load.
func (p *Program) compileNow(ctx context.Context, module []byte) (err error) {
	defer func() {
		if bug := recover(); bug != nil { // of wazero's compiler, on a module made to find one
			err = service.Errorf(service.KindBadModule, "the compiler failed on the module: %v", bug)
		}
	}()
	p.compiled, err = p.wazero.CompileModule(ctx, module)
	if err != nil {
		return invalidModule(err)
	}
	return nil
}

func invalidModule(err error) error {
	return &service.Error{Kind: service.KindBadModule, Message: "the module does not validate", Reasons: []string{err.Error()}, Err: err}
}

// compileInto compiles into an empty directory and returns the file that holds
// the code, relative to it.
func compileInto(ctx context.Context, module []byte, dir string) (file string, err error) {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return "", storeError(err)
	}
	defer func() { _ = cache.Close(ctx) }()
	p := Program{wazero: wazero.NewRuntimeWithConfig(ctx, wazeroConfig(cache))}
	defer func() { _ = p.wazero.Close(ctx) }()
	err = p.compileNow(ctx, module)
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.Is(err, syscall.EFBIG):
		return "", service.Errorf(service.KindBadModule, "the module's machine code is larger than %d bytes", maxCodeBytes)
	case errors.As(err, &path), errors.As(err, &link):
		return "", storeError(err)
	case err != nil:
		return "", err
	}
	_ = p.compiled.Close(ctx)
	if file, err = onlyCode(dir); err != nil {
		return "", storeError(err)
	}
	return file, nil
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

// ServeCompiler is the compiler process: what the command in [Options] has to
// lead to. args are what follows the command. It bounds the process it runs in,
// for good, and returns its exit code.
func ServeCompiler(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	return compartment.Serve(ctx, args, in, out, errs, func(ctx context.Context, job compartment.Job) (string, error) {
		// Its priority is low, so it may have all processors.
		file, err := compileInto(experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0)), job.Input, ".")
		var e *service.Error
		if errors.As(err, &e) && e.Kind == service.KindBadModule {
			text := e.Message
			if len(e.Reasons) > 0 {
				text = e.Reasons[0]
			}
			return "", compartment.Refusal{Text: text}
		}
		return file, err
	})
}

// compileApart has the compiler process compile into a stage.
func (r *Runtime) compileApart(ctx context.Context, module []byte, stage string, l service.Limits) (file string, err error) {
	file, err = compartment.Run(ctx, compartment.Task{
		Command: r.compiler, Dir: stage, Input: module,
		Memory: l.CompileBytes, CPU: l.CompileTime, Wall: l.CompileTime, FileBytes: maxCodeBytes,
	})
	var e *compartment.Error
	if !errors.As(err, &e) {
		return file, nil
	}
	r.logger.Warn("the compiler process failed", "error", e, "output", e.Output)
	return "", compilerError(e, l)
}

// compilerError says to the uploader what became of the compiler process.
func compilerError(e *compartment.Error, l service.Limits) error {
	out := &service.Error{Kind: service.KindBadModule, Detail: e.Output, Err: e}
	used := fmt.Sprintf("after %v, with %v of processor time and %d MiB of memory", e.UsedWall.Round(time.Millisecond), e.UsedCPU.Round(time.Millisecond), e.UsedMemory>>20)
	const smaller = "make the module or its largest functions smaller, or have the limit raised"
	switch e.Reason {
	case compartment.Refused:
		out.Message, out.Reasons = "the module does not validate", []string{e.Text}
	case compartment.Memory:
		out.Message = fmt.Sprintf("compiling the module takes more memory than the limit of %d MiB (it ended %s); %s", l.CompileBytes>>20, used, smaller)
	case compartment.CPU:
		out.Message = fmt.Sprintf("compiling the module takes more processor time than the limit of %v (it ended %s); %s", l.CompileTime, used, smaller)
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

// turns lets one at a time compile the same binary: who comes second finds it done.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed when the turn ends
}

// take waits for the turn; false if ctx ends first.
func (t *turns) take(ctx context.Context, name string) (end func(), ok bool) {
	for {
		t.mu.Lock()
		other, busy := t.taken[name]
		if !busy {
			if t.taken == nil {
				t.taken = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			t.taken[name] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.taken, name)
				t.mu.Unlock()
				close(mine)
			}, true
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// begin waits for the turn of this binary and for a slot.
func (r *Runtime) begin(ctx, limited context.Context, name string) (release func(), err error) {
	end, ok := r.turns.take(limited, name)
	if ok {
		release = func() { <-r.slots; end() }
		select {
		case r.slots <- struct{}{}: // also if time is up: who need not wait is not told that he waited too long
			return release, nil
		default:
		}
		select {
		case r.slots <- struct{}{}:
			return release, nil
		case <-limited.Done():
			end()
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, &service.Error{Kind: service.KindOf(err), Message: "the caller gave up while other modules were compiled", Err: err}
	}
	return nil, service.Errorf(service.KindOverloaded, "other modules are being compiled; try again")
}
