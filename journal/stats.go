package journal

import (
	"math/bits"
	"time"
)

// Stats are counts since Open. Fields that say "now" are current values.
type Stats struct {
	Commits      uint64        `json:"commits"`       // on disk
	Events       uint64        `json:"events"`        // of them
	EventBytes   uint64        `json:"event_bytes"`   // data and metadata of the events
	Batches      uint64        `json:"batches"`       // that hold them
	Bytes        uint64        `json:"bytes"`         // of the batches, packed as they are
	Syncs        uint64        `json:"syncs"`         // appends to the storage, each synced
	SyncTime     time.Duration `json:"sync_time_ns"`  // spent in them
	LastSync     time.Duration `json:"last_sync_ns"`  // of the latest
	LargestGroup int           `json:"largest_group"` // commits that shared a sync
	Stalls       uint64        `json:"stalls"`        // times that Append waited for room
	StallTime    time.Duration `json:"stall_time_ns"` // spent so
	Pending      int           `json:"pending"`       // commits handed in and not indexed, now
	PendingBytes int64         `json:"pending_bytes"` // of them, now
	IndexLag     int           `json:"index_lag"`     // commits on disk and not indexed, now
	IndexUpdates uint64        `json:"index_updates"` // of the storage
	IndexTime    time.Duration `json:"index_time_ns"` // spent in them

	Snapshots            uint64 `json:"snapshots"`              // written to the index
	SnapshotBytes        uint64 `json:"snapshot_bytes"`         // of their states
	SnapshotsDropped     uint64 `json:"snapshots_dropped"`      // put and not written: too many waited, or what they rest on was void
	PendingSnapshotBytes int64  `json:"pending_snapshot_bytes"` // of those that wait, now

	SyncMicros   Histogram `json:"sync_us"`       // how long appends to the storage took
	GroupCommits Histogram `json:"group_commits"` // that shared a sync
	BatchBytes   Histogram `json:"batch_bytes"`

	// Storage is what the storage counted; zero if it counts nothing.
	Storage StorageStats `json:"storage"`
}

// WriteAmplification is the number of bytes that the storage wrote for each byte of events, its own logs and
// compactions included; 0 if it is not known.
func (s *Stats) WriteAmplification() float64 {
	if s.EventBytes == 0 {
		return 0
	}
	return float64(s.Storage.Written) / float64(s.EventBytes)
}

// StorageStats are counts of a storage.
type StorageStats struct {
	LogBytes   int64 `json:"log_bytes"`   // on disk, now
	IndexBytes int64 `json:"index_bytes"` // on disk, now
	// Blocks of the index that were read lately are kept in memory. Hits and misses count the reads of blocks, since
	// the journal was opened, that found them there, and that read them from a file.
	IndexCacheBytes  int64  `json:"index_cache_bytes"` // now
	IndexCacheHits   uint64 `json:"index_cache_hits"`
	IndexCacheMisses uint64 `json:"index_cache_misses"`
	// Answers are the command ids whose answers the index has, now: those of the last days.
	Answers int64 `json:"answers"`
	// IndexAbandoned counts indexes of this process that could not be closed, and whose memory is lost until it ends.
	IndexAbandoned int64 `json:"index_abandoned"`
	// Written counts bytes written since the journal was opened, of log and index, including the storage's own logs
	// and compactions. [Storage.Count] may count from any earlier moment.
	Written uint64 `json:"written_bytes"`
}

// Histogram counts values by powers of two: bucket i those up to 1<<i that are too
// big for the bucket before. The last one has all that are too big for any.
type Histogram struct {
	Count   uint64                   `json:"count"`
	Sum     uint64                   `json:"sum"`
	Buckets [HistogramBuckets]uint64 `json:"buckets"`
}

// HistogramBuckets reach to 1<<27: 134 seconds in microseconds, 128 MiB.
const HistogramBuckets = 28

// Add counts a value.
func (h *Histogram) Add(v uint64) {
	h.Count++
	h.Sum += v
	i := 0
	if v > 1 {
		i = bits.Len64(v - 1)
	}
	h.Buckets[min(i, HistogramBuckets-1)]++
}

// Quantile is an upper bound of the q-quantile, 0 < q <= 1: the bound of the bucket
// it falls into. It is 0 if nothing was counted.
func (h *Histogram) Quantile(q float64) uint64 {
	var below uint64
	for i, n := range h.Buckets {
		below += n
		if n > 0 && float64(below) >= q*float64(h.Count) {
			return 1 << i
		}
	}
	return 0
}

// LogInfo is the size of one log.
type LogInfo struct {
	Name    LogName  `json:"name"`
	Head    Position `json:"position"` // of the last event on disk
	Batches uint64   `json:"batches"`  // that were written to it
	Deleted uint64   `json:"deleted"`  // of these, by retentions: the first ones
	First   Position `json:"first"`    // of the first event that is kept
}
