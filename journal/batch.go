package journal

import (
	"fmt"
)

// Batch is what a batch says of itself and its place in its log.
type Batch struct {
	Log      LogName
	Sequence uint64
	First    Position // of its first event; if it has none, the position of the log's next event
	Next     Position // of the first event after it
	Commits  uint32   // of a base batch: records
	Events   uint32
	Base     bool // it has what a retention kept of entities
	Time     UnixNano
	Previous [32]byte // SHA-256 of the batch before it
	Hash     [32]byte // its own
}

// Follows says why b cannot be the batch after a, or returns "" if it can. The zero a is the place before a log's first
// batch.
func (b *Batch) Follows(a *Batch) string {
	next := max(a.Next, 1)
	switch {
	case b.Sequence != a.Sequence+1:
		return fmt.Sprintf("batch %d does not follow on batch %d", b.Sequence, a.Sequence)
	case b.First != next:
		return fmt.Sprintf("batch %d starts at position %d, the batch before ends at %d", b.Sequence, b.First, next-1)
	case b.Previous != a.Hash:
		return fmt.Sprintf("batch %d continues another batch %d than this one", b.Sequence, a.Sequence)
	case b.Time < a.Time:
		return fmt.Sprintf("batch %d was written before batch %d", b.Sequence, a.Sequence)
	}
	return ""
}

// BatchRange is a piece of a log.
type BatchRange struct {
	// From is a position at or before the first event after the batch After. It only saves reading earlier batches.
	From Position
	// After and UpTo bound the sequences: above After, and at most UpTo. An UpTo of 0 means all that is on disk.
	After, UpTo uint64
}
