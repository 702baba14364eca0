package engine

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// shard owns one guest and carries out the tasks of its mailbox, one by one.
//
// Invariant: the guest's state of an entity is what was appended to the log, durable or not.
// Whenever that is in doubt, the entity is dropped or the guest is reset.
type shard struct {
	engine *Engine
	number int
	name   journal.LogName
	logger *slog.Logger
	mail   *mailbox
	ctx    context.Context // set by Start; canceled when Stop ends, or when its context ends
	starts context.Context // of sandbox starts; child of ctx, canceled by CancelStarts
	health health

	counters counters
	pace     pace
	// void is set by the log's completion goroutine when an outcome of this shard was not
	// written: all states of the shard may depend on it. Before its next task, the shard clears
	// void and forgets all states. So neither goroutine waits for the other.
	void atomic.Bool

	// All below is owned by the shard's goroutine.

	guest      Guest // nil until the first task
	broken     bool  // the guest must not be called: it does not exist, or has to be reset
	why        error // of the last attempt to make or reset it; nil if that succeeded
	residents  *residents
	snapshots  snapshots
	faults     faultTable
	hydrations hydrations
	keepAfter  time.Duration // the constant keepAfter, except in tests
	maxStep    int           // the constant stepEvents, except in tests
	random     random
	time       journal.UnixNano // of the last call; never decreases
	checking   checking
}

func newShard(e *Engine, number int) *shard {
	l := e.options.Spec.Limits
	s := &shard{
		engine: e, number: number, broken: true,
		name:      journal.LogName(e.options.Spec.Service),
		logger:    e.options.Logger.With("shard", number),
		mail:      newMailbox(l.MailboxCommands, l.MailboxBytes),
		residents: newResidents(l.ResidentEntities, e.options.Account),
		pace:      pace{origin: time.Now()},
		keepAfter: keepAfter, maxStep: stepEvents,
	}
	s.checking.do, s.checking.pause = s.checking.check, s.checking.letOthers
	s.health.set(service.StateIdle, service.Attempts{})
	return s
}

// run carries out tasks until the mailbox is closed and empty. Between two tasks it makes steps of
// long hydrations, which get half of its time.
func (s *shard) run() {
	var group []*task
	for {
		var open bool
		group, open = s.mail.take(group)
		switch {
		case len(group) > 0:
			s.carryOutAll(group)
		case open && len(s.hydrations.order) > 0 || s.hydrations.waits():
			s.hydrateNext()
			s.counted()
		case !open:
			return
		default:
			<-s.mail.wake
		}
	}
}

func (s *shard) carryOutAll(group []*task) {
	began := s.pace.begin()
	for i, t := range group {
		group[i] = nil
		s.mail.begun(t)
		s.carryOut(t)
		s.recycle()
		if w := &s.hydrations; len(w.order) > 0 && time.Since(w.ended) >= w.took {
			s.hydrateNext()
		}
	}
	s.pace.end(began, len(group))
	if s.guest != nil {
		s.counters.memory.Store(s.guest.MemoryBytes())
	}
}

func (s *shard) carryOut(t *task) {
	// Before begin, because this may take long: meanwhile the task's timer can refuse it.
	if s.ctx.Err() == nil {
		switch {
		case s.void.Load():
			// Some state depends on an outcome that was not written, so all are forgotten.
			s.void.Store(false) // first: a failure from now on sets it again
			s.reset()
		case s.broken && t.wanted():
			s.renewIfDue()
		}
	}
	if !t.begin() {
		return
	}
	if s.ctx.Err() != nil {
		t.fail(s.unavailable(nil, "the service was stopped before the command ran; nothing was written"))
		return
	}
	now := s.engine.options.Clock()
	if d := t.command.Deadline; !d.IsZero() && !time.Unix(0, int64(now)).Before(d) {
		t.fail(s.engine.errorf(service.KindDeadline, "the deadline passed before the command ran; nothing was written"))
		return
	}
	s.time = max(s.time, now)
	switch {
	case t.answer != nil:
		s.query(t)
	case t.release:
		s.tryAgain(t)
	case t.snapshot != nil:
		s.keep(t)
	default:
		s.command(t)
	}
	s.counted()
}

// tryAgain hydrates an entity on request, whether its next attempt is due or not.
func (s *shard) tryAgain(t *task) {
	if s.faults.retry(t.command.Key) {
		t.quarantined = true
	}
	switch _, err, parked := s.resident(t); {
	case parked:
	case err != nil:
		t.fail(err)
	default:
		t.snapshot(nil)
	}
}

// counted publishes the shard's present figures.
func (s *shard) counted() {
	s.counters.resident.Store(int64(s.residents.len()))
	if s.guest != nil {
		s.counters.fuel.Store(s.guest.Fuel())
	}
}

