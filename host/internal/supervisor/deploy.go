package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/catalog"
	"github.com/bulkhead-wasm/bulkhead/host/internal/engine"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Stage is a step of a deployment, for progress.
type Stage string

// The steps of a deployment that come after those of [sandbox.Stage].
const (
	StageStoring  Stage = "storing"
	StageDraining Stage = "draining"
	StageReady    Stage = "ready"
)

// Progress hears how a deployment goes on: which stage, and how much of it is done.
type Progress func(stage Stage, done, total int64)

// build is a module ready to run as a service: everything but started.
type build struct {
	spec    service.Spec
	module  service.Module
	facts   catalog.Facts
	program *sandbox.Program
	engine  *engine.Engine
}

// discard gives back a build that will not be used.
func (b *build) discard(ctx context.Context) error {
	return errors.Join(b.engine.Stop(ctx), b.program.Close(ctx))
}

// Deploy makes module run as spec says and returns when it does; no module is the stored
// one that spec names. Deploying what already runs changes nothing. One deployment of a
// service goes at a time; a stored module is read only then, and only if it has to be
// compiled.
func (s *Supervisor) Deploy(ctx context.Context, spec service.Spec, module []byte, progress Progress) (*Service, error) {
	if progress == nil {
		progress = func(Stage, int64, int64) {}
	}
	if svc, err := s.Get(spec.Service); err == nil && svc.runs(spec) {
		progress(StageReady, 1, 1)
		return svc, nil
	}
	svc, err := s.lockForDeploy(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer svc.unlockDeploying()
	if svc.runs(spec) {
		progress(StageReady, 1, 1)
		return svc, nil
	}
	err = s.deploy(ctx, svc, spec, module, progress)
	if err != nil && !s.recorded(spec.Service) {
		s.mu.Lock()
		delete(s.services, spec.Service)
		s.mu.Unlock()
		// Whoever waits for the service waits for nothing.
		err = errors.Join(err, svc.stop(ctx, notFound(spec.Service)))
	}
	if err != nil {
		return nil, err
	}
	progress(StageReady, 1, 1)
	return svc, nil
}

// lockForDeploy finds or adds the service and takes its deployment lock. Whoever has the
// lock removes a service that is not recorded when its deployment fails, whoever added it.
func (s *Supervisor) lockForDeploy(ctx context.Context, spec service.Spec) (*Service, error) {
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
		svc.unlockDeploying() // deleted while we waited
	}
}

// stored is a module of the catalog. While it is in memory it counts among the bytes in
// flight.
func (s *Supervisor) stored(d service.Digest) (sandbox.Source, error) {
	size, err := s.opt.Catalog.Check(d)
	if err != nil {
		return sandbox.Source{}, err
	}
	return sandbox.Source{Digest: d, Size: size, Read: func() ([]byte, func(), error) {
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

func (s *Supervisor) recorded(name service.Name) bool {
	return slices.ContainsFunc(s.opt.Catalog.Specs(), func(spec service.Spec) bool { return spec.Service == name })
}

func (s *Supervisor) deploy(ctx context.Context, svc *Service, spec service.Spec, module []byte, progress Progress) error {
	building, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)() // so that a build does not hold up the host's end
	source, err := sandbox.Loaded(module), error(nil)
	if len(module) == 0 {
		source, err = s.stored(spec.Module)
	}
	if err != nil {
		return err
	}
	built, err := s.build(building, svc, spec, source, false, progress)
	if err != nil {
		if s.life.Err() != nil && ctx.Err() == nil {
			err = &service.Error{Op: "deploy", Service: spec.Service, Kind: service.KindUnavailable, Message: "the host is shutting down", Err: err}
		}
		return err
	}
	progress(StageStoring, 0, source.Size)
	if len(module) > 0 {
		if _, err := s.opt.Catalog.Put(module); err != nil {
			return errors.Join(err, built.discard(ctx))
		}
	}
	if err := s.opt.Catalog.Deploy(ctx, spec, built.facts); err != nil {
		return errors.Join(err, built.discard(ctx))
	}
	progress(StageDraining, 0, 1)
	// From here on the deployment stands, so its caller going away does not stop it.
	svc.swapping.Lock()
	defer svc.swapping.Unlock()
	s.starter.drop(svc) // the attempts to start what ran before
	if err := svc.replace(context.WithoutCancel(ctx), built, s.opt.DrainTime); err != nil {
		s.starter.again(svc, spec, err)
		return err
	}
	return nil
}

// build compiles a module, which tries a first sandbox, and makes an engine that
// makes the others when it needs them. recorded says that it is what the service has been
// deployed with.
func (s *Supervisor) build(ctx context.Context, svc *Service, spec service.Spec, module sandbox.Source, recorded bool, progress Progress) (_ *build, err error) {
	if err := spec.Validate(); err != nil { // what the log says may come from elsewhere, and be anything
		return nil, err
	}
	// Here, so that it holds also for what was deployed under a higher ceiling. Such a
	// service does not run under lower limits than it was deployed with: it might fail
	// at any command, and not where somebody looks.
	if err := s.opt.Ceiling.Check(spec.Limits, spec.Settings); err != nil {
		return nil, err
	}
	if err := s.opt.Budget.Fits(spec.Limits); err != nil {
		return nil, err
	}
	var began time.Time // of its start, without what comes before, which is done once and kept
	program, err := s.opt.Runtime.CompileFor(ctx, sandbox.Tenant{Account: svc.account, Name: spec.Service, Recorded: recorded}, module, spec.Limits, spec.Settings, func(stage sandbox.Stage, done, total int64) {
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
	if err := svc.fits(&m.Manifest); err != nil {
		return nil, err
	}
	if err := program.Reserve(spec.Settings.Shards); err != nil {
		return nil, err
	}
	logger := sandbox.SlogLogger(s.opt.Logger)
	e, err := engine.New(engine.Options{
		Spec: spec, Manifest: &m.Manifest, Account: svc.account, Log: s.opt.Journal, Publish: svc.hub, Logger: s.opt.Logger,
		Retry: s.opt.Retry, Patience: s.opt.Patience,
		NewGuest: func(ctx context.Context, _ int) (engine.Guest, error) {
			g, err := program.Instantiate(ctx, logger)
			if err != nil {
				return nil, err // and not a Guest that is none
			}
			return g, nil
		},
	})
	if err != nil {
		return nil, err
	}
	facts := catalog.Facts{Tariff: m.Tariff, Start: took, Encoding: cmp.Or(m.Manifest.Encoding, abi.EncodingJSON), Events: eventNames(&m.Manifest)}
	return &build{spec: spec, module: m, facts: facts, program: program, engine: e}, nil
}

func eventNames(m *abi.Manifest) (names []string) {
	for _, e := range m.Events {
		names = append(names, e.Name)
	}
	return names
}

// missingEvents lists the event types of the old module that next knows by no name or
// alias: the log may hold them, and an entity that has one could not be hydrated.
func missingEvents(old []string, next *abi.Manifest) []string {
	known := map[string]bool{}
	for _, e := range next.Events {
		known[e.Name] = true
		for _, a := range e.Aliases {
			known[a] = true
		}
	}
	var missing []string
	for _, name := range old {
		if !known[name] {
			missing = append(missing, fmt.Sprintf("event type %q of the running module is unknown to the new one; keep it or name it as an alias", name))
		}
	}
	return missing
}
