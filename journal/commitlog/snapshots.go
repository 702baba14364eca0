package commitlog

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// PutSnapshot keeps a snapshot of an entity, instead of an older one, and reports
// whether it will: a snapshot is a cache, and one is given up when too many wait to be
// written, when the state it shows is not that of any commit handed in, or when the
// commit it rests on turns out void. It is written behind the log, without sync, once
// its state is on disk. Only who writes to the entity may put one, and no commit of
// the entity may be handed in meanwhile. The journal keeps s.State; nobody may
// change it.
func (j *Journal) PutSnapshot(ctx context.Context, log journal.LogName, key string, s journal.Snapshot) (kept bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	id := entityID{log, key}
	version, err := j.versionNow(ctx, id)
	if err == nil && j.refusal(log) == nil && s.Version > 0 && s.Version <= version &&
		len(s.State) <= journal.MaxSnapshot {
		kept = j.holdSnapshot(&held{id, s})
	}
	if !kept {
		j.stats.SnapshotsDropped++
	}
	return kept
}

// versionNow is an entity's version with everything handed in. The caller holds mu,
// which is given up while the index is read.
func (j *Journal) versionNow(ctx context.Context, id entityID) (journal.Version, error) {
	s := j.logs[id.log]
	if s == nil {
		return 0, nil // a log without commits has only new entities
	}
	for {
		if v, known := j.knownVersion(s, id.key); known {
			return v, nil
		}
		seen := s.indexing
		j.mu.Unlock()
		v, err := j.indexedVersion(ctx, id.log, id.key)
		j.mu.Lock()
		if err != nil {
			return 0, err
		}
		if s.indexing == seen && s.entities[id.key] == nil {
			j.versions.put(j.versions.key(id.log, id.key), v)
			return v, nil
		}
	}
}

// holdSnapshot puts h where it waits. The caller holds mu and has made sure that the
// entity has come to its version.
func (j *Journal) holdSnapshot(h *held) bool {
	if !j.snapshots.add(h) {
		return false
	}
	if e := j.logs[h.id.log].entities[h.id.key]; e != nil && e.commits[0].commit.Expected < h.snapshot.Version {
		for _, p := range e.commits {
			if p.commit.Expected+journal.Version(len(p.commit.Events)) >= h.snapshot.Version {
				if p.snapshot != nil {
					j.snapshots.letGo(p.snapshot)
				}
				p.snapshot = h
				return true
			}
		}
	}
	j.ready(h)
	return true
}

// ready hands h to the indexer. The caller holds mu.
func (j *Journal) ready(h *held) {
	j.snapshots.ready = append(j.snapshots.ready, h)
	j.wakeIndexer()
}

// releaseSnapshot decides about the snapshot that hangs at p, which leaves the overlay:
// indexed, or void. The caller holds mu.
func (j *Journal) releaseSnapshot(p *pending) {
	h := p.snapshot
	if h == nil {
		return
	}
	p.snapshot = nil
	if p.durable {
		j.ready(h)
		return
	}
	j.snapshots.letGo(h)
	j.stats.SnapshotsDropped++
}

// takeSnapshots appends what is ready to pairs; storedSnapshots is then told.
func (j *Journal) takeSnapshots(pairs []journal.Pair) ([]journal.Pair, []*held) {
	j.mu.Lock()
	taken := j.snapshots.take()
	j.mu.Unlock()
	for _, h := range taken {
		pairs = append(pairs, format.SealSnapshot(format.SnapshotKey(h.id.log, h.id.key), &h.snapshot))
	}
	return pairs, taken
}

// storedSnapshots forgets what the index has now. The caller holds mu.
func (j *Journal) storedSnapshots(all []*held) {
	for _, h := range all {
		j.snapshots.letGo(h)
		j.stats.Snapshots++
		j.stats.SnapshotBytes += uint64(len(h.snapshot.State))
	}
}

// Snapshot returns the latest snapshot that was put for an entity; ok is false if there
// is none. One that is damaged is a KindCorrupt error: then, as without one, the
// events from the first on say the same. A snapshot that was just put may be of a state
// that is not on disk yet, as what [Journal.Load] yields. Nobody may change its state.
//
// After a snapshot the caller goes on with Load from its version, and believes the
// snapshot only if Load finds the entity at that version or above it.
//
// Where a retention has deleted events, the snapshot that it has left in the log stands
// in for one that is missing, damaged or older.
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
	j.mu.Lock()
	if h := j.snapshots.latest[entityID{log, key}]; h != nil {
		s = h.snapshot
		j.mu.Unlock()
		return s, true, nil
	}
	empty := j.logs[log] == nil
	j.mu.Unlock()
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
