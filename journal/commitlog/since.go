package commitlog

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// Since is the position of the first event of a log that was written at a time or later, or the position after the head
// if there is none. The events of a batch have one time, and times do not decrease from batch to batch, so it searches
// by bisection and reads about as many batches as there are steps. pace, if not nil, is called before each, and may
// wait; its error ends the search. Deleted events are not searched.
func (j *Journal) Since(
	ctx context.Context, log journal.LogName, t journal.UnixNano, pace func() error,
) (journal.Position, error) {
	low, high := j.First(log), j.Head(log)+1 // it is one of them, or between them
	for low < high {
		if pace != nil {
			if err := pace(); err != nil {
				return 0, err
			}
		}
		middle := low + (high-low)/2
		first, next, earlier, err := j.batchBefore(ctx, log, middle, t)
		if start := j.First(log); err != nil && start > middle { // a retention has begun meanwhile
			low = start
			continue
		}
		if err != nil {
			return 0, err
		}
		if earlier {
			low = next
		} else {
			high = max(first, low)
		}
	}
	return low, nil
}

// batchBefore finds the batch with the event at a position, and says whether it was written before a time: its events
// begin at first, and those of the batch after it at next, which is only known if it was.
func (j *Journal) batchBefore(
	ctx context.Context, log journal.LogName, at journal.Position, t journal.UnixNano,
) (first, next journal.Position, earlier bool, err error) {
	if err := j.reads.enter("since", log); err != nil {
		return 0, 0, false, err
	}
	defer j.reads.leave()
	found := false
	err = j.storage.Log.Blocks(ctx, log, at, func(b journal.Block) error {
		if b.First > at {
			return stored.ErrStop
		}
		h, _, err := format.OpenBlock(&b)
		if err != nil {
			return err
		}
		first, next, earlier = h.First, h.First+journal.Position(h.Events), h.Time < t
		found = next > at || !earlier // batches without events come first, and are no later than the one after them
		if !found {
			return nil
		}
		return stored.ErrStop
	})
	if err != nil && !errors.Is(err, stored.ErrStop) {
		return 0, 0, false, stored.ReadError("since", log, err)
	}
	if !found {
		return 0, 0, false, journal.Errorf(journal.KindCorrupt, "since", log, "the batch with position %d is missing",
			at)
	}
	return first, next, earlier, nil
}
