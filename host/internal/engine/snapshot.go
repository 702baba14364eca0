package engine

import (
	"bytes"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

const (
	// evictionTail is how far an entity must be ahead of its latest snapshot for
	// another one when it is evicted: about as many events as take as long to replay as a
	// small snapshot takes to be made, written and compacted.
	evictionTail = 16
	// bytesPerEvent is what an event costs in replay, as bytes of a state that is
	// encoded and written. A service with big states takes fewer snapshots.
	bytesPerEvent = 256
	// maxSnapshotFaults is after how many Faults a module counts as one that has no
	// snapshots, and after how many that broke the guest they are not used any more. The
	// one costs an entity's hydration each time, the other those of a whole shard.
	maxSnapshotFaults = 3
	// maxChecks is how many snapshots of other builds a shard compares with what its own
	// build makes of the events, and checkedEvents how many events that may take.
	maxChecks     = 4
	checkedEvents = 2000
)

// snapshots is what a shard knows of its module's snapshots. They are an
// optimisation: whatever goes wrong with one, the events say the same.
type snapshots struct {
	untaken bool // the module has none, or breaks over making them
	unused  bool // it breaks over those that there are
	faults  int  // of making them
	breaks  int  // over one from the journal, where the events did not
	bytes   int  // of the last state, as a guess of the next one's size
	checks  int  // of other builds' snapshots
	strange bool // one was not what this build makes of the events: none of those is used
}

// due reports whether e has gone on so far since its latest snapshot that it is time
// for another.
func (s *shard) due(e *entity, evicted bool) bool {
	every := s.engine.options.Spec.Settings.SnapshotEvery
	if every < 0 || s.snapshots.untaken || s.broken {
		return false
	}
	if evicted {
		every = min(every, evictionTail+s.snapshots.bytes/bytesPerEvent)
	}
	return e.version-e.snapshot >= service.Version(every)
}

// keep takes a snapshot because somebody needs one.
func (s *shard) keep(t *task) {
	e, err := s.resident(t.command.Key)
	switch {
	case err != nil:
		t.fail(err)
	case s.snapshots.untaken:
		t.fail(s.engine.errorf(service.KindUnsupported, "the service's module has no snapshots"))
	case s.snapshot(e):
		t.snapshot(nil)
	default:
		t.fail(s.unavailable(nil, "no snapshot could be taken"))
	}
}

// snapshot has the guest encode e's state and hands that to the log, which writes it
// once what it rests on is on disk, and reports whether that keeps it. e may be gone
// afterwards, and all others with it.
//
// The shard does nothing else meanwhile; the call is bounded as every other.
func (s *shard) snapshot(e *entity) (kept bool) {
	state, ok := s.encode(e)
	if !ok {
		return false
	}
	s.snapshots.bytes = len(state)
	e.snapshot = e.version
	kept = s.engine.options.Log.PutSnapshot(s.ctx, s.name, string(e.key), journal.Snapshot{
		Version: e.version, Module: journal.Digest(s.engine.options.Spec.Module),
		Schema: s.engine.options.Manifest.StateSchema, State: state,
	})
	if kept {
		s.engine.disk.spent(len(state))
		s.counters.snapshotsTaken.Add(1)
	}
	return kept
}

// encode has the guest encode e's state. If it cannot, e is gone.
func (s *shard) encode(e *entity) (state []byte, ok bool) {
	state, err := s.guest.Snapshot(s.ctx, e.slot)
	switch {
	case err == nil:
		return state, true
	case s.ctx.Err() != nil:
		s.broken = true // and not worth a cure
	case service.KindOf(err) == service.KindFault:
		s.snapshots.faults++
		s.snapshots.untaken = s.snapshots.faults >= maxSnapshotFaults
		s.logger.Warn("the guest cannot encode an entity's state", "error", err, "asked_again", !s.snapshots.untaken)
		s.drop(e) // as after every Fault
	default:
		s.snapshots.untaken = true
		s.logger.Warn("the guest failed over a snapshot and is reset; it is not asked for one again", "error", err)
		s.reset()
	}
	return nil, false
}

// stored finds a snapshot that may stand for an entity's first events.
//
// The manifest's state schema decides, and not the digest of the module. The schema is
// the author's word that a state still means the same, and a new build usually keeps
// it; to distrust every other build would have each deployment replay all histories
// at the moment when all entities are cold, and would leave those that no longer have
// their first events without any state. As authors forget, a few are checked.
func (s *shard) stored(key service.Key) *journal.Snapshot {
	if s.snapshots.unused {
		return nil
	}
	found, ok, err := s.engine.options.Log.Snapshot(s.ctx, s.name, string(key))
	switch {
	case err != nil:
		// If the journal cannot be read at all, the events will say so.
		s.refuseSnapshot(err)
	case ok && found.Schema != s.engine.options.Manifest.StateSchema:
		s.counters.snapshotsRefused.Add(1)
	case ok && !s.agrees(key, &found):
		s.counters.snapshotsRefused.Add(1)
	case ok:
		return &found
	}
	return nil
}

// agrees reports whether the running build makes of an entity's events what the build
// did that made the snapshot, as far as is known: the first few snapshots of other
// builds are compared, and if one differs, none of them is used. That one may differ in
// form alone costs no more than replays.
func (s *shard) agrees(key service.Key, from *journal.Snapshot) bool {
	switch {
	case from.Module == journal.Digest(s.engine.options.Spec.Module):
		return true
	case s.snapshots.strange:
		return false
	case s.snapshots.untaken || s.snapshots.checks >= maxChecks || from.Version > checkedEvents:
		return true
	}
	s.snapshots.checks++
	e, failure := s.rebuild(replay{shard: s, key: key, until: from.Version}, nil)
	if failure != nil {
		return true // its events are gone, or what is wrong with them will show again
	}
	state, ok := s.encode(e)
	if !ok {
		return true
	}
	s.drop(e)
	if e.version == from.Version && !bytes.Equal(state, from.State) {
		s.snapshots.strange = true
		s.logger.Warn("this build of the module makes another state of the same events than the one before, under the same state schema; its snapshots are not used, and entities are hydrated from all their events: a greater state schema would have said so",
			"entity", string(key), "version", from.Version)
	}
	return !s.snapshots.strange
}

// only finds the snapshot of an entity that cannot be had without one.
func (s *shard) only(key service.Key) *journal.Snapshot {
	found, ok, err := s.engine.options.Log.Snapshot(s.ctx, s.name, string(key))
	if err != nil || !ok || found.Schema != s.engine.options.Manifest.StateSchema {
		return nil
	}
	return &found
}

func (s *shard) refuseSnapshot(err error) {
	s.counters.snapshotsRefused.Add(1)
	s.logger.Warn("a snapshot is not used; the entity's events are replayed", "error", err)
}

// errAhead says that a snapshot is of a version that the log does not have.
var errAhead = errors.New("the snapshot is ahead of the journal")
