// Package compile turns modules into what wazero can run: it verifies, rewrites and compiles them, keeps the
// result on disk, and loads it from there.
//
// If the host offers a compiler process (apart.go), that process does all of this, and the host's own process
// neither parses nor compiles modules. Machine code, and what the host needs to know of a module (facts.go,
// skeleton.go), are kept in a directory (store.go).
//
// Errors are *service.Error. A refused module is KindBadModule, with every violation in Reasons.
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
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

// Options configure a [Compiler].
type Options struct {
	// Dir is the directory of compiled modules, so that a restart finds them. Only the host may write to it:
	// its content is executed. Empty: compiled modules are kept in memory or, with a Command, in a temporary
	// directory.
	Dir string
	// Command is the command line of a process that compiles modules within its own limits; it must lead to
	// [Serve]. Then nothing is compiled in this process. Empty: modules are compiled in this process.
	Command []string
	// Slots is the number of slots for small modules, and also the number of slots for all modules; at least
	// 1.
	Slots int
	// SmallModule is the size, in bytes, up to which a module never waits for a larger one. Default 1 MiB.
	SmallModule int
	// Base and PerMiB bound the processor time of the compiler process: Base for each module, and PerMiB for
	// each MiB of it. The service's limit applies as well. Defaults: 10 s and 5 s.
	Base, PerMiB time.Duration
	// Logger gets the output of a compiler process that failed. Default: none.
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

// Stage is a step of [Compiler.Compile], for reports of progress.
type Stage string

// The stages of Compile, in order.
const (
	StageVerifying Stage = "verifying" // checks the module's bytes
	StageRewriting Stage = "rewriting" // adds the counting of fuel
	StageCompiling Stage = "compiling"
)

// Compiler compiles the modules of a host. It is safe for concurrent use.
type Compiler struct {
	options Options // with defaults
	cache   wazero.CompilationCache
	store   *store // nil: compiled code is kept only in memory
	turns   turns
	slots   *slots
	life    lifecycle.Life // compilations in this process; their callers may have gone
	loading sync.Mutex     // held while compiled code is loaded; see load

	compilations atomic.Int64 // number of compilations begun for the store
}

// New makes a compiler and its directory.
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

// Close frees the compiled code. It waits for calls of Compile, which end by their own contexts, and for
// compilations in this process, which cannot be stopped, until ctx ends. It keeps the contract of package lifecycle.
func (c *Compiler) Close(ctx context.Context) error {
	err := c.life.Close(ctx, nil, func() error {
		err := c.cache.Close(context.Background()) // it has nothing to wait for
		if c.store != nil {
			err = errors.Join(err, c.store.close())
		}
		return err
	})
	if errors.Is(err, lifecycle.ErrUnfinished) {
		return service.Errorf(service.KindInternal, "a compilation is still running: %w", err)
	}
	return err
}

// Compilations is the number of compilations that have begun for the store.
func (c *Compiler) Compilations() int64 { return c.compilations.Load() }

// Busy is how many slots and turns compilations hold at present.
func (c *Compiler) Busy() int {
	c.turns.mu.Lock()
	defer c.turns.mu.Unlock()
	return c.slots.taken() + len(c.turns.taken)
}

// Runtime makes a wazero runtime that can run the compiler's output.
func (c *Compiler) Runtime(ctx context.Context) wazero.Runtime {
	return wazero.NewRuntimeWithConfig(ctx, wazeroConfig(c.cache))
}

// Source is where a module's bytes come from.
type Source struct {
	Digest service.Digest
	Size   int64 // in bytes
	// Read returns the module's bytes; release drops them. It is called at most once, when the module has a
	// slot for its compilation; if the store already has the result, it is not called. So a module that waits
	// is not in memory.
	Read func() (module []byte, release func(), err error)
}

// Loaded is a module in memory. The caller owns its bytes.
func Loaded(module []byte) Source {
	return Source{service.DigestOf(module), int64(len(module)),
		func() ([]byte, func(), error) { return module, func() {}, nil }}
}

// Request is a module to be made ready to run.
type Request struct {
	Module Source
	Order  Order
	Limits service.Limits // with defaults
	Tell   func(Stage)    // gets the stages
	// Load makes wazero load a module, by calling [Module] with that context. It takes code bytes of memory
	// for the machine code. It is called at most twice, on any goroutine.
	Load func(ctx context.Context, f *Facts, module []byte, code int64) error
	// Unload undoes Load. It is called once if Compile fails, perhaps after Compile has returned.
	Unload func()
}

// Compile makes a module ready to be instantiated. With a store, the module is verified, rewritten and
// compiled into a stage, by the compiler process if there is one; then the result is loaded. The host
// executes nothing else. stored is the name of what this call added to the store.
func (c *Compiler) Compile(ctx context.Context, r Request) (stored string, err error) {
	leave, ok := c.life.Enter()
	if !ok {
		r.Unload()
		return "", service.Errorf(service.KindUnavailable, "the host is shutting down")
	}
	defer leave()
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
	// What the store already has is loaded without waiting for compilations.
	size := int(r.Module.Size)
	if err := c.load(name, size, r.Load); !errors.Is(err, errNotLoaded) {
		end()
		r.Tell(StageRewriting) // so that the stages are always the same
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

// inMemory compiles in this process and keeps nothing. handed reports that the request's Unload has been or
// will be called.
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

// codePerByte is about how many bytes of machine code a byte of a module becomes. It is used where the real
// size is not known.
const codePerByte = 5

// slot waits for a slot and reads the module. end ends the turn. The returned function calls end and drops
// the module.
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

// fill builds a module into the store. It calls release when it is done.
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

// load takes what is kept of a module of size bytes from the store, and its code from there or from a running
// program. It returns errNotLoaded if there is none, or if it is damaged.
//
// wazero cannot be asked only to load: it compiles what it does not find. But when it is configured for
// several workers, it checks its context before it compiles, and loading does not check. So with a context
// that has ended it loads or fails.
//
// Only one load runs at a time, because wazero shows an entry to others who ask for the same binary before it
// has written the code's entry points. It also means that the memory that loading needs temporarily is needed
// once.
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

// Module makes a wazero runtime compile a module, or only load it; the context decides.
func Module(ctx context.Context, r wazero.Runtime, module []byte) (m wazero.CompiledModule, err error) {
	defer func() {
		if bug := recover(); bug != nil { // in wazero's compiler, by a module made for that
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

// here compiles in this process, on another goroutine, as wazero cannot be interrupted. A compilation that
// exceeds its time goes on in the background and keeps its slot until it ends. through is called when it has
// ended: before here returns or, if time was exceeded, later.
func (c *Compiler) here(
	ctx, limited context.Context, l service.Limits, work func() error, through func(err error, late bool),
) error {
	var once sync.Mutex // guards late and ended
	late, ended := false, false
	done := make(chan error, 1)
	c.life.Go(func() {
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