// command carries out a command up to its append to the log.
func (s *shard) command(t *task) {
	c := &t.command
	if c.ID == "" {
		c.ID, t.generated = s.random.commandID(), true
	} else if !t.generated && s.look(s.ctx, t) {
		return
	}
	if err := s.fits(t, s.engine.options.Schemas.Command(t.typ)); err != nil {
		t.fail(err)
		return
	}
	if err := s.engine.options.Log.Accepts(s.name); err != nil {
		t.fail(s.refused(t, err)) // so that the guest does no useless work
		return
	}
	if err := s.mayWrite(s.time); err != nil {
		t.fail(err)
		return
	}
	e, err, parked := s.resident(t)
	if parked {
		return
	}
	if err != nil {
		t.fail(err)
		return
	}
	t.version = e.version
	if c.Expected != nil && *c.Expected != e.version {
		at := e.version
		conflict := s.engine.errorf(service.KindVersionConflict, "entity %q is at version %d, expected was %d; "+
			"nothing was written", c.Key, at, *c.Expected)
		conflict.Version = &at
		t.refusal = conflict
		s.settle(t)
		return
	}
	call := service.GuestCall{
		Slot: e.slot, Type: t.typ, Version: e.version, Time: s.time, Seed: s.random.seed(),
		ID: c.ID, Metadata: c.Metadata, Data: c.Data, Deadline: c.Deadline, Gone: c.Gone,
	}
	s.guest.About(service.About{Key: c.Key, Command: c.ID, Trace: service.TraceOf(c.Metadata)})
	outcome, failure := s.guest.Handle(s.ctx, call)
	if failure != nil {
		t.fail(s.failed(e, t.command.ID, failure))
		return
	}
	t.outcome = outcome
	if outcome.Rejected() {
		s.settle(t)
		return
	}
	commit := outcome.Commit(c, e.version)
	commit.GeneratedID = t.generated
	commit.Command.Time, commit.Command.Seed = call.Time, call.Seed
	commit.Command.Module = journal.Digest(s.engine.options.Spec.Module)
	if s.engine.options.Spec.Settings.OmitCommandData {
		commit.Command.Data = nil
	}
	t.commit = &commit
	e.version += service.Version(len(commit.Events))
	s.engine.disk.spent(commitBytes(&commit))
	s.engine.inflight.add()
	if err := s.engine.options.Log.Append(s.ctx, t.commit, t.appended); err != nil {
		s.engine.inflight.done()
		s.drop(e) // its state stays ahead of the log
		t.fail(s.refused(t, err))
		return
	}
	if s.due(e, false) {
		_ = s.snapshot(e)
	}
}

// query carries out a query up to the point where its answer waits for the log.
func (s *shard) query(t *task) {
	if err := s.fits(t, s.engine.options.Schemas.Query(t.typ)); err != nil {
		s.counters.queries.Add(1)
		t.fail(err)
		return
	}
	e, err, parked := s.resident(t)
	if parked {
		return // the task comes here again, and is counted then
	}
	s.counters.queries.Add(1)
	if err != nil {
		t.fail(err)
		return
	}
	t.version = e.version
	s.guest.About(service.About{Key: t.command.Key})
	outcome, failure := s.guest.Query(s.ctx, service.GuestQuery{Slot: e.slot, Type: t.typ, Version: e.version,
		Time: s.time, Data: t.command.Data,
		Deadline: t.command.Deadline, Gone: t.command.Gone})
	if failure != nil {
		t.fail(s.failed(e, t.command.ID, failure))
		return
	}
	if c := t.command.Carrier; c != nil {
		// The reply may wait for the log as long as a commit takes, and many others with it.
		t.command.Data = nil
		c.Unload()
		if err := c.Load(outcome.ReplyBytes()); err != nil {
			t.fail(s.engine.own(err))
			return
		}
	}
	t.outcome = outcome
	s.settle(t)
	if s.due(e, false) { // its history is long, and has no recent snapshot
		_ = s.snapshot(e)
	}
}

// failed repairs the guest after a call that failed. e is the entity of the call; nil if it is not
// in the table. id is the id of the command; empty if it was none.
func (s *shard) failed(e *entity, id service.CommandID, err error) *service.Error {
	own := s.engine.own(err)
	if s.ctx.Err() != nil {
		s.broken = true // not worth a reset
		return s.unavailable(err, "the service was stopped while the command ran; nothing was written")
	}
	s.counters.failed.Add(1)
	if own.Kind == service.KindFault {
		if e != nil {
			s.drop(e)
		}
		return own
	}
	level := slog.LevelWarn
	if own.Kind == service.KindCanceled || own.Kind == service.KindOverloaded {
		level = slog.LevelInfo // the module is not to blame
	}
	about := []any{"kind", own.Kind.String(), "error", own, "detail", own.Detail}
	if e != nil {
		about = append(about, "entity", string(e.key))
	}
	if id != "" {
		about = append(about, "command_id", string(id))
	}
	s.logger.Log(s.ctx, level, "the guest failed and is reset", about...)
	s.reset()
	return own
}

// reset returns the guest to its initial state. If that fails the guest is broken, and usable tries again later.
func (s *shard) reset() {
	s.residents.forget()
	s.startOver()
	s.counters.resident.Store(0)
	s.counters.resets.Add(1)
	s.renew()
}

// recycle resets a guest that has grown too large. A guest's memory never shrinks, so without this
// a guest that leaks would fail in the end. Its entities are hydrated when next used, and no client
// notices.
func (s *shard) recycle() {
	if s.broken || s.ctx.Err() != nil || s.hydrations.begun > 0 || !s.guest.Worn() {
		return
	}
	s.logger.Debug("the guest has grown and is reset", "memory_bytes", s.guest.MemoryBytes(), "entities",
		s.residents.len())
	s.counters.recycled.Add(1)
	s.reset()
}
