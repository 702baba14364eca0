package supervisor

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/stream"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Service is one service of the set. It may be used concurrently.
type Service struct {
	hub     *stream.Hub
	account *budget.Account // below the host's

	// deploying is held while the service is deployed, deleted or stopped. Lock it
	// before mu.
	deploying sync.Mutex

	mu       sync.RWMutex // guards all below; no I/O under it
	spec     service.Spec
	state    service.State
	problem  error // why it is failed, or stopped
	since    time.Time
	running  *build           // nil unless running or draining
	manifest *abi.Manifest    // of the last module that ran
	tariff   int              // the same
	past     service.Counters // of engines that are gone
	waiting  []func()         // tasks behind the closed gate, in order; nil while it is open
	gated    bool
}

func newService(spec service.Spec, hub *stream.Hub, account *budget.Account) *Service {
	return &Service{hub: hub, account: account, spec: spec, state: service.StateStarting, since: time.Now()}
}

// Account is the service's in the host's budget.
func (s *Service) Account() *budget.Account { return s.account }

// Hub has the service's events.
func (s *Service) Hub() *stream.Hub { return s.hub }

// Submit hands a command to the engine; see engine.Submit. While a deployment
// swaps the engine, commands wait, as many as the mailboxes take.
func (s *Service) Submit(c service.Command, done func(service.Reply, error)) error {
	return s.pass(func(b *build) error { return b.engine.Submit(c, done) }, func(err error) { done(service.Reply{}, err) })
}

// Query hands a query to the engine, like Submit.
func (s *Service) Query(q service.Query, done func(service.QueryReply, error)) error {
	return s.pass(func(b *build) error { return b.engine.Query(q, done) }, func(err error) { done(service.QueryReply{}, err) })
}

// Snapshot has the engine put a snapshot of an entity into the journal, like Submit.
func (s *Service) Snapshot(key service.Key, done func(error)) error {
	return s.pass(func(b *build) error { return b.engine.Snapshot(key, done) }, done)
}

// pass has task done by the running engine, now or when the gate opens. refuse is
// called for a task that waited in vain.
func (s *Service) pass(task func(*build) error, refuse func(error)) error {
	s.mu.RLock()
	if !s.gated {
		defer s.mu.RUnlock()
		if s.running == nil {
			return s.notRunning()
		}
		// Under the lock, so that no task enters an engine after its gate was closed.
		// The engine's part never blocks.
		return task(s.running)
	}
	s.mu.RUnlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gated { // it opened in between
		if s.running == nil {
			return s.notRunning()
		}
		return task(s.running)
	}
	if len(s.waiting) >= s.spec.Limits.MailboxCommands*max(1, s.spec.Settings.Shards) {
		return &service.Error{Service: s.spec.Service, Kind: service.KindOverloaded, RetryAfter: time.Second,
			Message: "a deployment is under way and its waiting room is full; try again"}
	}
	s.waiting = append(s.waiting, func() {
		b := s.running
		if b == nil {
			refuse(s.notRunning())
			return
		}
		if err := task(b); err != nil {
			refuse(err)
		}
	})
	return nil
}

// notRunning says why there is no engine. The caller holds mu.
func (s *Service) notRunning() error {
	e := &service.Error{Service: s.spec.Service, Kind: service.KindUnavailable, Message: "the service is " + string(s.state), Err: s.problem}
	if s.state == service.StateStarting {
		e.RetryAfter = time.Second
	}
	return e
}

// fits says whether a module with that manifest can go on with the service's log.
func (s *Service) fits(next *abi.Manifest) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.manifest == nil {
		return nil
	}
	if missing := missingEvents(s.manifest, next); len(missing) > 0 {
		return &service.Error{Op: "deploy", Service: s.spec.Service, Kind: service.KindConflicting,
			Message: "the new module does not know all events of the running one", Reasons: missing}
	}
	return nil
}

// runs reports whether the service runs exactly as spec says.
func (s *Service) runs(spec service.Spec) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state == service.StateRunning && s.spec == spec
}

// replace swaps the running engine, if any, for the built one. The caller holds
// deploying. When it fails, the service is failed.
func (s *Service) replace(ctx context.Context, next *build, drain time.Duration) error {
	old := s.closeGate(service.StateDraining)
	if old != nil {
		within, cancel := context.WithTimeout(ctx, drain)
		// What could not be drained in time has been refused; the new engine starts
		// anyway, as whatever reached the log is seen by hydration.
		_ = s.retire(within, old)
		cancel()
	}
	err := next.engine.Start(ctx)
	if err != nil {
		err = errors.Join(err, next.discard(ctx))
		next = nil
	}
	s.openGate(next, err)
	return err
}

// retire drains an engine and gives its program back.
func (s *Service) retire(ctx context.Context, old *build) error {
	err := errors.Join(old.engine.Stop(ctx), old.program.Close(context.WithoutCancel(ctx)))
	_, counters := old.engine.Status()
	s.mu.Lock()
	s.past = sum(s.past, counters)
	s.running = nil
	s.mu.Unlock()
	return err
}

// closeGate makes new tasks wait and returns the engine that runs.
func (s *Service) closeGate(state service.State) *build {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gated = true
	if s.running != nil {
		s.state, s.since = state, time.Now()
	}
	return s.running
}

// openGate lets those who wait in: to the next engine, or to be refused for cause.
func (s *Service) openGate(next *build, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.problem, s.since = next, cause, time.Now()
	switch {
	case next != nil:
		s.account.SetLimit(budget.DiskBytes, next.spec.Limits.WithDefaults().DiskBytes)
		s.state, s.spec, s.manifest, s.tariff = service.StateRunning, next.spec, &next.module.Manifest, next.module.Tariff
	case s.state != service.StateStopped:
		s.state = service.StateFailed
	}
	for _, task := range s.waiting {
		task()
	}
	s.waiting, s.gated = nil, false
}

// setFailed records why the service could not be started.
func (s *Service) setFailed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.problem, s.since = service.StateFailed, err, time.Now()
}

// stop drains the engine and ends the subscriptions. The caller holds deploying.
func (s *Service) stop(ctx context.Context, cause error) error {
	old := s.closeGate(service.StateDraining)
	var err error
	if old != nil {
		err = s.retire(ctx, old)
	}
	s.mu.Lock()
	s.state = service.StateStopped
	s.mu.Unlock()
	s.openGate(nil, cause)
	s.hub.Close(cause)
	return err
}

// Status is what the service does now, but for its position in the log.
func (s *Service) Status() service.Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := service.Status{Spec: s.spec, State: s.state, Since: s.since, Counters: s.past}
	if s.problem != nil {
		st.Problem = s.problem.Error()
	}
	if s.manifest != nil {
		st.Manifest, st.Tariff = *s.manifest, s.tariff
	}
	if s.running != nil {
		shards, counters := s.running.engine.Status()
		st.Shards, st.Counters = shards, sum(st.Counters, counters)
	}
	return st
}

func sum(a, b service.Counters) service.Counters {
	a.Committed += b.Committed
	a.Events += b.Events
	a.Rejected += b.Rejected
	a.Failed += b.Failed
	a.Overloaded += b.Overloaded
	a.Repeated += b.Repeated
	a.Unknown += b.Unknown
	a.Queries += b.Queries
	a.Hydrated += b.Hydrated
	a.Resets += b.Resets
	a.Recycled += b.Recycled
	a.SnapshotsTaken += b.SnapshotsTaken
	a.SnapshotsUsed += b.SnapshotsUsed
	a.SnapshotsRefused += b.SnapshotsRefused
	a.Fuel += b.Fuel
	return a
}
