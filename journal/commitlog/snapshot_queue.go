package commitlog

import "github.com/bulkhead-wasm/bulkhead/journal"

// held is a snapshot on its way into the index.
type held struct {
	id       entityID
	snapshot journal.Snapshot
}

// size is what a snapshot counts in Options.MaxPendingSnapshotBytes: its state and about what
// is kept with it.
func (h *held) size() int64 { return int64(len(h.snapshot.State)+len(h.id.key)) + 200 }

// snapshotQueue has the snapshots that are not in the index yet. It is guarded by overlay.mu.
//
// A snapshot of a state that is ahead of the disk hangs at the commit that brought
// the entity there (pending.snapshot). It becomes ready when that commit is in the
// index, and is gone if that is void. So none is ever written that rests on something
// which is not on disk.
type snapshotQueue struct {
	maxBytes int64
	latest   map[entityID]*held // of each entity that has any here
	ready    []*held            // for the indexer, in the order they came
	bytes    int64              // of all, hanging and ready
}

func newSnapshotQueue(maxBytes int64) snapshotQueue {
	return snapshotQueue{maxBytes: maxBytes, latest: map[entityID]*held{}}
}

// add takes a snapshot in, unless too much waits already. One by itself may be larger.
func (q *snapshotQueue) add(h *held) bool {
	if q.bytes > 0 && q.bytes+h.size() > q.maxBytes {
		return false
	}
	q.bytes += h.size()
	q.latest[h.id] = h
	return true
}

// letGo forgets a snapshot that was added.
func (q *snapshotQueue) letGo(h *held) {
	q.bytes -= h.size()
	if q.latest[h.id] == h {
		delete(q.latest, h.id)
	}
}

// take returns what is ready. It stays in the queue until letGo is called.
func (q *snapshotQueue) take() []*held {
	taken := q.ready
	q.ready = nil
	return taken
}
