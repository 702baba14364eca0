package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	quota "github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/pages"
	"github.com/bulkhead-wasm/bulkhead/host/internal/schema"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero"
)

// Options configure a [Runtime].
type Options struct {
	// CacheDir is the directory of compiled modules, so that a restart finds them. Only the host may write to
	// it: its content is executed. Empty: compiled modules are kept in memory.
	CacheDir string
	// Compiler is the command line of a process that compiles modules within its own limits; it must lead to
	// [compile.Serve]. Then nothing is compiled in this process, and if CacheDir is empty a temporary
	// directory is made. Empty: modules are compiled in this process.
	Compiler []string
	// SmallModule is the size, in bytes, up to which a module never waits for larger ones to be compiled:
	// small modules have as many slots for themselves as all modules share. Default 1 MiB.
	SmallModule int
	// CompileBase and CompilePerMiB bound the processor time of the compiler process: the base for each
	// module, and the other for each MiB of the module. The service's limit applies as well. Defaults: 10 s
	// and 5 s.
	CompileBase, CompilePerMiB time.Duration
	// Account is charged for everything that belongs to no service; see [Runtime.CompileFor]. Default: an
	// account without bounds.
	Account *quota.Account
	// CopyImages makes sandboxes copy their image even where the system could map it.
	CopyImages bool
	// Logger gets the runtime's own messages. Default: none.
	Logger *slog.Logger
}

// The stages of [Runtime.Compile] after those of [compile.Compiler.Compile].
const (
	StageInitialising compile.Stage = "initialising" // the first instance starts
	StageDescribing   compile.Stage = "describing"   // the first instance describes itself, and the answer is checked
)

// Runtime is what all programs of a host share: the cache of compiled code, and the bound on concurrent
// compilations. It is safe for concurrent use.
type Runtime struct {
	compiler *compile.Compiler
	logger   *slog.Logger
	calls    lifecycle.Life // calls of Compile in progress
	life     context.Context
	end      context.CancelFunc // called by Close

	mu       sync.Mutex // guards accounts
	accounts map[service.Name]*account

	processors *fair.Processors
	backing    pages.Backing // for images and memories
	budget     *quota.Account
}

// NewRuntime makes a runtime.
func NewRuntime(o Options) (*Runtime, error) {
	processors := min(runtime.GOMAXPROCS(0), runtime.NumCPU()) // an operator may set GOMAXPROCS higher
	r := &Runtime{accounts: map[service.Name]*account{}, logger: o.Logger}
	r.life, r.end = context.WithCancel(context.Background())
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	r.processors = fair.NewProcessors(processors - 1)
	if r.budget = o.Account; r.budget == nil {
		r.budget = quota.New(nil)
	}
	r.backing = pages.Copying{}
	if !o.CopyImages {
		if mapping, err := pages.NewArena(); err == nil {
			r.backing = mapping
		} else {
			r.logger.Info("sandboxes copy their images", "why", err)
		}
	}
	var err error
	r.compiler, err = compile.New(compile.Options{
		Dir: o.CacheDir, Command: o.Compiler, Slots: processors / 2, SmallModule: o.SmallModule,
		Base: o.CompileBase, PerMiB: o.CompilePerMiB, Logger: r.logger,
	})
	if err != nil {
		return nil, errors.Join(err, r.backing.Close())
	}
	return r, nil
}

// Compiler compiles the runtime's modules and keeps their code.
func (r *Runtime) Compiler() *compile.Compiler { return r.compiler }

// account returns the recent usage of a service. The service's programs share it, so that a new deployment
// does not forget what the last one did. Each account that was returned must be passed to giveUp.
func (r *Runtime) account(name service.Name) *account {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.accounts[name]
	if a == nil || name == "" { // belongs to no service
		a = newAccount(r.processors, name)
	}
	if a.programs++; name != "" {
		r.accounts[name] = a
	}
	return a
}

// HostTurn makes a place for work that the host does for the program's service.
func (p *Program) HostTurn() *fair.HostTurn {
	return fair.NewHostTurn(fair.NewPlace(p.account.Account))
}

