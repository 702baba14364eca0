package engine

import (
	"bytes"
	"errors"
	"log/slog"
	"time"

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
	// maxSnapshotFaults is after how many entities in a row whose states it cannot encode a
	// module is left alone for a while, and after how many whose snapshots break it these are
	// not used for a while. The one costs an entity's hydration each time, the other those of
	// a whole shard.
	maxSnapshotFaults = 3
	// maxChecks is how many snapshots of other builds a shard compares with what its own
	// build makes of the events, checkedEvents how many events that may take, and checkTime how long.
	maxChecks     = 4
	checkedEvents = 2000
	checkTime     = 50 * time.Millisecond
	// maxRefusedTold is how many refused snapshots a shard writes to the log.
	maxRefusedTold = 8
)

// snapshots is what a shard knows of its module's snapshots. They are an
// optimisation: whatever goes wrong with one, the events say the same. What is wrong with
// one entity's is remembered of that entity; see faultTable.
type snapshots struct {
	faults int       // of making them, since one was made
	until  time.Time // so long none are taken that nobody needs
	breaks int       // over those that there are, where the events did not break it, since one was used
	unused time.Time // so long those are not used
	bytes  int       // of the last state, as a guess of the next one's size
	checks int       // of other builds' snapshots
	told   int       // of the snapshots that were refused
}

// leftAlone reports whether the snapshots that there are are not used for a while.
func (n *snapshots) leftAlone() bool { return !n.unused.IsZero() && time.Now().Before(n.unused) }

// due reports whether e has gone on so far since its latest snapshot that it is time
// for another.
func (s *shard) due(e *entity, evicted bool) bool {
	every := s.engine.options.Spec.Settings.SnapshotEvery
	if every < 0 || s.broken || e.version == e.snapshot {
		return false
	}
	if evicted {
		every = min(every, evictionTail+s.snapshots.bytes/bytesPerEvent)
	}
	if e.version-e.snapshot < service.Version(every) && !e.renew {
		return false
	}
	return !time.Now().Before(s.snapshots.until) && s.faults.noSnapshot(e.key, e.version, false) == nil
}

// keep takes a snapshot because somebody needs one.
func (s *shard) keep(t *task) {
	e, err, parked := s.resident(t)
	if parked {
		return
	}
	if err == nil {
		err = s.faults.noSnapshot(t.command.Key, e.version, true)
	}
	if err == nil {
		err = s.mayKeep()
	}
	if err == nil {
		err = s.snapshot(e)
	}
	if err != nil {
		t.fail(err)
		return
	}
	t.snapshot(nil)
}

// mayKeep is why the log takes no snapshots at present; nil if it does.
func (s *shard) mayKeep() *service.Error {
	if err := s.engine.options.Log.Accepts(s.name); err != nil && journal.KindOf(err) != journal.KindFull {
		return s.unread(err)
	}
	return nil
}

// snapshot has the guest encode e's state and hands that to the log, which writes it
// once what it rests on is on disk. It returns why that is not kept. e may be gone
// afterwards, and all others with it.
//
// The shard does nothing else meanwhile; the call is bounded as every other.
func (s *shard) snapshot(e *entity) *service.Error {
	state, err := s.encode(e.key, e.slot, e.version)
	if err != nil {
		if s.residents.byKey[e.key] == e {
			s.drop(e) // as after every Fault
		}
		return err
	}
	e.snapshot, e.renew = e.version, false
	return s.put(e.key, e.version, state)
}

// put hands a snapshot to the log.
func (s *shard) put(key service.Key, version service.Version, state []byte) *service.Error {
	kept := s.engine.options.Log.PutSnapshot(s.ctx, s.name, string(key), journal.Snapshot{
		Version: version, Module: journal.Digest(s.engine.options.Spec.Module),
		Schema: s.engine.options.Manifest.StateSchema, State: state,
	})
	if !kept {
		err := s.engine.errorf(service.KindOverloaded, "too many snapshots wait to be written")
		err.Resource, err.RetryAfter = "pending_snapshot_bytes", minRetry
		return err
	}
	s.snapshots.bytes = len(state)
	s.engine.disk.spent(len(state))
	s.counters.snapshotsTaken.Add(1)
	return nil
}

