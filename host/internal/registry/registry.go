// Package registry keeps the set of services: it starts them, swaps their modules and stops them. Package
// engine runs what happens inside one service.
//
// These are the steps of a deployment: check and compile the module; verify it against the service's log;
// close the service's gate; drain the old engine; check the module against what was written meanwhile; record
// the deployment in the catalog; start the new engine; open the gate. A failure before the record leaves the
// service unchanged; if the old module was drained, it goes on in new sandboxes. After the record, a crash
// starts the new module. Commands that arrive while the gate is closed wait in order, and their number is
// bounded. No command is lost, and none is handled twice.
package registry

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/catalog"
	"github.com/bulkhead-wasm/bulkhead/host/internal/engine"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gate"
	"github.com/bulkhead-wasm/bulkhead/host/internal/latency"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/internal/stream"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Journal is the part of [commitlog.Journal] that a registry needs.
type Journal interface {
	engine.Log
	stream.Reader
	gate.Log
	Retentions(log journal.LogName) uint64
}

// Options are what a registry is made of. All fields are required, and all numbers are above 0.
type Options struct {
	Journal Journal
	Catalog *catalog.Catalog
	Runtime *sandbox.Runtime
	Logger  *slog.Logger
	// Account is the host's account in the budget. Each service has an account below it.
	Account *budget.Account
	// Ceiling holds the maximum limits of any service, and Budget the capacity of a connection.
	Ceiling service.Ceiling
	Budget  service.Budget
	// RingBytes bounds each service's ring of recent events.
	RingBytes int64
	// Rings bounds the rings of all services together.
	Rings *stream.Rings
	// Shared accounts for events that subscribers hold while they write them. Each service has an account
	// below it.
	Shared *budget.Account
	// Latencies counts the durations of the commands of all services, and QueryLatencies those of queries.
	Latencies      *latency.Table
	QueryLatencies *latency.Table
	// Backlog reads events for subscribers that are older than their ring.
	Backlog *stream.Backlog
	// DrainTime is how long an engine's commands may still run when a deployment replaces the engine or its
	// service is deleted.
	DrainTime time.Duration
	// OpenTime is how long the new module of a deployment may open snapshots of entities whose events are
	// deleted.
	OpenTime time.Duration
	// StartPlaces is how many services that start quickly may start at a time, and also how many that start
	// slowly.
	StartPlaces int
	// Retry is the wait after a failed start of a service, or of a sandbox that it needs later. RareRetry is
	// the wait if another attempt is not expected to help.
	Retry     lifecycle.Backoff
	RareRetry time.Duration
	// Patience is how long a request without a deadline waits for its service to start.
	Patience time.Duration
}

// Registry is the set of services. It is safe for concurrent use.
type Registry struct {
	opt     Options
	starter *starter
	modules *budget.Account // bytes of stored modules in memory, to be compiled
	life    context.Context // ended by Close
	end     context.CancelFunc
	runs    lifecycle.Life

	verifying     chan struct{} // holds a token for each verification that runs
	verifications *budget.Account

	mu       sync.RWMutex // guards all below; held only to look up and change the set
	services map[service.Name]*Service
	closed   bool
}

// New makes a registry without services.
func New(o Options) *Registry {
	s := &Registry{opt: o, modules: o.Account.Child("stored modules", nil), services: map[service.Name]*Service{},
		verifying: make(chan struct{}, maxVerifying), verifications: o.Account.Child("verifications", nil)}
	s.life, s.end = context.WithCancel(context.Background())
	s.starter = newStarter(o, s.start)
	return s
}

// StartAll begins to start every service of the catalog, and returns immediately. They are StateStarting
// until they run. One that cannot be started is StateFailed with the reason, and is tried again. Services
// that were stopped are StateStopped. It is called once.
func (s *Registry) StartAll() {
	var all []*start
	for _, d := range s.opt.Catalog.Deployments() {
		svc, err := s.add(d.Spec, d.Facts)
		if err != nil {
			break // closed meanwhile
		}
		all = append(all, &start{svc: svc, spec: d.Spec, expected: d.Facts.Start +
			loadTime(s.opt.Catalog.Size(d.Spec.Module))})
	}
	for _, d := range s.opt.Catalog.Stopped() {
		svc, err := s.add(d.Spec, d.Facts)
		if err != nil {
			break
		}
		svc.setStopped(stopped(d.Spec.Service))
	}
	s.starter.begin(all)
}

// stopped is the answer to commands for a stopped service.
func stopped(name service.Name) error {
	return &service.Error{Service: name, Kind: service.KindConflicting,
		Message: "the service is stopped and takes no commands; its events can be read, and deploying it starts it " +
			"again"}
}

// loadTime estimates how long it takes to verify, rewrite and load a module of size bytes: 30 ms per
// megabyte.
func loadTime(size int64) time.Duration { return time.Duration(size) * 30 * time.Nanosecond }

// Tried is closed when every service that StartAll found has been tried once, and so either runs or has
// failed.
func (s *Registry) Tried() <-chan struct{} { return s.starter.tried }

