package registry

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/catalog"
	"github.com/bulkhead-wasm/bulkhead/host/internal/engine"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Stage is a step of a deployment, for reports of progress.
type Stage string

// The steps of a deployment after those of [compile.Stage].
const (
	StageStoring  Stage = "storing"
	StageDraining Stage = "draining"
	StageReady    Stage = "ready"
)

// Progress is told the stage of a deployment, and how much of it is done.
type Progress func(stage Stage, done, total int64)

// build is a module that is ready to run as a service, but not started.
type build struct {
	spec    service.Spec
	module  service.Module
	facts   catalog.Facts
	program *sandbox.Program
	engine  *engine.Engine
	op      string // the operation that it was built for, in errors: deploy or start
	// retention is what Journal.Retentions returned when the module was checked against the log.
	retention uint64
}

// discard frees a build that will not be used.
func (b *build) discard(ctx context.Context) error {
	return errors.Join(b.engine.Stop(ctx), b.program.Close(ctx))
}

// Request is a deployment.
type Request struct {
	Spec service.Spec
	// Module is the module's bytes. If it is nil, the stored module that Spec names is used. A stored module is
	// only read when it is its turn, and only if it must be compiled.
	Module   []byte
	Verify   service.Verify // with defaults
	Progress Progress       // may be nil
	// DryRun says to build and to verify the module, and to change nothing.
	DryRun bool
}

// Deploy makes a module run, and returns when it runs. Deploying what already runs changes nothing; then, and
// only then, there is no verification. Deployments of one service run one after another. With a dry run the
// service is nil.
func (s *Registry) Deploy(ctx context.Context, r Request) (*Service, *service.Verification, error) {
	if r.Progress == nil {
		r.Progress = func(Stage, int64, int64) {}
	}
	name := r.Spec.Service
	if svc, err := s.Get(name); err == nil && svc.runs(r.Spec) && !r.DryRun {
		r.Progress(StageReady, 1, 1)
		return svc, nil, nil
	}
	svc, err := s.lockForDeploy(ctx, r.Spec)
	if err != nil {
		return nil, nil, err
	}
	defer svc.deploying.Unlock()
	if svc.runs(r.Spec) && !r.DryRun {
		r.Progress(StageReady, 1, 1)
		return svc, nil, nil
	}
	report, err := s.deploy(ctx, svc, &r)
	if (err != nil || r.DryRun) && !s.isRecorded(name) && svc.State() != service.StateStopped {
		s.mu.Lock()
		delete(s.services, name)
		s.mu.Unlock()
		svc.uncount()
		// Requests that wait for the service would wait in vain.
		err = errors.Join(err, svc.stop(ctx, notFound(name)))
	}
	if err != nil || r.DryRun {
		return nil, report, err
	}
	r.Progress(StageReady, 1, 1)
	return svc, report, nil
}

// lockForDeploy finds or adds the service and takes its deployment lock. If a deployment fails, the holder of
// the lock removes the service unless it is recorded, whoever added it.
func (s *Registry) lockForDeploy(ctx context.Context, spec service.Spec) (*Service, error) {
	for {
		svc, err := s.add(spec, catalog.Facts{})
		if err != nil {
			return nil, err
		}
		if err := svc.lockDeploying(ctx, "deploy", spec.Service); err != nil {
			return nil, err
		}
		if now, err := s.Get(spec.Service); err == nil && now == svc {
			return svc, nil
		}
		svc.deploying.Unlock() // deleted while this call waited
	}
}

// stored returns a module of the catalog. While it is in memory it counts among the bytes in flight.
func (s *Registry) stored(d service.Digest) (compile.Source, error) {
	size, err := s.opt.Catalog.Check(d)
	if err != nil {
		return compile.Source{}, err
	}
	return compile.Source{Digest: d, Size: size, Read: func() ([]byte, func(), error) {
		if err := s.modules.Take(budget.FlightBytes, size); err != nil {
			return nil, nil, err
		}
		release := func() { s.modules.Give(budget.FlightBytes, size) }
		module, err := s.opt.Catalog.Get(d)
		if err != nil {
			release()
			return nil, nil, err
		}
		return module, release, nil
	}}, nil
}

func (s *Registry) isRecorded(name service.Name) bool {
	return slices.ContainsFunc(s.opt.Catalog.Specs(), func(spec service.Spec) bool { return spec.Service == name })
}

func (s *Registry) deploy(ctx context.Context, svc *Service, r *Request) (*service.Verification, error) {
	building, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)() // so that a build does not delay the host's end
	source, err := compile.Loaded(r.Module), error(nil)
	if len(r.Module) == 0 {
		source, err = s.stored(r.Spec.Module)
	}
	if err != nil {
		return nil, err
	}
	built, report, err := s.prepare(building, svc, r, source)
	if err == nil && r.DryRun {
		return report, built.discard(context.WithoutCancel(ctx))
	}
	if err == nil {
		r.Progress(StageDraining, 0, 1)
		svc.swapping.Lock()
		defer svc.swapping.Unlock()
		if gone := building.Err(); gone != nil {
			err = errors.Join(&service.Error{Op: "deploy", Service: r.Spec.Service, Kind: service.KindOf(gone),
				Message: "the caller gave up; nothing has changed", Err: gone},
				built.discard(context.WithoutCancel(ctx)))
		}
	}
	if err != nil {
		if s.life.Err() != nil && ctx.Err() == nil {
			err = &service.Error{Op: "deploy", Service: r.Spec.Service, Kind: service.KindUnavailable,
				Message: "the host is shutting down", Err: err}
		}
		return report, err
	}
	// From here on the deployment goes on even if its caller goes away.
	return report, s.swap(context.WithoutCancel(ctx), svc, built, report)
}

