package registry

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/catalog"
	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/internal/latency"
	"github.com/bulkhead-wasm/bulkhead/host/internal/stream"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Service is one service of the set. It is safe for concurrent use.
type Service struct {
	hub      *stream.Hub
	account  *budget.Account  // what the service holds of the host's budget
	patience time.Duration    // wait of requests without a deadline for an engine
	latency  *latency.Service // durations of commands; nil: not counted
	queries  *latency.Service // durations of queries; nil: not counted

	// deploying is held while the service is deployed, deleted or stopped. Lock it before swapping.
	deploying lock
	// swapping is held while the engine is replaced or stopped. Lock it before mu.
	swapping lock

	mu       sync.RWMutex // guards all below; no I/O under it
	spec     service.Spec
	state    service.State
	problem  error     // why it failed, or the answer to commands if stopped; kept during the next attempt
	failed   int       // failed starts in a row
	next     time.Time // time of the next attempt
	since    time.Time
	running  *build           // nil unless running or draining
	manifest *abi.Manifest    // of the last module that ran
	known    catalog.Facts    // of the module, until it runs
	tariff   int              // of the last module that ran
	past     service.Counters // sum of earlier engines
	waiting  waitQueue        // requests while the gate is closed; otherwise empty
	gated    bool
}

// newService makes a service that is starting: requests wait.
func newService(
	spec service.Spec, known catalog.Facts, account *budget.Account, hub *stream.Hub, patience time.Duration,
) *Service {
	return &Service{deploying: newLock(), swapping: newLock(), hub: hub, account: account, spec: spec, known: known,
		patience: patience, state: service.StateStarting, since: time.Now(), gated: true}
}

// lockDeploying waits until no one else deploys or deletes the service, or until ctx ends.
func (s *Service) lockDeploying(ctx context.Context, op string, name service.Name) error {
	if gone := s.deploying.LockWithin(ctx); gone != nil {
		return &service.Error{Op: op, Service: name, Kind: service.KindOf(gone), Message: "the caller gave up while " +
			"another deployment of the service was under way; nothing has changed", Err: gone}
	}
	return nil
}

// Account is the service's account in the host's budget.
func (s *Service) Account() *budget.Account { return s.account }

// HostTurn makes a place for work for the service outside of its sandboxes; nil while no module runs.
func (s *Service) HostTurn() *fair.HostTurn {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.running == nil {
		return nil
	}
	return s.running.program.HostTurn()
}

// Hub has the service's events.
func (s *Service) Hub() *stream.Hub { return s.hub }

// Submit gives a command to the engine; see engine.Submit. While the service starts, or a deployment swaps
// the engine, as many commands wait as the mailboxes could hold, each until its deadline. The duration of
// every command is counted, whoever sent it.
func (s *Service) Submit(c service.Command, reply func(service.Reply, error)) error {
	began, typ := time.Now(), c.Type
	done := func(r service.Reply, err error) {
		s.latency.Observe(typ, time.Since(began))
		reply(r, err)
	}
	return s.pass(c.Deadline, &c.Claim, int64(len(c.Data)+len(c.Metadata)),
		func(b *build) error { return b.engine.Submit(c, done) }, func(err error) { done(service.Reply{}, err) })
}

// Query gives a query to the engine; in all else it is like Submit.
func (s *Service) Query(q service.Query, answer func(service.QueryReply, error)) error {
	began, typ := time.Now(), q.Type
	done := func(r service.QueryReply, err error) {
		s.queries.Observe(typ, time.Since(began))
		answer(r, err)
	}
	return s.pass(q.Deadline, &q.Claim, int64(len(q.Data)),
		func(b *build) error { return b.engine.Query(q, done) }, func(err error) { done(service.QueryReply{}, err) })
}

// Snapshot makes the engine write a snapshot of an entity; in all else it is like Submit.
func (s *Service) Snapshot(key service.Key, done func(error)) error {
	var claim *service.Claim
	return s.pass(time.Time{}, &claim, 0, func(b *build) error { return b.engine.Snapshot(key, done) }, done)
}

// Release makes the engine hydrate an entity at once; see engine.Release. In all else it is like Submit.
func (s *Service) Release(key service.Key, done func(service.Released, error)) error {
	var claim *service.Claim
	return s.pass(time.Time{}, &claim, 0, func(b *build) error { return b.engine.Release(key, done) },
		func(err error) { done(service.Released{}, err) })
}

// Quarantine lists the entities that the running module could not hydrate; see engine.Quarantine.
func (s *Service) Quarantine(after service.Key, limit int) service.QuarantinePage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.running == nil {
		return service.QuarantinePage{}
	}
	return s.running.engine.Quarantine(after, limit)
}

// Quarantined is the number of these entities.
func (s *Service) Quarantined() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.running == nil {
		return 0
	}
	return s.running.engine.Faults().Quarantined
}

