package engine

import (
	"bytes"
	"errors"
	"log/slog"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/apply"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

const (
	// evictionTail is how many events an entity must have since its latest snapshot for another
	// one when it is evicted. Replaying that many events takes about as long as it takes to make,
	// write and compact a small snapshot.
	evictionTail = 16
	// bytesPerEvent is the size of a state that costs as much to encode and write as one event
	// costs to replay. So a service with large states takes fewer snapshots.
	bytesPerEvent = 256
	// maxSnapshotFaults is a number of failures in a row. After that many entities whose states
	// cannot be encoded, a module is not asked for snapshots for a while. After that many
	// entities whose snapshots break the guest, snapshots are not used for a while. The former
	// failure costs one entity's hydration, the latter those of the whole shard.
	maxSnapshotFaults = 3
	// maxChecks bounds how many snapshots of other builds a shard compares with the state that
	// its own build makes of the events. checkedEvents bounds the events that one check may
	// replay, and checkTime its duration.
	maxChecks     = 4
	checkedEvents = 2000
	checkTime     = 50 * time.Millisecond
	// maxRefusedLogged is how many refused snapshots a shard logs as warnings.
	maxRefusedLogged = 8
)

// snapshots is what a shard knows of its module's snapshots in general. They are an optimisation:
// if one fails, the events give the same state. Failures of one entity's snapshots are in the
// faultTable.
type snapshots struct {
	faults int       // entities that could not be encoded, in a row
	until  time.Time // until then, only needed snapshots are taken
	breaks int       // snapshots that broke the guest although the events did not, in a row
	unused time.Time // until then, snapshots are not used
	bytes  int       // size of the last state, as an estimate of the next one's
	checks int       // checked snapshots of other builds
	logged int       // logged refusals
}

// leftAlone reports whether snapshots are not used at present.
func (n *snapshots) leftAlone() bool { return !n.unused.IsZero() && time.Now().Before(n.unused) }

// due reports whether e has had enough events since its latest snapshot for another one.
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

// keep takes a snapshot on request.
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

// mayKeep returns nil if the log takes snapshots now, and otherwise the reason.
func (s *shard) mayKeep() *service.Error {
	if err := s.engine.options.Log.Accepts(s.name); err != nil && journal.KindOf(err) != journal.KindFull {
		return s.unread(err)
	}
	return nil
}

// snapshot makes the guest encode e's state and gives the result to the log. The log writes it after
// the events that it includes are on disk. It returns why there is no snapshot. Afterwards e may
// no longer be resident; if the guest was reset, no entity is.
//
// The shard does nothing else meanwhile. The call has the same bounds as every other.
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

// put gives a snapshot to the log.
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

// encode makes the guest encode the state of the entity in a slot. If that fails, the failure is
// remembered of this entity only, and the caller has to drop the entity, unless the guest was
// reset.
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
		s.broken = true // not worth a reset
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
	s.logger.Warn("the state of an entity cannot be encoded; it goes on without a snapshot; the next attempt is "+
		"made when its version has doubled",
		"entity", string(key), "version", version, "kind", err.Kind.String(), "code", err.Code, "error", err,
		"reset", broke)
}

// The sources of a hydration, in the order in which they are tried.
const (
	fromLatest   = iota // the latest snapshot
	fromRetained        // the snapshot in the log that a retention made, if it is another one
	fromEvents          // all events
)

// source returns the snapshot with which a hydration begins, or nil if it replays all events. It
// may call the guest.
//
// First the state schemas in the manifest decide: the module's own and the earlier ones that it
// takes. Then the module decides, which refuses a state whose form it does not know. Its digest
// does not matter: a new build usually keeps schema and form. If every other build were
// distrusted, each deployment would replay all histories at the moment when all entities are
// cold, and entities whose first events are deleted would have no state. The snapshots of other
// entities do not matter either.
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

// latest returns an entity's latest snapshot, or nil if there is none or it must not be used.
func (s *shard) latest(x *hydration) *journal.Snapshot {
	if s.snapshots.leftAlone() {
		return nil
	}
	found, ok, err := s.engine.options.Log.Snapshot(s.ctx, s.name, string(x.key))
	switch {
	case err != nil:
		// If the whole journal is unreadable, the replay of the events will fail and say so.
		s.refuse(x, 0, s.engine.caused(err, service.KindInternal, "it cannot be read: %s", journal.DetailOf(err)))
	case !ok:
	case !s.engine.manifest.Takes(found.Schema):
		s.refuse(x, found.Version, s.otherSchema(found.Schema))
	default:
		x.tried = found.Version
		s.check(x.key, &found)
		return &found
	}
	return nil
}