// start builds what was recorded from the stored module, checks it against the service's log and runs it. If
// another deployment does so first, it ends ctx.
func (s *Registry) start(ctx context.Context, x *start) error {
	module, err := s.stored(x.spec.Module)
	if err != nil {
		return err
	}
	built, err := s.build(ctx, x.svc, x.spec, module, true, func(Stage, int64, int64) {})
	if err != nil {
		return err
	}
	if err := fits(ctx, s.recorded(), built); err != nil {
		return errors.Join(err, built.discard(context.WithoutCancel(ctx)))
	}
	if err := s.opt.Catalog.Started(ctx, x.spec, built.facts); err != nil && ctx.Err() == nil {
		s.opt.Logger.Warn("facts of the service's module, such as the tariff of its fuel, differ from those in "+
			"the record of its deployment, which could not be updated",
			"service", x.spec.Service, "tariff", built.module.Tariff, "error", err)
	}
	x.svc.swapping.Lock()
	defer x.svc.swapping.Unlock()
	if err := ctx.Err(); err != nil {
		return errors.Join(err, built.discard(context.WithoutCancel(ctx)))
	}
	return x.svc.run(ctx, built)
}

// add adds a service that does not run to the set, unless it is already there.
func (s *Registry) add(spec service.Spec, known catalog.Facts) (*Service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, service.Errorf(service.KindUnavailable, "the host is shutting down")
	}
	svc := s.services[spec.Service]
	if svc == nil {
		svc = newService(spec, known, s.opt.Account.Child(string(spec.Service), nil), stream.New(stream.Options{
			Service: spec.Service, Reader: s.opt.Journal, RingBytes: s.opt.RingBytes, Rings: s.opt.Rings,
			Backlog: s.opt.Backlog,
			Account: s.opt.Shared.Child("events of "+string(spec.Service), nil),
		}), s.opt.Patience)
		svc.latency, svc.queries = s.opt.Latencies.Service(spec.Service), s.opt.QueryLatencies.Service(spec.Service)
		s.services[spec.Service] = svc
	}
	return svc, nil
}

// Get finds a service, which may be stopped. KindNotFound if there is none.
func (s *Registry) Get(name service.Name) (*Service, error) {
	s.mu.RLock()
	svc := s.services[name]
	s.mu.RUnlock()
	if svc == nil {
		return nil, notFound(name)
	}
	return svc, nil
}

func notFound(name service.Name) error {
	return &service.Error{Service: name, Kind: service.KindNotFound, Message: "no service of this name is deployed"}
}

// All lists the services by name.
func (s *Registry) All() []*Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*Service
	for _, name := range slices.Sorted(maps.Keys(s.services)) {
		all = append(all, s.services[name])
	}
	return all
}

// Delete records that a service shall not run, and stops it. Commands that it has accepted may run for
// DrainTime, as in a deployment. After that, those that have not begun are refused, and calls in progress are
// canceled. The log is kept and can be read, and a later deployment under the same name continues it. Once
// the deletion is recorded it goes on even if its caller goes away. Deleting a stopped service changes
// nothing, unless it has no readable events: then it is removed.
func (s *Registry) Delete(ctx context.Context, name service.Name) error {
	svc, err := s.Get(name)
	if err != nil {
		return err
	}
	if err := svc.lockDeploying(ctx, "delete", name); err != nil {
		return err
	}
	defer svc.deploying.Unlock()
	if now, err := s.Get(name); err != nil || now != svc {
		return notFound(name) // another call was first
	}
	if svc.State() == service.StateStopped {
		return s.forget(ctx, svc)
	}
	if err := s.opt.Catalog.Delete(ctx, name); err != nil {
		return err
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opt.DrainTime)
	defer cancel()
	select {
	case <-s.starter.drop(svc): // so that it no longer holds anything
	case <-within.Done():
	}
	err = svc.rest(within, stopped(name))
	if err != nil {
		// Even so the service is stopped, and every command has had its answer.
		s.opt.Logger.Warn("a service was stopped before all its commands had ended", "service", name, "error",
			err)
	}
	return nil
}

// forget removes a stopped service from the set if it has no readable events. The caller holds deploying.
func (s *Registry) forget(ctx context.Context, svc *Service) error {
	name := svc.Name()
	log := journal.LogName(name)
	if s.opt.Journal.Head(log) >= s.opt.Journal.First(log) {
		return nil
	}
	// Kept events are not in the log, but can be read.
	switch types, err := s.opt.Journal.EventTypes(ctx, log); {
	case err != nil:
		return service.FromJournal{Use: service.JournalRead, Op: "delete", Service: name,
			Otherwise: "whether the service has events left cannot be found out at present; nothing has changed"}.Of(
			err)
	case len(types) > 0:
		return nil
	}
	if err := s.opt.Catalog.Delete(ctx, name); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.services, name)
	s.mu.Unlock()
	svc.uncount()
	return svc.stop(ctx, notFound(name))
}

// Close stops all services at the same time. Their commands in flight get their answers; commands that wait
// for a start are refused. When ctx ends, all commands that have not begun are refused. cause is the error
// for subscribers and later commands. It keeps the contract of package lifecycle.
func (s *Registry) Close(ctx context.Context, cause error) error {
	return s.runs.Stop(ctx, func(ctx context.Context, _ bool) error { return s.closeAll(ctx, cause) })
}

func (s *Registry) closeAll(ctx context.Context, cause error) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.starter.close()
	var all sync.WaitGroup
	var mu sync.Mutex // guards errs
	var errs []error
	for _, svc := range s.All() {
		all.Go(func() {
			svc.deploying.Lock() // a deployment in progress has been canceled
			defer svc.deploying.Unlock()
			// The host's next registry adds to these counters.
			svc.latency.Leave()
			svc.queries.Leave()
			if err := svc.stop(ctx, cause); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