// pass gives a request to the running engine, now or when the gate opens. refuse answers a request that
// waited in vain.
func (s *Service) pass(
	deadline time.Time, claim **service.Claim, size int64, enter func(*build) error, refuse func(error),
) error {
	s.mu.RLock()
	if !s.gated {
		defer s.mu.RUnlock()
		if s.running == nil {
			return s.notRunning()
		}
		// Under the lock, so that no request enters an engine after its gate was closed. enter never blocks.
		return enter(s.running)
	}
	s.mu.RUnlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gated { // it opened meanwhile
		if s.running == nil {
			return s.notRunning()
		}
		return enter(s.running)
	}
	patience := s.patience
	if !deadline.IsZero() {
		patience = min(patience, time.Until(deadline))
	}
	if patience <= 0 {
		return &service.Error{Service: s.spec.Service, Kind: service.KindDeadline,
			Message: "the deadline passed before the command ran; nothing was written"}
	}
	if !s.waiting.fits(size, s.spec.Limits, s.spec.Settings.Shards) {
		return &service.Error{Service: s.spec.Service, Kind: service.KindUnavailable, RetryAfter: restart,
			Message: "the service is " + string(s.state) + ", and as many commands wait for it as may; nothing was " +
				"written"}
	}
	if *claim == nil {
		*claim = new(service.Claim)
	}
	s.waiting.add(&waiter{size: size, claim: *claim, enter: enter, refuse: refuse}, patience, s.stillStarting)
	return nil
}

// stillStarting is the answer to a request that waited for the service in vain.
func (s *Service) stillStarting() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &service.Error{Service: s.spec.Service, Kind: service.KindUnavailable, RetryAfter: restart,
		Message: "the service is still " + string(s.state) + "; nothing was written"}
}

// Starting returns the error of a request for an entity that cannot wait for the service, or for a sandbox of
// it, to start. It is nil if the request need not wait.
func (s *Service) Starting(key service.Key) error {
	s.mu.RLock()
	running, gated := s.running, s.gated
	s.mu.RUnlock()
	switch {
	case gated:
		return s.stillStarting()
	case running != nil:
		return running.engine.Starting(key)
	}
	return nil
}

// notRunning says why there is no engine. The caller holds mu.
func (s *Service) notRunning() error {
	e := &service.Error{Service: s.spec.Service, Kind: service.KindUnavailable, Message: "the service is " +
		string(s.state), Err: s.problem}
	var why *service.Error
	switch {
	case s.state == service.StateStopped && errors.As(s.problem, &why):
		return why
	case s.state == service.StateFailed && errors.As(s.problem, &why) && why.Kind == service.KindQuota:
		own := *why // someone must act on it
		own.Service = s.spec.Service
		own.Message = "the service could not be started: " + own.Message + "; nothing was written"
		return &own
	case s.state == service.StateFailed:
		e.Message = "the service could not be started, which is tried again; nothing was written"
		if errors.As(s.problem, &why) && why.Kind != service.KindInternal { // internal causes are not shown
			e.Message = "the service could not be started (" + why.Kind.String() + ": " + why.Message +
				"), which is tried again; nothing was written"
		}
		e.RetryAfter = max(restart, time.Until(s.next))
	}
	return e
}

// runs reports whether the service runs exactly as spec says.
func (s *Service) runs(spec service.Spec) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state == service.StateRunning && s.spec == spec
}

// drain closes the gate and lets the running engine finish its commands, within the given time. Commands that
// do not finish in time are refused, but those that were given to the log may still be written. It returns
// the build, whose engine has ended, or nil if none ran. The caller holds swapping.
func (s *Service) drain(ctx context.Context, limit time.Duration) *build {
	s.mu.RLock()
	runs := s.running != nil
	s.mu.RUnlock()
	if !runs {
		return nil
	}
	old := s.closeGate(service.StateDraining)
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_ = s.stopEngine(within, old)
	return old
}

// run starts a build and opens the gate. If it fails, the service is failed. The caller holds swapping.
func (s *Service) run(ctx context.Context, next *build) error {
	err := next.engine.Start(ctx)
	if err != nil {
		err = errors.Join(err, next.discard(ctx))
		next = nil
	}
	s.openGate(next, err)
	return err
}

// stopEngine drains an engine.
func (s *Service) stopEngine(ctx context.Context, old *build) error {
	err := old.engine.Stop(ctx)
	_, counters := old.engine.Status()
	s.mu.Lock()
	s.past.Add(&counters)
	s.running = nil
	s.mu.Unlock()
	return err
}

// retire drains an engine and frees its program.
func (s *Service) retire(ctx context.Context, old *build) error {
	return errors.Join(s.stopEngine(ctx, old), old.program.Close(context.WithoutCancel(ctx)))
}

// closeGate makes new tasks wait, and returns the running engine.
func (s *Service) closeGate(state service.State) *build {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gated = true
	if s.running != nil {
		s.state, s.since = state, time.Now()
	}
	return s.running
}