// encode has the guest encode the state of an entity in a slot. If it cannot, the entity
// has to be dropped, unless the guest was reset; that is remembered of the entity, and of no other one.
func (s *shard) encode(key service.Key, slot uint32, version service.Version) ([]byte, *service.Error) {
	s.guest.About(service.About{Key: key})
	state, err := s.guest.Snapshot(s.ctx, slot)
	if err == nil {
		s.snapshots.faults = 0
		s.faults.kept(key)
		return state, nil
	}
	own := s.engine.own(err)
	if s.ctx.Err() != nil {
		s.broken = true // and not worth a cure
		return nil, own
	}
	if permanent(own.Kind) {
		s.unencoded(key, version, own)
	}
	if own.Kind != service.KindFault {
		s.reset()
	}
	return nil, own
}

// unencoded remembers that a state could not be encoded.
func (s *shard) unencoded(key service.Key, version service.Version, err *service.Error) {
	s.faults.snapshotFailed(key, failure{err: err, at: version, until: version})
	s.snapshots.faults++
	broke := err.Kind != service.KindFault
	if broke || s.snapshots.faults >= maxSnapshotFaults {
		s.snapshots.until = time.Now().Add(retryBackoff.Wait(s.snapshots.faults, 0))
	}
	s.logger.Warn("the state of an entity cannot be encoded; it goes on without a snapshot, and is asked for one when it has come twice as far",
		"entity", string(key), "version", version, "kind", err.Kind.String(), "code", err.Code, "error", err, "reset", broke)
}

// The sources of a hydration, in the order in which they are tried.
const (
	fromLatest   = iota // the latest snapshot
	fromRetained        // what a retention has left in the log, if that is another one
	fromEvents          // all events
)

// source finds what a hydration can begin with: a snapshot, or nil, if it has to be all
// events. It may call the guest.
//
// The state schema of the manifest decides, and then the module, which refuses a state that
// has another form than its own; not the digest of the module. A new build usually keeps
// both; to distrust every other build would have each deployment replay all histories at the
// moment when all entities are cold, and would leave those that no longer have their first
// events without any state. What other entities' snapshots were like decides nothing.
func (s *shard) source(x *hydration) *journal.Snapshot {
	if x.kept > 0 && x.next > fromLatest {
		if found := s.keptMidway(x); found != nil {
			return found
		}
	}
	if x.next == fromLatest {
		if found := s.latest(x); found != nil {
			return found
		}
		x.next++
	}
	if x.next == fromRetained {
		if found := s.retained(x); found != nil {
			return found
		}
		x.next++
	}
	return nil
}

// latest is the latest snapshot of an entity, if it may be used.
func (s *shard) latest(x *hydration) *journal.Snapshot {
	if s.snapshots.leftAlone() {
		return nil
	}
	found, ok, err := s.engine.options.Log.Snapshot(s.ctx, s.name, string(x.key))
	switch {
	case err != nil:
		// If the journal cannot be read at all, the events will say so.
		s.refuse(x, 0, s.engine.caused(err, service.KindInternal, "it cannot be read: %s", journal.DetailOf(err)))
	case !ok:
	case found.Schema != s.engine.options.Manifest.StateSchema:
		s.refuse(x, found.Version, s.otherSchema(found.Schema))
	default:
		x.tried = found.Version
		s.check(x.key, &found)
		return &found
	}
	return nil
}

// retained is the snapshot that a retention has left of an entity, if it is another one than
// the latest and may be used.
func (s *shard) retained(x *hydration) *journal.Snapshot {
	found, ok, err := s.engine.options.Log.Trimmed(s.ctx, s.name, string(x.key))
	switch {
	case err != nil || !ok || found.Snapshot == nil || found.Snapshot.Version == x.tried:
		return nil
	case found.Snapshot.Schema != s.engine.options.Manifest.StateSchema:
		if x.reason == nil {
			x.reason = s.otherSchema(found.Snapshot.Schema)
		}
		return nil
	}
	return found.Snapshot
}

// keptMidway is the snapshot that this hydration has kept on its way, after the ones before it were
// refused; nil if it has been dropped, or snapshots are not used for a while.
func (s *shard) keptMidway(x *hydration) *journal.Snapshot {
	if s.snapshots.leftAlone() {
		return nil
	}
	found, ok, err := s.engine.options.Log.Snapshot(s.ctx, s.name, string(x.key))
	if err != nil || !ok || found.Version != x.kept || found.Schema != s.engine.options.Manifest.StateSchema {
		return nil
	}
	x.tried, x.reason = found.Version, nil
	return &found
}