// BackgroundTurn makes a place for work of the host that nobody waits for; see [fair.NewBackground].
func (p *Program) BackgroundTurn() *fair.HostTurn {
	return fair.NewHostTurn(fair.NewPlace(fair.NewBackground(p.runtime.processors)))
}

func (r *Runtime) giveUp(a *account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.programs--; a.programs == 0 {
		delete(r.accounts, a.name)
	}
}

// enter registers a compilation; it fails if the runtime is closed.
func (r *Runtime) enter() (leave func(), err error) {
	leave, ok := r.calls.Enter()
	if !ok {
		return nil, service.Errorf(service.KindUnavailable, "the host is shutting down")
	}
	return leave, nil
}

// Close frees the compiled code. All programs must be closed before. It stops compiler processes. It waits
// for compilations in this process, which cannot be stopped, until ctx ends. It keeps the contract of package
// lifecycle.
func (r *Runtime) Close(ctx context.Context) error {
	err := r.calls.Close(ctx, r.end, func() error {
		return errors.Join(r.compiler.Close(context.Background()), r.backing.Close())
	})
	if errors.Is(err, lifecycle.ErrUnfinished) {
		return service.Errorf(service.KindInternal, "a compilation is still running: %w", err)
	}
	return err
}

// Compile makes a program from a module's bytes: it verifies and compiles them, and starts one instance to
// learn the manifest. A module that breaks rules is refused with KindBadModule. Reasons has every violation
// that could be found: the module is only run if nothing was found before. name, if not empty, is the service
// that the module must be. progress may be nil; it is called before and after each stage, on the caller's
// goroutine, with the module's size in bytes as total.
//
// The limits also apply to the program's instances. Of the settings, only those that affect the code are
// used. module must not change while Compile runs.
func (r *Runtime) Compile(
	ctx context.Context, name service.Name, module []byte, l service.Limits, set service.Settings,
	progress func(stage compile.Stage, done, total int64),
) (*Program, error) {
	return r.CompileFor(ctx, Tenant{Account: r.budget, Name: name}, compile.Loaded(module), l, set, progress)
}

// CompileFor is Compile for a service: what the program, its image and its instances hold is taken from the
// service's account.
func (r *Runtime) CompileFor(
	ctx context.Context, of Tenant, module compile.Source, l service.Limits, set service.Settings,
	progress func(stage compile.Stage, done, total int64),
) (*Program, error) {
	name := of.Name
	l = l.WithDefaults()
	if err := l.Validate(); err != nil {
		return nil, err
	}
	leave, err := r.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	live, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.life, cancel)()
	p, err := r.program(live, of.holding(), module, l, set, progress)
	if err != nil && r.life.Err() != nil && ctx.Err() == nil {
		err = &service.Error{Op: "compile", Service: name, Kind: service.KindUnavailable,
			Message: "the host is shutting down", Err: err}
	}
	return p, err
}

