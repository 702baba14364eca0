// Package compile makes of a module what wazero can run: it verifies, rewrites and compiles modules,
// keeps what comes of that on disk, and loads it from there.
//
// That is done by a process of its own, if the host has one to offer (apart.go): then this process
// neither looks into modules nor compiles. Machine code, and what the host has to know of a module
// (facts.go, skeleton.go), are kept in a directory (store.go).
//
// Errors are *service.Error. A module that is refused is KindBadModule, with every violation in
// Reasons.
package compile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/compartment"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

// Options configure a [Compiler].
type Options struct {
	// Dir keeps compiled modules on disk, so that a restart finds them. Nobody but the host may write to
	// it: what is in it is executed. Empty keeps them in memory, or, with a Command, in a temporary
	// directory.
	Dir string
	// Command is a program and its first arguments: a process that compiles modules within limits of its
	// own. It has to lead to [Serve]. Then nothing is compiled in this process. Empty: modules are
	// compiled here.
	Command []string
	// Slots is how many small modules are compiled at a time, and how many others beside them; at least 1.
	Slots int
	// SmallModule is the size of a module, in bytes, up to which it never waits for a larger one. Default
	// 1 MiB.
	SmallModule int
	// Base and PerMiB bound the processor time of the compiler process by the size of the module: so much
	// for each, and so much more for each MiB of it. The limit of the service holds beside them. Default
	// 10 s and 5 s.
	Base, PerMiB time.Duration
	// Logger takes what the compiler process says when it fails. Default: none.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	o.Slots = max(o.Slots, 1)
	o.SmallModule = cmp.Or(o.SmallModule, 1<<20)
	o.Base = cmp.Or(o.Base, 10*time.Second)
	o.PerMiB = cmp.Or(o.PerMiB, 5*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Stage is a step of [Compiler.Compile], for progress.
type Stage string

// The steps of Compile, in order.
const (
	StageVerifying Stage = "verifying" // what stands in the module
	StageRewriting Stage = "rewriting" // it, so that it counts what it does
	StageCompiling Stage = "compiling"
)

// Compiler compiles the modules of a host. It is safe for concurrent use.
type Compiler struct {
	options Options // with defaults
	cache   wazero.CompilationCache
	store   *store // nil: compiled code is kept in memory only
	turns   turns
	slots   *slots
	late    sync.WaitGroup // compilations in this process, whose callers may have gone
	loading sync.Mutex     // held while compiled code is loaded; see load

	compilations atomic.Int64 // begun, of those that go to the store
}

// New makes a compiler, and its directory.
func New(o Options) (*Compiler, error) {
	o = o.withDefaults()
	c := &Compiler{options: o, slots: newSlots(o.Slots, o.SmallModule)}
	if o.Dir == "" && len(o.Command) == 0 {
		c.cache = wazero.NewCompilationCache()
		return c, nil
	}
	if len(o.Command) > 0 {
		if _, err := compartment.Executable(o.Command); err != nil {
			return nil, service.Errorf(service.KindInvalid, "the compiler's command cannot be run: %w", err)
		}
	}
	var err error
	if c.store, err = openStore(o.Dir); err != nil {
		return nil, service.Errorf(service.KindInternal, "the compiled code cannot be kept on disk: %w", err)
	}
	if c.cache, err = wazero.NewCompilationCacheWithDir(c.store.dir); err != nil {
		return nil, service.Errorf(service.KindInternal, "the compiled code cannot be kept on disk: %w",
			errors.Join(err, c.store.close()))
	}
	return c, nil
}

// Close frees the compiled code. It waits for compilations in this process, as they cannot be stopped,
// but not longer than ctx. No call of Compile may be running.
func (c *Compiler) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		c.late.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return service.Errorf(service.KindInternal, "a compilation is still running: %w", ctx.Err())
	}
	err := c.cache.Close(ctx)
	if c.store != nil {
		err = errors.Join(err, c.store.close())
	}
	return err
}

// Compilations is how many modules it has begun to compile for the store.
func (c *Compiler) Compilations() int64 { return c.compilations.Load() }

