package commitlog

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// PutSnapshot keeps a snapshot of an entity in place of an older one, and reports whether it will. A snapshot is a
// cache: it is dropped if too many wait to be written, if its state is not that of a commit that was handed in, or if
// that commit turns out void. It is written to the index without sync, once its state is on disk. Only the writer of
// the entity may put one, and no commit of the entity may be handed in meanwhile. The journal keeps s.State; nobody may
// change it.
func (j *Journal) PutSnapshot(ctx context.Context, log journal.LogName, key string, s journal.Snapshot) (kept bool) {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	id := entityID{log, key}
	version, err := j.versionNow(ctx, id)
	if err == nil && j.overlay.refusal(log) == nil && s.Version > 0 && s.Version <= version &&
		len(s.State) <= journal.MaxSnapshot {
		kept = j.overlay.holdSnapshot(&held{id, s})
	}
	if !kept {
		j.overlay.stats.SnapshotsDropped++
	}
	return kept
}

// versionNow is an entity's version with everything handed in. The caller holds mu,
// which is given up while the index is read.
func (j *Journal) versionNow(ctx context.Context, id entityID) (journal.Version, error) {
	s := j.overlay.logs[id.log]
	if s == nil {
		return 0, nil // a log without commits has only new entities
	}
	for {
		if v, known := j.overlay.knownVersion(s, id.key); known {
			return v, nil
		}
		seen := s.indexing
		j.overlay.mu.Unlock()
		v, err := j.indexedVersion(ctx, id.log, id.key)
		j.overlay.mu.Lock()
		if err != nil {
			return 0, err
		}
		if s.indexing == seen && s.entities[id.key] == nil {
			j.overlay.versions.put(j.overlay.versions.key(id.log, id.key), v)
			return v, nil
		}
	}
}

// Snapshot returns the latest snapshot of an entity; ok is false if there is none. If it is damaged, the error is of
// kind KindCorrupt: then the events from the first on yield the same state, as without a snapshot. A snapshot that was
// just put may be of a state that is not on disk yet, like what [Journal.Load] yields. Nobody may change its state.
//
// The caller calls Load from the snapshot's version on, and trusts the snapshot only if Load finds the entity at that
// version or above.
//
// If a retention has deleted events, the snapshot that it has written to the log replaces one that is missing, damaged
// or older.
func (j *Journal) Snapshot(
	ctx context.Context, log journal.LogName, key string,
) (s journal.Snapshot, ok bool, err error) {
	s, ok, err = j.latestSnapshot(ctx, log, key)
	x, lost, damage := j.floor(ctx, log, key)
	if damage == nil && lost && x.Snapshot != nil && (err != nil || !ok || s.Version < x.Gone()) {
		return *x.Snapshot, true, nil
	}
	return s, ok, err
}

func (j *Journal) latestSnapshot(
	ctx context.Context, log journal.LogName, key string,
) (s journal.Snapshot, ok bool, err error) {
	j.overlay.mu.Lock()
	if h := j.overlay.snapshots.latest[entityID{log, key}]; h != nil {
		s = h.snapshot
		j.overlay.mu.Unlock()
		return s, true, nil
	}
	empty := j.overlay.logs[log] == nil
	j.overlay.mu.Unlock()
	if empty {
		return journal.Snapshot{}, false, nil
	}
	if err := j.reads.enter("snapshot", log); err != nil {
		return journal.Snapshot{}, false, err
	}
	defer j.reads.leave()
	k := format.SnapshotKey(log, key)
	value, ok, err := j.storage.Index.Get(ctx, k)
	if err != nil {
		return journal.Snapshot{}, false, &journal.Error{Op: "snapshot", Log: log, Kind: stored.StorageKind(err),
			Err: err}
	}
	if !ok {
		return journal.Snapshot{}, false, nil
	}
	if !format.OpenSnapshot(k, value, &s) {
		return journal.Snapshot{}, false, journal.Errorf(journal.KindCorrupt, "snapshot", log,
			"the snapshot of entity %q is damaged; its events are replayed instead", key)
	}
	return s, true, nil
}
