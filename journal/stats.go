package journal

import (
	"slices"
	"strings"
	"time"
)

// Stats count since Open.
type Stats struct {
	Commits      uint64        `json:"commits"`       // on disk
	Events       uint64        `json:"events"`        // of them
	Batches      uint64        `json:"batches"`       // that hold them
	Bytes        uint64        `json:"bytes"`         // of the batches
	Syncs        uint64        `json:"syncs"`         // appends of the engine, each synced
	SyncTime     time.Duration `json:"sync_time_ns"`  // spent in them
	LastSync     time.Duration `json:"last_sync_ns"`  // of the latest
	LargestGroup int           `json:"largest_group"` // commits that shared a sync
	Stalls       uint64        `json:"stalls"`        // times that Append waited for room
	Pending      int           `json:"pending"`       // commits handed in and not indexed, now
	PendingBytes int64         `json:"pending_bytes"` // of them, now
}

// Stats returns what the journal counted.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Pending, s.PendingBytes = j.commits, j.bytes
	return s
}

// LogInfo is the size of one log.
type LogInfo struct {
	Name    LogName  `json:"name"`
	Head    Position `json:"position"` // of the last event on disk
	Batches uint64   `json:"batches"`
}

// Logs lists the logs that have anything on disk, by name.
func (j *Journal) Logs() []LogInfo {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []LogInfo
	for name, s := range j.logs {
		if s.batches > 0 {
			all = append(all, LogInfo{name, s.head, s.batches})
		}
	}
	slices.SortFunc(all, func(a, b LogInfo) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return all
}