// Busy is how many slots and turns are taken by modules that are being compiled.
func (c *Compiler) Busy() int {
	c.turns.mu.Lock()
	defer c.turns.mu.Unlock()
	return c.slots.taken() + len(c.turns.taken)
}

// Runtime makes a runtime of wazero that runs what the compiler has made.
func (c *Compiler) Runtime(ctx context.Context) wazero.Runtime {
	return wazero.NewRuntimeWithConfig(ctx, wazeroConfig(c.cache))
}

// Source is where a module comes from.
type Source struct {
	Digest service.Digest
	Size   int64 // in bytes
	// Read returns the module's bytes, which release lets go of. It is called once at most:
	// when the module has a slot to be compiled in, and not at all if what comes of that is
	// there already. So a module that waits is not in memory.
	Read func() (module []byte, release func(), err error)
}

// Loaded is a module that is in memory, and its caller's.
func Loaded(module []byte) Source {
	return Source{service.DigestOf(module), int64(len(module)),
		func() ([]byte, func(), error) { return module, func() {}, nil }}
}

// Request is a module that has to be made ready to run.
type Request struct {
	Module Source
	Order  Order
	Limits service.Limits // with defaults
	Tell   func(Stage)    // hears the stages
	// Load has wazero load a module, by [Module] under that context. It takes code bytes of memory for the
	// machine code. It is called at most twice, on any goroutine.
	Load func(ctx context.Context, f *Facts, module []byte, code int64) error
	// Unload undoes Load. It is called once if Compile fails, and maybe after that.
	Unload func()
}

// Compile makes a module ready to be instantiated. With a store, the module is verified, rewritten and
// compiled into a stage, by the compiler process if there is one, and what comes of it is loaded; the
// host executes nothing but what it has loaded. stored is the name of what is new in the store.
func (c *Compiler) Compile(ctx context.Context, r Request) (stored string, err error) {
	unload := r.Unload
	defer func() {
		if err != nil {
			unload()
		}
	}()
	limited, cancel := context.WithTimeout(ctx, r.Limits.CompileTime)
	defer cancel()
	name := r.Order.name(r.Module.Digest)
	end, ok := c.turns.take(limited, name)
	if !ok {
		return "", c.slots.waitedTooLong(ctx)
	}
	if c.store == nil {
		handed, err := c.inMemory(ctx, limited, r, end)
		if handed {
			unload = func() {}
		}
		return "", err
	}
	// What is there is loaded without waiting for those that compile.
	size := int(r.Module.Size)
	if err := c.load(name, size, r.Load); !errors.Is(err, errNotLoaded) {
		end()
		r.Tell(StageRewriting) // so that all ways have the same stages
		r.Tell(StageCompiling)
		return "", err
	}
	module, release, err := c.slot(ctx, limited, r.Module, end)
	if err != nil {
		return "", err
	}
	if err := c.fill(ctx, limited, name, module, r, release); err != nil {
		return "", err
	}
	if err := c.load(name, size, r.Load); err != nil {
		if errors.Is(err, errNotLoaded) {
			err = &service.Error{Kind: service.KindInternal, Message: "the compiled code is not what this host looks " +
				"for", Err: err}
		}
		return name, err
	}
	return name, nil
}

// inMemory compiles in this process, and keeps nothing. handed says that the request's Unload has been
// called, or will be.
func (c *Compiler) inMemory(ctx, limited context.Context, r Request, end func()) (handed bool, err error) {
	module, release, err := c.slot(ctx, limited, r.Module, end)
	if err != nil {
		return false, err
	}
	f, whole, err := rewrite(module, r.Order, r.Tell)
	if err != nil {
		release()
		return false, err
	}
	r.Tell(StageCompiling)
	err = c.here(ctx, limited, r.Limits, func() error {
		return r.Load(context.WithoutCancel(ctx), f, whole, codePerByte*int64(len(whole)))
	}, func(err error, late bool) {
		release()
		if err != nil || late {
			r.Unload()
		}
	})
	return true, err
}