// retained returns the entity's snapshot that a retention made, or nil if there is none, it is the
// latest one, or it must not be used.
func (s *shard) retained(x *hydration) *journal.Snapshot {
	found, ok, err := s.engine.options.Log.Trimmed(s.ctx, s.name, string(x.key))
	switch {
	case err != nil || !ok || found.Snapshot == nil || found.Snapshot.Version == x.tried:
		return nil
	case !s.engine.manifest.Takes(found.Snapshot.Schema):
		if x.reason == nil {
			x.reason = s.otherSchema(found.Snapshot.Schema)
		}
		return nil
	}
	return found.Snapshot
}

// keptMidway returns the snapshot that this hydration stored on its way, after earlier ones were
// refused. It returns nil if that was dropped, or snapshots are not used at present.
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
	return s.engine.errorf(service.KindConflicting, "it is of state schema %d, and the module has %d", schema,
		s.engine.options.Manifest.StateSchema)
}

// refuse counts and logs that a snapshot is not used.
func (s *shard) refuse(x *hydration, version service.Version, reason *service.Error) {
	x.reason = reason
	s.counters.snapshotsRefused.Add(1)
	level := slog.LevelDebug
	if s.snapshots.logged < maxRefusedLogged && reason.Kind != service.KindConflicting {
		s.snapshots.logged++
		level = slog.LevelWarn
	}
	s.logger.Log(s.ctx, level, "a snapshot is not used; the entity's events are replayed", "entity", string(x.key),
		"version", version,
		"kind", reason.Kind.String(), "code", reason.Code, "error", reason)
}

// notTaken records that the guest refused the snapshot of x, or failed on an event after it, and
// moves on to the next source. broke says that the guest had to be reset.
func (s *shard) notTaken(x *hydration, reason *service.Error, broke bool) {
	s.refuse(x, x.from.Version, reason)
	x.broke = x.broke || broke
	x.next = min(x.next+1, fromEvents)
}

// used counts a successful hydration that began with a snapshot, or that began with the events
// after snapshots had broken the guest.
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

// check compares a snapshot of another build, with the same state schema, with the state that
// the running build makes of the same events, for the first few. The result decides nothing:
// two builds may write the same state in different ways. But it warns an author who changed the
// effect of an event and not the schema.
func (s *shard) check(key service.Key, from *journal.Snapshot) {
	if from.Module == journal.Digest(s.engine.options.Spec.Module) || s.snapshots.checks >= maxChecks ||
		from.Version > checkedEvents || from.Schema != s.engine.options.Manifest.StateSchema {
		return
	}
	if _, trimmed, err := s.engine.options.Log.Trimmed(s.ctx, s.name, string(key)); trimmed || err != nil ||
		s.faults.noSnapshot(key, from.Version, true) != nil {
		return
	}
	s.snapshots.checks++
	r := replay{shard: s, Events: apply.Events{Index: s.engine.manifest, Key: key}, until: from.Version,
		end: time.Now().Add(checkTime)}
	slot := s.residents.takeSlot()
	s.guest.About(service.About{Key: key})
	err := s.guest.Hydrate(s.ctx, slot, key, service.GuestSnapshot{}, r.events)
	var state []byte
	if err == nil && r.Version == from.Version {
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
		s.logger.Warn("this build of the module cannot make the state of a snapshot from the events; the "+
			"snapshot is used because its schema and form are those of the module",
			"entity", string(key), "version", from.Version, "error", err)
	case r.Version == from.Version && !bytes.Equal(state, from.State):
		s.snapshots.checks = maxChecks // one warning is enough
		s.logger.Warn("this build of the module makes another state from the same events than the snapshot of "+
			"another build has, under the same state schema; snapshots are still used; with a greater state "+
			"schema, the module would replay the events instead",
			"entity", string(key), "version", from.Version)
	}
}

// snapshotMidway stores a snapshot of an entity whose hydration has taken long.
func (s *shard) snapshotMidway(x *hydration) {
	if x.worked < s.keepAfter || x.noKeep || s.engine.options.Spec.Settings.SnapshotEvery < 0 ||
		time.Now().Before(s.snapshots.until) ||
		s.faults.noSnapshot(x.key, x.replay.Version, false) != nil {
		return
	}
	x.worked = 0
	version := x.replay.Version
	state, err := s.encode(x.key, x.slot, version)
	if err != nil {
		x.noKeep = true // and the hydration has to begin again
		s.end(x, false)
		return
	}
	if s.put(x.key, version, state) == nil {
		x.kept = version
	}
}

// errAhead means that a snapshot has a version that the log does not have.
var errAhead = errors.New("the snapshot is ahead of the journal")