// prepare does what comes before a service is changed: it builds a module, checks and verifies it against the
// service's log, and stores it if it is new and shall run.
func (s *Registry) prepare(
	ctx context.Context, svc *Service, r *Request, source compile.Source,
) (_ *build, report *service.Verification, err error) {
	built, err := s.build(ctx, svc, r.Spec, source, false, r.Progress)
	if err != nil {
		return nil, nil, err
	}
	if err = fits(ctx, s.before(), built); err == nil {
		report, err = s.verify(ctx, svc, built, r)
	}
	if err == nil && !r.DryRun {
		r.Progress(StageStoring, 0, source.Size)
		if len(r.Module) > 0 {
			_, err = s.opt.Catalog.Put(r.Module)
		}
	}
	if err != nil {
		return nil, report, errors.Join(err, built.discard(context.WithoutCancel(ctx)))
	}
	return built, report, nil
}

// swap drains what runs, checks the new build against what has been written meanwhile, records the deployment
// and starts the new build. If the deployment cannot be recorded, the old build goes on. The caller holds
// swapping.
func (s *Registry) swap(ctx context.Context, svc *Service, next *build, report *service.Verification) error {
	old := svc.drain(ctx, s.opt.DrainTime)
	err := fits(ctx, s.drained(), next)
	if err == nil {
		err = s.opt.Catalog.Deploy(ctx, next.spec, next.facts, report)
	}
	if err != nil {
		return errors.Join(err, next.discard(ctx), s.resume(ctx, svc, old))
	}
	s.starter.drop(svc) // attempts to start the old module
	if old != nil {
		_ = old.program.Close(ctx)
	}
	if err := svc.run(ctx, next); err != nil {
		s.starter.again(svc, next.spec, err)
		return err
	}
	return nil
}

// resume starts a drained build again, in new sandboxes. A nil old does nothing.
func (s *Registry) resume(ctx context.Context, svc *Service, old *build) error {
	if old == nil {
		return nil
	}
	again, err := s.withEngine(svc, old)
	if err == nil {
		err = svc.run(ctx, again)
	}
	if err != nil {
		s.starter.again(svc, old.spec, err)
	}
	return err
}

// build compiles a module, which tries a first sandbox, and makes an engine, which makes the other sandboxes
// on demand. recorded says that the service has already been deployed with this module.
func (s *Registry) build(
	ctx context.Context, svc *Service, spec service.Spec, module compile.Source, recorded bool, progress Progress,
) (_ *build, err error) {
	if err := spec.Validate(); err != nil { // the record may come from anywhere and have any content
		return nil, err
	}
	// This check is here so that it also applies to services that were deployed under a higher ceiling. Such
	// a service must not run with lower limits than it was deployed with: any of its commands might fail,
	// where nobody looks for the cause.
	if err := s.opt.Ceiling.Check(spec.Limits, spec.Settings); err != nil {
		return nil, err
	}
	if err := s.opt.Budget.Fits(spec.Limits); err != nil {
		return nil, err
	}
	var began time.Time // of the start, without the one-time work before it
	program, err := s.opt.Runtime.CompileFor(ctx, sandbox.Tenant{Account: svc.account, Name: spec.Service,
		Recorded: recorded}, module, spec.Limits, spec.Settings, func(stage compile.Stage, done, total int64) {
		if stage == sandbox.StageInitialising && done == 0 {
			began = time.Now()
		}
		progress(Stage(stage), done, total)
	})
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	defer func() {
		if err != nil {
			err = errors.Join(err, program.Close(ctx))
		}
	}()
	m := program.Module()
	if err := program.Reserve(spec.Settings.Shards); err != nil {
		return nil, err
	}
	facts := catalog.Facts{Tariff: m.Tariff, Start: took, Encoding: cmp.Or(m.Manifest.Encoding, abi.EncodingJSON),
		StateSchema: m.Manifest.StateSchema, ModuleVersion: catalog.ShortVersion(m.Manifest.Version)}
	op := "deploy"
	if recorded {
		op = "start"
	}
	return s.withEngine(svc, &build{spec: spec, module: m, facts: facts, program: program, op: op})
}

// withEngine returns a build with a new engine, which has not been started.
func (s *Registry) withEngine(svc *Service, b *build) (*build, error) {
	logger := sandbox.SlogLogger(s.opt.Logger)
	own := *b
	var err error
	own.engine, err = engine.New(engine.Options{
		Spec: own.spec, Manifest: &own.module.Manifest, Schemas: own.program.Schemas(), Account: svc.account,
		Log: s.opt.Journal, Publish: svc.hub, Logger: s.opt.Logger,
		Retry: s.opt.Retry, Patience: s.opt.Patience,
		NewGuest: func(ctx context.Context, _ int) (engine.Guest, error) {
			g, err := own.program.Instantiate(ctx, logger)
			if err != nil {
				return nil, err // not a Guest that holds a nil pointer
			}
			return g, nil
		},
	})
	return &own, err
}

// typesOf lists the types of commands or of queries.
func typesOf[T abi.CommandType | abi.QueryType](all []T) (types []service.Type) {
	for _, t := range all {
		types = append(types, service.Type(abi.CommandType(t).Name))
	}
	return types
}
