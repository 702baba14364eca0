package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/apply"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// dropGroup is the number of retired entities that are dropped together, with one call of the guest.
const dropGroup = 64

// resident returns the entity of a task. If the entity is not resident, it is hydrated, provided
// that one step is enough. Otherwise the task is parked: it is carried out when the entity is
// resident, unless the sender gives up first.
func (s *shard) resident(t *task) (e *entity, failure *service.Error, parked bool) {
	key := t.command.Key
	if err := s.usable(); err != nil {
		return nil, s.engine.own(err), false
	}
	if e := s.residents.get(key); e != nil {
		return e, nil, false
	}
	if err := s.faults.refuses(key); err != nil {
		return nil, err, false
	}
	x := s.hydrations.byKey[key]
	if x == nil {
		x = s.hydrations.add(key)
		if s.mayBegin() {
			t.command.Claim.Wait(t) // a step may take longer than the sender waits
			e, err, more := s.step(x)
			if !more {
				s.hydrations.remove(x)
				s.hydrations.reuse(x)
			}
			switch begun := t.command.Claim.Begin(); {
			case !begun:
				return nil, nil, true // the sender gave up, and the task was answered
			case !more:
				return e, err, false
			}
		}
	}
	s.park(x, t)
	return nil, nil, true
}

// drop removes an entity whose state in the guest is not that of the log.
func (s *shard) drop(e *entity) { s.residents.remove(e) }

// makePlace evicts entities until there is a place for another one. It fails if the budget is too
// small even without any other resident entity.
func (s *shard) makePlace(key service.Key) error {
	for {
		var err error
		if !s.residents.full() {
			if err = s.residents.reserve(key); err == nil {
				return nil
			}
		}
		e := s.residents.oldest()
		if e == nil {
			return err
		}
		if s.due(e, true) {
			_ = s.snapshot(e) // a failure is logged, and the entity is evicted without
		}
		if s.residents.byKey[e.key] == e {
			s.residents.remove(e)
		}
	}
}

// dropRetired makes the guest drop the retired entities, if there are many.
func (s *shard) dropRetired() *service.Error {
	// One of the slots is about to be used again.
	if n := len(s.residents.retired) - 1; n >= dropGroup || n > s.residents.len() {
		if err := s.guest.Drop(s.ctx, s.residents.retired...); err != nil {
			return s.failed(nil, "", err)
		}
		s.residents.dropped()
	}
	return nil
}

// replay reads an entity's events from the log for one hydration, in steps.
type replay struct {
	apply.Events // Version is that of the last event replayed

	shard  *shard
	from   service.Version // version of the snapshot; 0 without one
	until  service.Version // version of the last event to replay; 0: all
	opened bool            // the guest has opened the entity
	whole  bool            // there are no more events
	err    error           // an error of the log, or of an event's translation

	// Events careful to carefulUntil are applied one by one: one of them has broken the guest.
	careful, carefulUntil service.Version

	// Bounds of the present step.
	maxEvents int
	end       time.Time // no event begins after it; zero: no bound
}

// step sets the bounds of the next call of events.
func (r *replay) step(began time.Time) {
	r.maxEvents, r.end = r.shard.maxStep, began.Add(stepTime)
	switch next := r.Version + 1; {
	case next > r.carefulUntil:
	case next >= r.careful:
		r.maxEvents = 1
	default:
		r.maxEvents = int(min(service.Version(r.maxEvents), r.careful-next))
	}
}

// errEnough ends a step before the end of the log.
var errEnough = errors.New("no more events wanted")

// enough reports whether the step ends before the event of a version, after yielded events.
func (r *replay) enough(version service.Version, yielded int) bool {
	const look = 16 // events between two looks at the clock
	return r.until > 0 && version > r.until || r.maxEvents > 0 && yielded >= r.maxEvents ||
		yielded > 0 && yielded%look == 0 && !r.end.IsZero() && time.Now().After(r.end)
}

// events yields the entity's next events; each is valid during its yield only. An error of yield is
// returned as it is. Any other error is returned and kept in r.err.
func (r *replay) events(yield func(service.GuestEvent) error) error {
	s := r.shard
	var failed error
	yielded, after := 0, r.Version
	at, err := s.engine.options.Log.Load(s.ctx, s.name, string(r.Key), after, func(e *journal.Event) error {
		if r.enough(e.Version, yielded) {
			return errEnough
		}
		yielded++
		g, err := r.Next(e)
		if err != nil {
			return err
		}
		failed = yield(g)
		return failed
	})
	switch {
	case failed != nil:
		return failed
	case errors.Is(err, errEnough):
		return nil
	case err == nil && at < after:
		r.err = errAhead
	default:
		r.err, r.whole = err, err == nil
	}
	return r.err
}

// where describes the event at which a hydration failed, if it can be found, and completes f.
func (s *shard) where(key service.Key, f *failure) string {
	var first, last *journal.Event
	_, _ = s.engine.options.Log.Load(s.ctx, s.name, string(key), f.at-1, func(e *journal.Event) error {
		if e.Version > f.until {
			return errEnough
		}
		own := *e
		own.Data, own.Metadata = nil, nil
		if first == nil {
			first = &own
		}
		last = &own
		return nil
	})
	if first == nil || first.Version != f.at {
		return "" // no event is to blame
	}
	f.position = first.Position
	if f.at < f.until {
		return fmt.Sprintf(" beyond version %d: one of the events up to version %d, at positions %d to %d, has "+
			"ended its sandbox", f.at-1, last.Version, first.Position, last.Position)
	}
	f.event = service.Type(first.Type)
	return fmt.Sprintf(" beyond version %d: its event of type %q at version %d, position %d", f.at-1, first.Type,
		f.at, first.Position)
}

// deleted is the error of an entity that cannot be hydrated because a retention deleted its events.
func (s *shard) deleted(x *hydration, err error) *service.Error {
	why := "no snapshot contains them"
	if x.reason != nil {
		why = "its snapshot is refused: " + x.reason.Message
	}
	own := s.engine.caused(err, service.KindFault, "%s, and %s; a module that takes the snapshot can go on",
		journal.DetailOf(err), why)
	own.Code = historyDeleted
	return own
}
