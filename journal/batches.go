package journal

import (
	"context"
	"errors"
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

// ReadBatch checks the bytes of a batch, all its records included, and yields its
// commits in order, if yield is not nil. A commit and its slices are valid during its yield only.
// What is wrong is an error of kind KindCorrupt.
func ReadBatch(data []byte, yield func(*Committed) error) (Batch, error) {
	h, _, reason := decodeBatch(data)
	if reason != "" {
		return Batch{}, errorf(KindCorrupt, "read", h.log, "%s", reason)
	}
	h.hash = hashOf(data)
	b := Batch{
		Log: h.log, Sequence: h.sequence, First: h.first, Next: h.first + Position(h.events),
		Commits: h.commits, Events: h.events, Time: h.time, Previous: h.previous, Hash: h.hash,
		Base: h.base,
	}
	var out Committed
	err := eachCommit(Block{h.log, h.first, h.sequence, data},
		func(h *batchHeader, _ int, first Position, c *decodedCommit) error {
			if yield == nil {
				return nil
			}
			h.hash = b.Hash
			out = Committed{Log: h.log, Command: c.command, First: first, Time: h.time,
				Version: c.expected + Version(len(c.events)), Events: out.Events[:0]}
			for i := range c.events {
				out.Events = append(out.Events, c.event(h, first, i))
			}
			out.Stamp = h.stampAt(first + Position(len(c.events)) - 1)
			return yield(&out)
		})
	return b, err
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

// batchesAtOnce is about how many bytes of batches are read in one go.
const batchesAtOnce = 1 << 20

// Batches yields the batches of a piece of a log as they are on disk, in order. A
// batch is valid during its yield only, which may take as long as it likes: the
// journal can be closed meanwhile. Damage is for the caller to find, see [ReadBatch].
// An error of yield ends the scan and is returned as it is. It begins with what a
// retention has left.
func (j *Journal) Batches(ctx context.Context, log LogName, r BatchRange, yield func(Block) error) error {
	j.mu.Lock()
	if s := j.logs[log]; s == nil {
		r.UpTo = r.After
	} else if r.UpTo == 0 || r.UpTo > s.batches {
		r.UpTo = s.batches // what is behind it may be of an append that failed
	}
	if s := j.logs[log]; s != nil && s.trimmed.sequence > 0 && r.After < s.trimmed.sequence-1 {
		r.After, r.From = s.trimmed.sequence-1, max(r.From, s.trimmed.position)
	}
	j.mu.Unlock()
	begun := false
	for r.After < r.UpTo {
		some, err := j.someBatches(ctx, log, r)
		if err != nil {
			return err
		}
		if len(some) == 0 {
			return nil
		}
		for _, b := range some {
			if now := j.cutOf(log); b.Sequence != r.After+1 && begun && b.Sequence <= now.sequence {
				return trimmedLog(log, now.position)
			}
			begun = true
			if err := yield(b); err != nil {
				return err
			}
			r.From, r.After = b.First, b.Sequence
		}
	}
	return nil
}

// someBatches reads the first few batches of a range.
func (j *Journal) someBatches(ctx context.Context, log LogName, r BatchRange) (some []Block, err error) {
	if err := j.reads.enter("read", log); err != nil {
		return nil, err
	}
	defer j.reads.leave()
	bytes := 0
	err = j.storage.Log.Blocks(ctx, log, r.From, func(b Block) error {
		if b.Sequence <= r.After {
			return nil
		}
		if b.Sequence > r.UpTo || len(some) > 0 && bytes+len(b.Data) > batchesAtOnce {
			return errStop
		}
		bytes += len(b.Data)
		b.Data = clone(b.Data)
		some = append(some, b)
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return some, readError("read", log, err)
}