// openGate lets the waiting requests into the next engine or, if that is nil, refuses them with cause.
func (s *Service) openGate(next *build, cause error) {
	s.mu.Lock()
	s.running, s.problem, s.since, s.failed, s.next = next, cause, time.Now(), 0, time.Time{}
	switch {
	case next != nil:
		s.account.SetLimit(budget.DiskBytes, next.spec.Limits.WithDefaults().DiskBytes)
		s.state, s.spec, s.manifest, s.tariff, s.known = service.StateRunning, next.spec, &next.module.Manifest,
			next.module.Tariff, next.facts
	case s.state != service.StateStopped:
		s.state = service.StateFailed
	}
	answers := s.openLocked()
	if next != nil {
		s.latency.Know(typesOf(next.module.Manifest.Commands))
		s.queries.Know(typesOf(next.module.Manifest.Queries))
	}
	s.mu.Unlock()
	for _, answer := range answers {
		answer()
	}
}

// openLocked opens the gate. The caller holds mu; after releasing it, it calls the answers for those refused.
func (s *Service) openLocked() (answers []func()) {
	s.gated = false
	return s.waiting.flush(s.running, s.notRunning)
}

// setStarting records that an attempt to start is in progress: requests wait for it.
func (s *Service) setStarting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != service.StateStarting {
		s.state, s.since = service.StateStarting, time.Now()
	}
	s.next, s.gated = time.Time{}, true
}

// setFailed records the reason for a failed start, the number of failures, and the time of the next attempt.
// Requests are refused until then. The caller answers those that have waited.
func (s *Service) setFailed(err error, failed int, next time.Time) (answers []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.problem, s.since, s.failed, s.next = service.StateFailed, err, time.Now(), failed, next
	return s.openLocked()
}

// setStopped stops a service that has not started.
func (s *Service) setStopped(cause error) {
	s.mu.Lock()
	s.state, s.problem, s.gated = service.StateStopped, cause, false
	s.mu.Unlock()
}

// rest drains the engine, and refuses commands with cause from now on. Subscriptions go on, and get the
// events of a later deployment. It does not wait for sandboxes that are starting. The caller holds deploying,
// and has dropped the attempts to start the service.
func (s *Service) rest(ctx context.Context, cause error) error {
	s.swapping.Lock()
	defer s.swapping.Unlock()
	old := s.closeGate(service.StateDraining)
	var err error
	if old != nil {
		old.engine.CancelStarts()
		err = s.retire(ctx, old)
	}
	s.mu.Lock()
	s.state = service.StateStopped
	s.mu.Unlock()
	s.openGate(nil, cause)
	s.hub.Rest()
	return err
}

// stop is rest for a service that ends: it also ends the subscriptions.
func (s *Service) stop(ctx context.Context, cause error) error {
	err := s.rest(ctx, cause)
	s.hub.Close(cause)
	s.account.Set(budget.DiskBytes, 0) // it was measured, not taken
	if held := s.account.Close(); held != nil && err == nil {
		err = service.Errorf(service.KindInternal, "the service %s was stopped and still held %v", s.spec.Service, held)
	}
	return err
}

// uncount removes the service's counters.
func (s *Service) uncount() {
	s.latency.Close()
	s.queries.Close()
}

// State is the state, as in Status.
func (s *Service) State() service.State {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state
}

// Name is the service's name.
func (s *Service) Name() service.Name {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.spec.Service
}

// Accepts describes the data that the service accepts.
func (s *Service) Accepts() service.Accepts {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a := service.Accepts{CommandBytes: s.spec.Limits.CommandBytes, Encoding: s.known.Encoding, State: s.state}
	if s.manifest != nil {
		a.Encoding = cmp.Or(s.manifest.Encoding, abi.EncodingJSON)
	}
	return a
}

// Status is the present status of the service, without its position in the log.
func (s *Service) Status() service.Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := service.Status{Spec: s.spec, State: s.state, Since: s.since, Counters: s.past,
		SandboxBytes: s.account.Used(budget.SandboxBytes)}
	st.Failed, st.NextAttempt = s.failed, s.next
	if s.problem != nil && s.state != service.StateStopped { // being stopped is not a problem
		st.Problem = s.problem.Error()
	}
	st.Manifest.Encoding, st.Manifest.StateSchema = s.known.Encoding, s.known.StateSchema
	if s.manifest != nil {
		st.Manifest, st.Tariff = *s.manifest, s.tariff
	}
	if s.running != nil {
		shards, counters := s.running.engine.Status()
		st.Shards = shards
		st.Counters.Add(&counters)
		st.Faults = s.running.engine.Faults()
		memory := s.running.program.Memory()
		st.CodeBytes, st.ImageBytes, st.TableBytes = memory.Code, memory.Image, memory.Tables
	}
	return st
}
