package journal

import (
	"fmt"
)

// Batch is what a batch says of itself and its place in its log.
type Batch struct {
	Log      LogName
	Sequence uint64
	First    Position // of its first event; where the next one would stand if it has none
	Next     Position // behind its last event
	Commits  uint32   // of a base batch: records
	Events   uint32
	Base     bool // it holds what a retention left of entities
	Time     UnixNano
	Previous [32]byte // SHA-256 of the batch before it
	Hash     [32]byte // its own
}

// Follows says why b cannot stand right behind the batch a; it is empty if it can.
// The zero a is the place before a log's first batch.
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
	// From is a position at or before the first event behind After; it only saves
	// looking at what stands before.
	From Position
	// After and UpTo bound the sequences: above After, not above UpTo. 0 as UpTo is
	// all that is on disk.
	After, UpTo uint64
}
