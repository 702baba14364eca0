package engine

import (
	"errors"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// dropGroup is how many entities are dropped with one call of the guest.
const dropGroup = 64

// resident returns the entity, and makes it resident if it is not.
func (s *shard) resident(key service.Key) (*entity, *service.Error) {
	if err := s.usable(); err != nil {
		return nil, s.engine.own(err)
	}
	if e := s.residents.get(key); e != nil {
		return e, nil
	}
	if err := s.makePlace(key); err != nil {
		return nil, s.engine.own(err)
	}
	if err := s.usable(); err != nil {
		return nil, s.engine.own(err)
	}
	// One of them is used again now.
	if n := len(s.residents.retired) - 1; n >= dropGroup || n > s.residents.len() {
		if err := s.guest.Drop(s.ctx, s.residents.retired...); err != nil {
			return nil, s.failed(nil, err)
		}
		s.residents.dropped()
	}
	return s.hydrate(key)
}

// drop gives an entity up whose state in the guest is not that of the log.
func (s *shard) drop(e *entity) { s.residents.remove(e) }

// makePlace evicts entities until another one fits in. It fails if the budget has no
// room for a single one.
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
			s.snapshot(e)
		}
		if s.residents.byKey[e.key] == e {
			s.residents.remove(e)
		}
	}
}

// hydrate rebuilds an entity from its snapshot, if it has one that serves, and the
// events after it, durable or not.
func (s *shard) hydrate(key service.Key) (*entity, *service.Error) {
	from := s.stored(key)
	if err := s.usable(); err != nil { // looking for it may have called the guest
		return nil, s.engine.own(err)
	}
	if from == nil {
		e, err := s.rebuild(replay{shard: s, key: key}, nil)
		if err == nil || err.Code != historyDeleted {
			return e, err
		}
		// Events are gone, so a snapshot is all there is. Of another build or not, of
		// this schema it is believed.
		if from = s.only(key); from == nil {
			return nil, err
		}
	}
	resets := s.counters.resets.Load()
	e, err := s.rebuild(replay{shard: s, key: key, from: from.Version, version: from.Version}, from.State)
	if err == nil {
		s.counters.snapshotsUsed.Add(1)
		return e, nil
	}
	if s.ctx.Err() != nil {
		return nil, err
	}
	s.refuseSnapshot(err)
	if err := s.usable(); err != nil {
		return nil, s.engine.own(err)
	}
	broke := s.counters.resets.Load() > resets
	if e, err = s.rebuild(replay{shard: s, key: key}, nil); err == nil && broke {
		s.snapshots.breaks++
		s.snapshots.unused = s.snapshots.breaks >= maxSnapshotFaults
		s.snapshots.untaken = s.snapshots.untaken || s.snapshots.unused
	}
	return e, err
}

// rebuild makes an entity resident from the state of a snapshot, nil if it is none, and
// events.
func (s *shard) rebuild(r replay, state []byte) (*entity, *service.Error) {
	slot := s.residents.takeSlot()
	err := s.guest.Hydrate(s.ctx, slot, r.key, r.version, state, r.events)
	switch {
	case r.err != nil: // the guest is fine, the entity half there
		s.residents.retire(slot)
		return nil, s.unread(r.err)
	case err != nil && state != nil && service.KindOf(err) == service.KindFault:
		s.residents.retire(slot)
		return nil, s.engine.own(err)
	case err != nil:
		failure := s.failed(nil, err)
		if failure.Kind == service.KindFault {
			s.residents.retire(slot)
		}
		return nil, failure
	}
	s.counters.hydrated.Add(1)
	e := s.residents.add(r.key, slot, r.version)
	e.snapshot = r.from
	return e, nil
}

// replay is one hydration's way through the log.
type replay struct {
	shard   *shard
	key     service.Key
	from    service.Version // of the snapshot, 0 without one
	until   service.Version // of the last event that is wanted, 0 for all
	version service.Version // of the last event
	err     error           // of the log, or with an event
}

// errEnough ends a replay that has come to its end before the log has.
var errEnough = errors.New("no more events wanted")

// events yields the entity's events, each of which is valid during its yield, and returns
// an error of yield as it is; another one is in r.err, too.
func (r *replay) events(yield func(service.GuestEvent) error) error {
	s := r.shard
	var failed error
	at, err := s.engine.options.Log.Load(s.ctx, s.name, string(r.key), r.from, func(e *journal.Event) error {
		if r.until > 0 && e.Version > r.until {
			return errEnough
		}
		g, err := r.translate(e)
		if err != nil {
			return err
		}
		failed = yield(g)
		return failed
	})
	switch {
	case failed != nil:
		return failed
	case err == nil && at < r.from:
		r.err = errAhead
	case !errors.Is(err, errEnough):
		r.err = err
	}
	return r.err
}

// translate turns an event of the log into one of the guest.
func (r *replay) translate(e *journal.Event) (service.GuestEvent, error) {
	if e.Version != r.version+1 {
		return service.GuestEvent{}, r.shard.engine.errorf(service.KindInternal,
			"entity %q: version %d follows version %d in the journal", r.key, e.Version, r.version)
	}
	typ, known := r.shard.engine.manifest.Event(e.Type)
	if !known {
		err := r.shard.engine.errorf(service.KindFault,
			"entity %q has an event of type %q at version %d, which the service's module does not know; a module must know all types it ever emitted, if only as an alias",
			r.key, e.Type, e.Version)
		err.Code = "unknown_event"
		return service.GuestEvent{}, err
	}
	r.version = e.Version
	return service.GuestEvent{Type: typ, Version: e.Version, Time: e.CommandTime, Data: e.Data, Metadata: service.OwnMetadata(e.Metadata)}, nil
}
