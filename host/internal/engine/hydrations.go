package engine

import (
	"errors"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/apply"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

const (
	// stepEvents and stepTime bound one step of a hydration, and so the wait of a shard's other
	// entities. A step makes at least one request to the guest.
	stepEvents = 1024
	stepTime   = 5 * time.Millisecond
	// maxHydrations bounds the entities of a shard whose hydration has begun.
	maxHydrations = 8
	// keepAfter is the working time after which a hydration stores its state as a snapshot. If
	// the sandbox is reset or the host is restarted, it continues from there.
	keepAfter = 2 * time.Second
)

// hydration is the hydration of one entity, if it takes more than one step. Its shard makes a step,
// carries out the tasks of other entities, makes the next step, and so on. The tasks of this entity
// wait here, each until its deadline. The hydration goes on when none is left: otherwise an entity
// with a long history would begin again and again.
type hydration struct {
	key   service.Key
	tasks []*task // in order; some may have been refused meanwhile
	bytes int64   // data size of tasks

	begun   bool // it has a slot, and a place among the residents
	slot    uint32
	replay  replay
	from    *journal.Snapshot // the snapshot it began with; nil if none
	next    int               // the source to begin with: fromLatest, fromRetained or fromEvents
	reason  *service.Error    // why the last snapshot was not used
	after   error             // of an event after the last snapshot, which was taken; nil if none failed
	tried   service.Version   // version of the latest snapshot, which was tried
	broke   bool              // a snapshot has broken the guest
	again   bool              // it has looked for snapshots a second time
	started time.Time         // of its first step
	worked  time.Duration     // working time since its state was last stored
	kept    service.Version   // version of the snapshot that it stored on the way; 0: none
	noKeep  bool              // its state cannot be encoded
}

// hydrations holds the hydrations of a shard. Those that have begun are first in order.
type hydrations struct {
	byKey map[service.Key]*hydration
	order []*hydration
	begun int
	full  bool          // no other may begin until one of those that have begun ends
	turn  int           // index in order: whose step was last
	spare *hydration    // reused by the next add
	ended time.Time     // end of the last step
	took  time.Duration // duration of the last step
}

func (w *hydrations) add(key service.Key) *hydration {
	if w.byKey == nil {
		w.byKey = map[service.Key]*hydration{}
	}
	x := w.spare
	if w.spare = nil; x == nil {
		x = new(hydration)
	}
	x.key = key
	w.byKey[key] = x
	w.order = append(w.order, x)
	return x
}

func (w *hydrations) remove(x *hydration) {
	delete(w.byKey, x.key)
	if at := slices.Index(w.order, x); at >= 0 {
		w.order = slices.Delete(w.order, at, at+1)
	}
	if x.begun {
		w.begun--
	}
	w.full = false
}

// reuse keeps x for the next hydration. It was removed, and nothing else refers to it.
func (w *hydrations) reuse(x *hydration) {
	*x = hydration{}
	w.spare = x
}

// move puts x directly after the hydrations that have begun.
func (w *hydrations) move(x *hydration) {
	if at := slices.Index(w.order, x); at != w.begun {
		w.order = slices.Insert(slices.Delete(w.order, at, at+1), w.begun, x)
	}
}

// waits reports whether any hydration has a task that was not refused.
func (w *hydrations) waits() bool {
	return slices.ContainsFunc(w.order, func(x *hydration) bool {
		return slices.ContainsFunc(x.tasks, func(t *task) bool { return !t.command.Claim.Refused() })
	})
}

// park makes t wait until x is resident.
func (s *shard) park(x *hydration, t *task) {
	l := s.engine.options.Spec.Limits
	// Half of the mailbox is left to other entities.
	if len(x.tasks) >= max(1, l.MailboxCommands/2) || len(x.tasks) > 0 && x.bytes+t.size > l.MailboxBytes/2 {
		s.prune(x)
	}
	if n := len(x.tasks); n >= max(1, l.MailboxCommands/2) || n > 0 && x.bytes+t.size > l.MailboxBytes/2 {
		s.counters.overloaded.Add(1)
		err := s.engine.errorf(service.KindOverloaded, "entity %q is being hydrated from a long history, and the "+
			"queue of commands that wait for it is full; nothing was written", x.key)
		err.Resource, err.Used, err.Limit, err.RetryAfter = "mailbox_commands", int64(n),
			int64(max(1, l.MailboxCommands/2)), startRetry
		t.fail(err)
		return
	}
	s.mail.requeued(t)
	x.tasks = append(x.tasks, t)
	x.bytes += t.size
	d := t.command.Deadline
	if t.command.Claim == nil && !d.IsZero() {
		t.command.Claim = new(service.Claim)
		t.command.Claim.Begin()
	}
	claim := t.command.Claim // copied: when the timer fires, the task has another owner
	claim.Wait(t)
	if d.IsZero() {
		return
	}
	key := x.key
	t.timer = time.AfterFunc(time.Until(d), func() {
		if claim.Refuse() {
			err := s.engine.errorf(service.KindDeadline,
				"the deadline passed while entity %q was hydrated, which goes on; nothing was written", key)
			err.RetryAfter = startRetry
			t.fail(err)
		}
	})
}

// prune removes tasks of x that were refused meanwhile.
func (s *shard) prune(x *hydration) {
	x.tasks = slices.DeleteFunc(x.tasks, func(t *task) bool {
		if !t.command.Claim.Refused() {
			return false
		}
		s.mail.begun(t)
		x.bytes -= t.size
		return true
	})
}

// release removes and returns the tasks that wait for x.
func (s *shard) release(x *hydration) []*task {
	tasks := x.tasks
	x.tasks, x.bytes = nil, 0
	for _, t := range tasks {
		s.mail.begun(t)
	}
	return tasks
}

// hydrateNext makes one step of one hydration. If that was the last step, it carries out the tasks
// that wait for the entity.
func (s *shard) hydrateNext() {
	began := time.Now()
	defer func() {
		s.hydrations.ended = time.Now()
		s.hydrations.took = s.hydrations.ended.Sub(began)
	}()
	x := s.nextHydration()
	if x == nil {
		return
	}
	e, err, more := s.step(x)
	if more {
		return
	}
	s.hydrations.remove(x)
	if e != nil && len(x.tasks) == 0 && s.due(e, false) {
		s.snapshot(e) // otherwise the next hydration would take as long
	}
	for _, t := range s.release(x) {
		// A failure is that of all tasks. After a success, each task runs even if the one before
		// reset the guest.
		if err != nil && t.begin() {
			t.fail(err)
		} else if err == nil {
			s.carryOut(t)
			s.recycle()
		}
	}
}

// nextHydration returns the hydration whose step is next; nil if there is none left.
func (s *shard) nextHydration() *hydration {
	w := &s.hydrations
	// A hydration that has not begun and that no task waits for is not needed.
	for i := w.begun; i < len(w.order); {
		x := w.order[i]
		if s.prune(x); len(x.tasks) > 0 {
			i++
			continue
		}
		w.remove(x)
	}
	switch {
	case len(w.order) == 0:
		return nil
	case w.begun < len(w.order) && s.mayBegin():
		return w.order[w.begun]
	}
	w.turn = (w.turn + 1) % w.begun
	return w.order[w.turn]
}

// mayBegin reports whether another hydration may begin.
func (s *shard) mayBegin() bool {
	w := &s.hydrations
	if w.begun == 0 {
		return true
	}
	// A worn guest is reset when the hydrations that have begun have ended.
	return !w.full && w.begun < min(maxHydrations, s.residents.max) && (s.broken || !s.guest.Worn())
}

// startOver makes all hydrations begin again: the guest was reset and has forgotten their entities.
func (s *shard) startOver() {
	for _, x := range s.hydrations.order {
		x.begun = false
	}
	s.hydrations.begun, s.hydrations.full = 0, false
}

// end ends x: it either makes x a resident entity, or gives back its place and its slot.
func (s *shard) end(x *hydration, resident bool) *entity {
	if !x.begun {
		return nil // the guest was reset meanwhile
	}
	x.begun = false
	s.hydrations.begun--
	s.hydrations.move(x)
	s.residents.give(x.key)
	if !resident {
		s.residents.retire(x.slot)
		return nil
	}
	e := s.residents.add(x.key, x.slot, x.replay.Version)
	if x.from != nil {
		e.snapshot = x.from.Version
	}
	e.snapshot = max(e.snapshot, x.kept)
	// A snapshot that was refused is replaced, or it would be tried again the next time.
	e.renew = x.reason != nil && x.reason.Kind != service.KindConflicting && x.kept == 0
	s.used(x)
	s.counters.hydrated.Add(1)
	s.faults.hydrated(x.key)
	return e
}

// step makes one step of a hydration. It returns the entity when that is resident, or why it cannot
// be hydrated. more is true if there are more steps to make.
func (s *shard) step(x *hydration) (e *entity, failure *service.Error, more bool) {
	for {
		if err := s.usable(); err != nil {
			return nil, s.engine.own(err), false
		}
		if !x.begun {
			ready, err := s.beginHydration(x)
			if err != nil || !ready {
				return nil, err, err == nil
			}
		}
		began, version := time.Now(), x.replay.Version
		if x.started.IsZero() {
			x.started = began
		}
		err := s.stepGuest(x, began)
		switch {
		case err != nil:
			if again, failure := s.stepFailed(x, err); !again {
				return nil, failure, false
			}
			continue // with the next source
		case x.replay.whole:
			return s.end(x, true), nil, false
		}
		x.worked += time.Since(began)
		if x.replay.Version > version {
			s.snapshotMidway(x)
		}
		return nil, nil, true
	}
}

// stepGuest makes the guest apply the next events.
func (s *shard) stepGuest(x *hydration, began time.Time) error {
	r := &x.replay
	r.step(began)
	s.guest.About(service.About{Key: x.key})
	if r.opened {
		return s.guest.Apply(s.ctx, x.slot, r.events)
	}
	var from service.GuestSnapshot
	if x.from != nil {
		from, _ = s.engine.manifest.Snapshot(x.from) // source has looked at its schema
	}
	r.opened = true
	return s.guest.Hydrate(s.ctx, x.slot, x.key, from, r.events)
}

// beginHydration finds the source and a place for x. ready is false if other hydrations have to end
// first.
func (s *shard) beginHydration(x *hydration) (ready bool, failure *service.Error) {
	w := &s.hydrations
	x.from = s.source(x)
	if err := s.usable(); err != nil { // source may have called the guest, as may the next calls
		return false, s.engine.own(err)
	}
	if err := s.makePlace(x.key); err != nil {
		w.full = w.begun > 0
		if w.full {
			return false, nil
		}
		return false, s.engine.own(err)
	}
	if err := s.usable(); err != nil {
		return false, s.engine.own(err)
	}
	if err := s.dropRetired(); err != nil {
		return false, err
	}
	w.move(x)
	w.begun++
	s.residents.hold(x.key)
	x.begun, x.slot, x.worked, x.kept = true, s.residents.takeSlot(), 0, 0
	x.replay = replay{shard: s, Events: apply.Events{Index: s.engine.manifest, Key: x.key}}
	if x.from != nil {
		x.replay.from, x.replay.Version = x.from.Version, x.from.Version
	}
	x.replay.careful, x.replay.carefulUntil = s.faults.suspects(x.key)
	return true, nil
}

// stepFailed decides what follows a failed step: the hydration begins again with another source, or
// it fails.
func (s *shard) stepFailed(x *hydration, err error) (again bool, failure *service.Error) {
	r := &x.replay
	own := s.engine.own(err)
	broke := r.err == nil && own.Kind != service.KindFault
	switch {
	case r.err != nil && journal.KindOf(r.err) == journal.KindTrimmed:
		if x.next == fromEvents && x.reason == nil && !x.again {
			// A retention may have deleted the events just now, and left a snapshot.
			x.next, x.again = fromLatest, true
			s.end(x, false)
			return true, nil
		}
		if own = s.deleted(x, r.err); x.after != nil {
			// The snapshot is good, and an event after it is to blame.
			own, err = s.engine.own(x.after), x.after
		}
	case errors.Is(r.err, errAhead):
	case r.err != nil:
		own = s.unread(r.err)
	}
	s.end(x, false)
	if s.ctx.Err() != nil {
		s.broken = s.broken || broke
		return false, s.unavailable(err, "the service was stopped while the entity was hydrated; nothing was written")
	}
	if broke {
		s.reset()
	}
	if !permanent(own.Kind) {
		return false, own // the next attempt may succeed
	}
	if x.from != nil && own.Kind != service.KindDamaged { // damaged events are needed with any source
		if event := (*service.ReplayError)(nil); errors.As(err, &event) {
			x.after = err
		}
		s.notTaken(x, own, broke)
		return true, nil
	}
	return false, s.giveUp(x, err, own)
}

// giveUp remembers that an entity cannot be hydrated, logs it once, and returns an error that names
// the version and the event.
func (s *shard) giveUp(x *hydration, err error, own *service.Error) *service.Error {
	s.counters.failed.Add(1)
	f := failure{at: x.replay.Version + 1, until: x.replay.Version + 1}
	var replay *service.ReplayError
	if errors.As(err, &replay) {
		f.at, f.until = replay.First, replay.Last
	}
	what := s.where(x.key, &f)
	named := *own
	named.Message = "entity \"" + string(x.key) + "\" cannot be hydrated" + what
	if own.Message != "" {
		named.Message += ": " + own.Message
	}
	f.err = &named
	r := s.faults.hydrationFailed(x.key, f, time.Since(x.started))
	named.RetryAfter = max(minRetry, time.Until(r.next))
	s.logger.Warn("an entity cannot be hydrated; its commands and queries are refused until the next attempt",
		"entity", string(x.key), "version", r.at, "until", r.until, "event", string(r.event), "position", r.position,
		"kind", own.Kind.String(), "code", own.Code, "error", own, "detail", own.Detail, "attempts", r.failed,
		"next_attempt", r.next)
	return &named
}