func (s *shard) otherSchema(schema uint32) *service.Error {
	return s.engine.errorf(service.KindConflicting, "it is of state schema %d, and the module has %d", schema, s.engine.options.Manifest.StateSchema)
}

// refuse notes that a snapshot is not used, and why.
func (s *shard) refuse(x *hydration, version service.Version, reason *service.Error) {
	x.reason = reason
	s.counters.snapshotsRefused.Add(1)
	level := slog.LevelDebug
	if s.snapshots.told < maxRefusedTold && reason.Kind != service.KindConflicting {
		s.snapshots.told++
		level = slog.LevelWarn
	}
	s.logger.Log(s.ctx, level, "a snapshot is not used; the entity's events are replayed", "entity", string(x.key), "version", version,
		"kind", reason.Kind.String(), "code", reason.Code, "error", reason)
}

// notTaken notes that the guest has not taken the snapshot of x, or has failed over an event
// after it. broke says that it had to be reset.
func (s *shard) notTaken(x *hydration, reason *service.Error, broke bool) {
	s.refuse(x, x.from.Version, reason)
	x.broke = x.broke || broke
	x.next = min(x.next+1, fromEvents)
}

// used counts the end of a hydration that began with a snapshot, or with the events after
// snapshots have broken the guest.
func (s *shard) used(x *hydration) {
	switch {
	case x.from != nil:
		s.snapshots.breaks = 0
		s.counters.snapshotsUsed.Add(1)
	case x.broke:
		if s.snapshots.breaks++; s.snapshots.breaks >= maxSnapshotFaults {
			s.snapshots.unused = time.Now().Add(retryBackoff.Wait(s.snapshots.breaks-maxSnapshotFaults+1, 0))
		}
	}
}

// check compares the snapshot of another build with what the running one makes of the same
// events, for the first few. It decides nothing: two builds may well differ in how they
// write one state. But an author who has changed what an event does, and not the schema,
// learns of it.
func (s *shard) check(key service.Key, from *journal.Snapshot) {
	if from.Module == journal.Digest(s.engine.options.Spec.Module) || s.snapshots.checks >= maxChecks || from.Version > checkedEvents {
		return
	}
	if _, trimmed, err := s.engine.options.Log.Trimmed(s.ctx, s.name, string(key)); trimmed || err != nil || s.faults.noSnapshot(key, from.Version, true) != nil {
		return
	}
	s.snapshots.checks++
	r := replay{shard: s, key: key, until: from.Version, end: time.Now().Add(checkTime)}
	slot := s.residents.takeSlot()
	s.guest.About(service.About{Key: key})
	err := s.guest.Hydrate(s.ctx, slot, key, 0, nil, r.events)
	var state []byte
	if err == nil && r.version == from.Version {
		state, err = s.guest.Snapshot(s.ctx, slot)
	}
	if err != nil && r.err == nil && service.KindOf(err) != service.KindFault {
		s.reset()
	} else {
		s.residents.retire(slot)
	}
	switch {
	case s.ctx.Err() != nil || r.err != nil:
	case err != nil:
		s.snapshots.checks = maxChecks
		s.logger.Warn("this build of the module cannot make the state of a snapshot from the events; the snapshot is used, as its schema and form are the module's",
			"entity", string(key), "version", from.Version, "error", err)
	case r.version == from.Version && !bytes.Equal(state, from.State):
		s.snapshots.checks = maxChecks // it has been said
		s.logger.Warn("this build of the module makes another state of the same events than the one before, under the same state schema; snapshots are used all the same: a greater state schema would have them made again from the events",
			"entity", string(key), "version", from.Version)
	}
}

// snapshotMidway puts a snapshot of an entity that has been on its way for long.
func (s *shard) snapshotMidway(x *hydration) {
	if x.worked < s.keepAfter || x.noKeep || s.engine.options.Spec.Settings.SnapshotEvery < 0 || time.Now().Before(s.snapshots.until) ||
		s.faults.noSnapshot(x.key, x.replay.version, false) != nil {
		return
	}
	x.worked = 0
	version := x.replay.version
	state, err := s.encode(x.key, x.slot, version)
	if err != nil {
		x.noKeep = true // and it has to begin again
		s.end(x, false)
		return
	}
	if s.put(x.key, version, state) == nil {
		x.kept = version
	}
}

// errAhead says that a snapshot is of a version that the log does not have.
var errAhead = errors.New("the snapshot is ahead of the journal")
