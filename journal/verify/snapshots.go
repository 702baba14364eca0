package verify

import (
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// snapshots checks those of one log: each whole, and none of a version that its entity
// has not come to. Whether a state is right only its module could tell.
func (l *logVerifier) snapshots() error {
	prefix := format.IndexPrefix('s', l.log)
	var s journal.Snapshot
	return l.storage.Index.Scan(l.ctx, prefix, prefix, func(key, value []byte) error {
		entity, ok := format.SnapshotEntity(l.log, key)
		switch {
		case !ok:
			l.problem(l.log, 0, 0, "the index has a malformed key of a snapshot; rebuild the index")
		case !format.OpenSnapshot(key, value, &s):
			l.problem(l.log, 0, 0, "the snapshot of entity %q is damaged and is not used; rebuild the index", entity)
		case s.Version > l.versionOf(entity).version && l.damages == 0:
			l.problem(l.log, 0, 0, "the snapshot of entity %q is of version %d, the log ends with its version %d; "+
				"rebuild the index",
				entity, s.Version, l.versionOf(entity).version)
		default:
			l.counts.Snapshots++
		}
		return nil
	})
}