// program does the work of Compile.
func (r *Runtime) program(
	ctx context.Context, hold holding, module compile.Source, l service.Limits, set service.Settings,
	progress func(stage compile.Stage, done, total int64),
) (*Program, error) {
	name, total := hold.name, module.Size
	var stage compile.Stage
	enter := func(s compile.Stage) { // the next stage, or none
		if progress != nil && stage != "" {
			progress(stage, total, total)
		}
		if stage = s; progress != nil && s != "" {
			progress(s, 0, total)
		}
	}
	step := func(s compile.Stage, f func() error) error {
		if err := ctx.Err(); err != nil {
			return &service.Error{Op: "compile", Service: name, Kind: service.KindOf(err),
				Message: "gave up on the module while " + string(s), Err: err}
		}
		enter(s)
		if err := f(); err != nil {
			return asBadModule(name, stage, err)
		}
		enter("")
		return nil
	}

	p := &Program{runtime: r, limits: l, hold: hold, making: make(chan struct{}, 1),
		instances: map[*Instance]struct{}{}}
	p.module.Digest, p.module.Size = module.Digest, total
	err := step(compile.StageVerifying, func() error {
		var v admission.Violations
		if v.Size(int(module.Size), l); v.Err() != nil {
			return v.Err()
		}
		return p.compile(ctx, module, set, func(s compile.Stage) {
			if s != stage {
				enter(s)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	p.account = r.account(name)
	var first *Instance
	err = step(StageInitialising, func() (err error) {
		if first, err = p.Instantiate(ctx, nil); err == nil {
			p.startFuel = first.Fuel()
		}
		return err
	})
	if err == nil {
		p.startBytes = first.MemoryBytes()
		err = step(StageDescribing, func() error { return p.describe(ctx, first, name) })
		_ = first.Close(ctx)
	}
	if err != nil {
		_ = p.Close(ctx)
		// The code of a refused module is not needed again.
		if p.stored != "" && service.KindOf(err) == service.KindBadModule {
			r.compiler.Remove(p.stored)
		}
		return nil, err
	}
	p.imageable = p.metered.Imageable
	return p, nil
}

// asBadModule turns an error of a stage into a refusal of the module, unless the cause lies with the host or
// the caller.
func asBadModule(name service.Name, s compile.Stage, err error) error {
	e, ok := err.(*service.Error)
	if !ok {
		e = &service.Error{Kind: service.KindBadModule, Message: "the module cannot be used",
			Reasons: []string{err.Error()}, Err: err}
	}
	switch e.Kind {
	case service.KindBadModule, service.KindInternal, service.KindOverloaded, service.KindUnavailable,
		service.KindCanceled, service.KindDeadline, service.KindQuota, service.KindFull, service.KindNotFound:
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
	runtime     *Runtime
	module      service.Module
	schemas     *schema.Set // of its manifest
	schemaBytes int64       // bytes taken for them
	limits      service.Limits
	imports     []string          // modules from which it imports functions
	metered     *metering.Metered // without its binary
	wazero      wazero.Runtime    // of this program alone: closing it affects no other
	compiled    wazero.CompiledModule
	stored      string // name of its code if this call stored it; otherwise empty
	manifest    []byte // content of the manifest section, until it has been compared
	hasManifest bool
	imageable   bool          // instances begin as an image; the first instance makes it
	making      chan struct{} // holds a token while an instance makes the image
	startFuel   uint64        // fuel of the initialisation
	minBytes    int64         // memory before the initialisation
	startBytes  int64         // memory after it
	heapBytes   int64         // maximum on the Go heap per instance
	tableBytes  int64         // the part of it for tables
	account     *account
	hold        holding

	mu        sync.Mutex // guards all below
	image     *image     // what instances begin as; nil before it is made, and if each instance initialises itself
	instances map[*Instance]struct{}
	reserved  int   // sandboxes taken by Reserve
	free      int   // the part of them that is not in use
	codeBytes int64 // taken for the machine code
	closed    bool
}

// Module describes the module.
func (p *Program) Module() service.Module { return p.module }

// Schemas are the schemas of the module's commands and queries.
func (p *Program) Schemas() *schema.Set { return p.schemas }

// Start says what an instance of a program needs to start.
type Start struct {
	Fuel        uint64 // of the start function and _initialize
	MemoryBytes int64  // after these
	Image       bool   // instances begin as copies of an initialised one
	Why         string // why Image is false
	Tariff      int    // the version of the rules by which fuel is charged
}

// Start reports what the first instance needed.
func (p *Program) Start() Start {
	s := Start{Fuel: p.startFuel, MemoryBytes: p.startBytes, Image: p.metered.Imageable, Why: p.metered.Why,
		Tariff: p.metered.Tariff}
	return s
}

// base returns the image that an instance begins as. If it returns nil, the instance must initialise itself,
// and then call made: with the instance if that succeeded, otherwise with nil. The image is only made when
// the first instance needs it, so that an unused program takes neither memory nor a descriptor for it. While
// one instance makes the image the others wait. Before waiting, base calls wait, which gives up what that
// instance may need to finish: a turn.
func (p *Program) base(ctx context.Context, wait func()) (m *image, made func(*Instance), err error) {
	nothing := func(*Instance) {}
	present := func() *image {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.image
	}
	if m := present(); m != nil || !p.imageable {
		return m, nothing, nil
	}
	select {
	case p.making <- struct{}{}:
	default:
		wait()
		select {
		case p.making <- struct{}{}:
		case <-ctx.Done():
			return nil, nil, &service.Error{Kind: service.KindOf(ctx.Err()),
				Message: "the caller gave up while the module's image was made", Err: ctx.Err()}
		}
	}
	if m := present(); m != nil {
		<-p.making
		return m, nothing, nil
	}
	return nil, func(i *Instance) {
		if i != nil {
			p.capture(i)
		}
		<-p.making
	}, nil
}

// capture makes the program's image from an instance that has just initialised. If that fails, the instance
// stays usable, and the next one tries again.
func (p *Program) capture(i *Instance) {
	defer i.hostWork(fair.StartLap(fair.Now(), true))
	m, err := captureImage(p.runtime.backing, i.memory.b, i.module, p.metered.Globals, &p.hold)
	if err != nil {
		p.runtime.logger.Warn("a module's image cannot be made; its sandboxes initialise themselves", "service", i.name,
			"error", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		m.close()
		return
	}
	p.image = m
}

// adopt adds an instance to the program; false if the program is closed.
func (p *Program) adopt(i *Instance) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.instances[i] = struct{}{}
	}
	return !p.closed
}

func (p *Program) disown(i *Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.instances, i)
}

// Close ends all instances and frees the program. No call may be running.
func (p *Program) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		defer p.runtime.giveUp(p.account)
	}
	p.closed = true
	left := slices.Collect(maps.Keys(p.instances))
	image := p.image
	p.mu.Unlock()
	for _, i := range left {
		_ = i.Close(ctx)
	}
	if image != nil {
		image.close()
	}
	p.unreserve()
	p.hold.give(p.schemaBytes)
	p.schemaBytes = 0
	defer p.giveCode()
	err := p.wazero.Close(ctx)
	if e := p.compiled.Close(ctx); err == nil {
		err = e
	}
	return err
}

// describe asks an instance for its manifest and checks it.
func (p *Program) describe(ctx context.Context, i *Instance, name service.Name) error {
	raw, err := i.describe(ctx)
	if err != nil {
		return err
	}
	manifest, err := service.ParseManifest(raw)
	if err != nil {
		return err
	}
	var v admission.Violations
	if name != "" && manifest.Service != string(name) {
		v.Add("the module is service %q; it was uploaded as %q", manifest.Service, name)
	}
	var wrong []string
	if err := i.Work(ctx, func(rest func() error) (time.Duration, error) {
		if err := rest(); err != nil {
			return 0, err
		}
		p.schemas, wrong, err = schema.Compile(&manifest, rest)
		return 0, err
	}); err != nil {
		return &service.Error{Service: i.name, Kind: service.KindOf(err),
			Message: "the caller gave up while the module's schemas were compiled", Err: err}
	}
	for _, w := range wrong {
		v.Add("%s", w)
	}
	for _, c := range manifest.Capabilities {
		v.Add("the module wants the capability %q; this host offers none", c)
	}
	if p.hasManifest {
		baked, err := service.ParseManifest(p.manifest)
		if err != nil {
			v.Add("custom section %q: %v", abi.ManifestSection, err)
		} else if string(baked.AppendJSON(nil)) != string(manifest.AppendJSON(nil)) {
			v.Add("custom section %q and the answer to Describe differ; build the module again, or leave the section "+
				"out", abi.ManifestSection)
		}
	}
	p.module.Manifest, p.manifest = manifest, nil
	if err := v.Err(); err != nil {
		return err
	}
	if err := p.hold.takeStart(p.schemas.Bytes()); err != nil {
		return err
	}
	p.schemaBytes = p.schemas.Bytes()
	return nil
}
