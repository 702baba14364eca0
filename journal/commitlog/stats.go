package commitlog

import (
	"slices"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Stats returns what the journal counted.
func (j *Journal) Stats() journal.Stats {
	j.overlay.mu.Lock()
	s := j.overlay.stats
	s.Pending, s.PendingBytes = j.overlay.queue.commits, j.overlay.queue.bytes
	s.PendingSnapshotBytes = j.overlay.snapshots.bytes
	j.overlay.mu.Unlock()
	if j.storage.Count != nil && j.reads.enter("stats", "") == nil {
		written := s.Storage.Written // when it was opened
		s.Storage = j.storage.Count()
		s.Storage.Written -= written
		j.reads.leave()
	}
	return s
}

// Logs lists the logs that have anything on disk, by name.
func (j *Journal) Logs() []journal.LogInfo {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	var all []journal.LogInfo
	for name, s := range j.overlay.logs {
		if s.batches > 0 {
			info := journal.LogInfo{Name: name, Head: s.head, Batches: s.batches, First: max(s.trimmed.Position, 1)}
			if s.trimmed.Sequence > 0 {
				info.Deleted = s.trimmed.Sequence - 1
			}
			all = append(all, info)
		}
	}
	slices.SortFunc(all, func(a, b journal.LogInfo) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return all
}