// codePerByte is how much machine code a module becomes, about, where it is not known.
const codePerByte = 5

// slot waits for a slot and reads the module. end is the end of the turn; the returned
// function calls it, too, and lets go of the module.
func (c *Compiler) slot(
	ctx, limited context.Context, from Source, end func(),
) (module []byte, release func(), err error) {
	free, ok := c.slots.take(limited, int(from.Size))
	if !ok {
		end()
		return nil, nil, c.slots.waitedTooLong(ctx)
	}
	module, unread, err := from.Read()
	if err != nil {
		free()
		end()
		return nil, nil, err
	}
	return module, func() { unread(); free(); end() }, nil
}

// fill builds a module into the store, and calls release when it is through.
func (c *Compiler) fill(ctx, limited context.Context, name string, module []byte, r Request, release func()) error {
	c.compilations.Add(1)
	stage, unstage, err := c.store.stage()
	if err != nil {
		release()
		return storeError(err)
	}
	if len(c.options.Command) > 0 {
		defer release()
		defer unstage()
		code, err := c.apart(ctx, module, r, stage)
		if err != nil {
			return err
		}
		return c.install(name, stage, code)
	}
	f, whole, err := rewrite(module, r.Order, r.Tell)
	if err != nil {
		unstage()
		release()
		return err
	}
	r.Tell(StageCompiling)
	return c.here(ctx, limited, r.Limits, func() error {
		code, err := compileForm(context.WithoutCancel(ctx), f, whole, stage)
		if err != nil {
			return err
		}
		return c.install(name, stage, code)
	}, func(error, bool) { unstage(); release() })
}

func (c *Compiler) install(name, stage, code string) error {
	if err := c.store.install(name, stage, code); err != nil {
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
func (c *Compiler) load(name string, size int, load func(context.Context, *Facts, []byte, int64) error) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	form, coded, err := c.store.open(name, maxForm(int64(size)))
	if err != nil {
		return fmt.Errorf("%w: %w", errNotLoaded, err)
	}
	f, module, err := parseForm(form)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotLoaded, err)
	}
	if f.Tariff != metering.TariffVersion {
		return fmt.Errorf("%w: it is metered by tariff %d", errNotLoaded, f.Tariff)
	}
	ctx := context.Background()
	if coded {
		ended, end := context.WithCancelCause(ctx)
		end(errNotLoaded)
		ctx = experimental.WithCompilationWorkers(ended, 2)
	}
	bytes := c.store.size(name)
	if bytes == 0 {
		bytes = codePerByte * int64(len(module))
	}
	return load(ctx, f, module, bytes)
}

// Module has a runtime of wazero compile a module, or load it, as the context says that came with it.
func Module(ctx context.Context, r wazero.Runtime, module []byte) (m wazero.CompiledModule, err error) {
	defer func() {
		if bug := recover(); bug != nil { // of wazero's compiler, on a module made to find one
			err = service.Errorf(service.KindBadModule, "the compiler failed on the module: %v", bug)
		}
	}()
	if m, err = r.CompileModule(ctx, module); err != nil {
		return nil, invalidModule(err)
	}
	return m, nil
}

func invalidModule(err error) error {
	return &service.Error{Kind: service.KindBadModule, Message: "the module does not validate",
		Reasons: []string{err.Error()}, Err: err}
}

// here compiles in this process, on a goroutine of its own, as wazero
// cannot be interrupted. A compilation beyond its time goes on, unheard, and keeps
// its slot until it ends. through is called when it has ended, before here
// returns or, if that is too late, after.
func (c *Compiler) here(
	ctx, limited context.Context, l service.Limits, work func() error, through func(err error, late bool),
) error {
	var once sync.Mutex // guards late and ended
	late, ended := false, false
	done := make(chan error, 1)
	c.late.Go(func() {
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
		return &service.Error{Kind: service.KindOf(err), Message: "the caller gave up while the module compiled",
			Err: err}
	}
	return service.Errorf(service.KindBadModule, "the module did not compile within %v", l.CompileTime)
}
