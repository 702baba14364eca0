package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/engine"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Stage is a step of a deployment, for progress.
type Stage string

// The steps of a deployment that come after those of [sandbox.Stage].
const (
	StageStoring  Stage = "storing"
	StageStarting Stage = "starting"
	StageDraining Stage = "draining"
	StageReady    Stage = "ready"
)

// Progress hears how a deployment goes on: which stage, and how much of it is done.
type Progress func(stage Stage, done, total int64)

// build is a module ready to run as a service: everything but started.
type build struct {
	spec    service.Spec
	module  service.Module
	program *sandbox.Program
	engine  *engine.Engine
}

// discard gives back a build that will not be used.
func (b *build) discard(ctx context.Context) error {
	return errors.Join(b.engine.Stop(ctx), b.program.Close(ctx))
}

// Deploy makes module run as spec says and returns when it does. Deploying what
// already runs changes nothing. One deployment of a service goes at a time.
func (s *Supervisor) Deploy(ctx context.Context, spec service.Spec, module []byte, progress Progress) (*Service, error) {
	if progress == nil {
		progress = func(Stage, int64, int64) {}
	}
	svc, fresh, err := s.lockForDeploy(spec)
	if err != nil {
		return nil, err
	}
	defer svc.deploying.Unlock()
	if svc.runs(spec) {
		progress(StageReady, 1, 1)
		return svc, nil
	}
	err = s.deploy(ctx, svc, spec, module, progress)
	if err != nil && fresh {
		s.mu.Lock()
		if s.services[spec.Service] == svc && !s.recorded(spec.Service) {
			delete(s.services, spec.Service)
			svc.account.Close()
		}
		s.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	progress(StageReady, 1, 1)
	return svc, nil
}

// lockForDeploy finds or adds the service and takes its deployment lock. fresh says
// that it was not there.
func (s *Supervisor) lockForDeploy(spec service.Spec) (svc *Service, fresh bool, err error) {
	for {
		_, err := s.Get(spec.Service)
		fresh = err != nil
		if svc, err = s.add(spec); err != nil {
			return nil, false, err
		}
		svc.deploying.Lock()
		if now, err := s.Get(spec.Service); err == nil && now == svc {
			return svc, fresh, nil
		}
		svc.deploying.Unlock() // deleted while we waited
	}
}

func (s *Supervisor) recorded(name service.Name) bool {
	return slices.ContainsFunc(s.opt.Catalog.Specs(), func(spec service.Spec) bool { return spec.Service == name })
}

func (s *Supervisor) deploy(ctx context.Context, svc *Service, spec service.Spec, module []byte, progress Progress) error {
	built, err := s.build(ctx, svc, spec, module, progress)
	if err != nil {
		return err
	}
	progress(StageStoring, 0, int64(len(module)))
	if _, err := s.opt.Catalog.Put(module); err != nil {
		return errors.Join(err, built.discard(ctx))
	}
	if err := s.opt.Catalog.Deploy(ctx, spec, built.module.Tariff); err != nil {
		return errors.Join(err, built.discard(ctx))
	}
	progress(StageDraining, 0, 1)
	// From here on the deployment stands, so its caller going away does not stop it.
	return svc.replace(context.WithoutCancel(ctx), built, s.opt.DrainTime)
}

// build compiles and starts sandboxes, one a shard, and makes an engine of them.
func (s *Supervisor) build(ctx context.Context, svc *Service, spec service.Spec, module []byte, progress Progress) (_ *build, err error) {
	if err := spec.Validate(); err != nil { // what the log says may come from elsewhere, and be anything
		return nil, err
	}
	program, err := s.opt.Runtime.Compile(ctx, spec.Service, module, spec.Limits, spec.Settings, func(stage sandbox.Stage, done, total int64) {
		progress(Stage(stage), done, total)
	})
	if err != nil {
		return nil, err
	}
	var guests []engine.Guest
	defer func() {
		if err == nil {
			return
		}
		for _, g := range guests {
			err = errors.Join(err, g.Close(ctx))
		}
		err = errors.Join(err, program.Close(ctx))
	}()
	m := program.Module()
	if err := svc.fits(&m.Manifest); err != nil {
		return nil, err
	}
	logger := sandbox.SlogLogger(s.opt.Logger)
	for i := range spec.Settings.Shards {
		progress(StageStarting, int64(i), int64(spec.Settings.Shards))
		g, err := program.Instantiate(ctx, logger)
		if err != nil {
			return nil, err
		}
		guests = append(guests, g)
	}
	e, err := engine.New(engine.Options{
		Spec: spec, Manifest: &m.Manifest, Guests: guests, Log: s.opt.Journal, Publish: svc.hub, Account: svc.account, Logger: s.opt.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &build{spec: spec, module: m, program: program, engine: e}, nil
}

// missingEvents lists the event types of old that next knows by no name or alias:
// the log may hold them, and an entity that has one could not be hydrated.
func missingEvents(old, next *abi.Manifest) []string {
	known := map[string]bool{}
	for _, e := range next.Events {
		known[e.Name] = true
		for _, a := range e.Aliases {
			known[a] = true
		}
	}
	var missing []string
	for _, e := range old.Events {
		if !known[e.Name] {
			missing = append(missing, fmt.Sprintf("event type %q of the running module is unknown to the new one; keep it or name it as an alias", e.Name))
		}
	}
	return missing
}
