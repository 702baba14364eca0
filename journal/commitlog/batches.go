package commitlog

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// batchesAtOnce is about how many bytes of batches are read at a time.
const batchesAtOnce = 1 << 20

// Batches yields the batches of a range of a log as they are on disk, in order. It begins with what a retention has
// left. A batch is valid only during its yield. A yield may take any time: the journal can be closed meanwhile. The
// caller has to check for damage, see [format.ReadBatch]. An error of yield ends the scan and is returned unchanged.
func (j *Journal) Batches(
	ctx context.Context, log journal.LogName, r journal.BatchRange, yield func(journal.Block) error,
) error {
	j.overlay.mu.Lock()
	if s := j.overlay.logs[log]; s == nil {
		r.UpTo = r.After
	} else if r.UpTo == 0 || r.UpTo > s.batches {
		r.UpTo = s.batches // later batches may belong to an append that failed
	}
	if s := j.overlay.logs[log]; s != nil && s.trimmed.Sequence > 0 && r.After < s.trimmed.Sequence-1 {
		r.After, r.From = s.trimmed.Sequence-1, max(r.From, s.trimmed.Position)
	}
	j.overlay.mu.Unlock()
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
			if now := j.overlay.cutOf(log); b.Sequence != r.After+1 && begun && b.Sequence <= now.Sequence {
				return trimmedLog(log, now.Position)
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
func (j *Journal) someBatches(
	ctx context.Context, log journal.LogName, r journal.BatchRange,
) (some []journal.Block, err error) {
	if err := j.reads.enter("read", log); err != nil {
		return nil, err
	}
	defer j.reads.leave()
	bytes := 0
	err = j.storage.Log.Blocks(ctx, log, r.From, func(b journal.Block) error {
		if b.Sequence <= r.After {
			return nil
		}
		if b.Sequence > r.UpTo || len(some) > 0 && bytes+len(b.Data) > batchesAtOnce {
			return stored.ErrStop
		}
		bytes += len(b.Data)
		b.Data = format.Clone(b.Data)
		some = append(some, b)
		return nil
	})
	if errors.Is(err, stored.ErrStop) {
		err = nil
	}
	return some, stored.ReadError("read", log, err)
}
