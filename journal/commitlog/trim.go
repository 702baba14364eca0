package commitlog

import (
	"bytes"
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// beginning is the cut of a log's latest retention. A log that begins after its cut is damaged.
func beginning(ctx context.Context, storage journal.Storage, log journal.LogName) (format.Cut, error) {
	c, err := stored.TrimOf(ctx, storage.Index, log)
	if err != nil {
		return c, err
	}
	first, err := stored.FirstSequence(ctx, storage.Log, log)
	if err == nil && first > max(c.Sequence, 1) {
		err = lostStart(log, first-1)
	}
	return c, err
}

// trimBytes is about how many bytes of blocks are removed in one step, before they were packed.
const trimBytes = 1 << 20

// trim removes what comes before a cut: first its entries in the index, then the blocks, oldest first. After an
// interruption it can be started again, until nothing is left. Each step is done by step, which may wait before or
// after, and whose error ends trim.
func trim(
	ctx context.Context, storage journal.Storage, log journal.LogName, c format.Cut, step func(func() error) error,
) error {
	for left := true; left; {
		err := step(func() error {
			keys, last, err := trimmable(ctx, storage, log, c)
			if left = last > 0; err != nil || !left {
				return err
			}
			if err := storage.Index.Delete(ctx, keys); err != nil {
				return err
			}
			for more := true; more; {
				if more, err = storage.Log.Trim(ctx, log, last+1); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// trimmable finds what the index has of the first few blocks before a cut, the last of
// which has the sequence last; 0 if there are none.
func trimmable(
	ctx context.Context, storage journal.Storage, log journal.LogName, c format.Cut,
) (keys [][]byte, last uint64, err error) {
	bytes := 0
	var answers [][]byte
	err = storage.Log.Blocks(ctx, log, 0, func(b journal.Block) error {
		if b.Sequence >= c.Sequence || bytes >= trimBytes {
			return stored.ErrStop
		}
		size := len(b.Data)
		var kept format.KeptTypes
		err := format.EachRecord(b, func(h *format.BatchHeader, _ int, _ journal.Position,
			d *format.DecodedCommit) error {
			size = max(size, h.Records)
			prefix := format.EntityPrefix(log, d.Command.Key)
			for i := range d.Events {
				keys = append(keys, format.EntityKey(prefix, d.Expected+journal.Version(i)+1))
			}
			answers = append(answers, format.AnswerKey(log, d.Command.ID, format.DayOf(h.Time)))
			return nil
		}, func(h *format.BatchHeader, r format.BaseRecord) error {
			size = max(size, h.Records)
			switch {
			case r.Base != nil:
				keys = append(keys, format.FloorKey(log, r.Base.Key, h.Sequence))
			case r.Kept != nil:
				keys = append(keys, format.KeptKey(r.Kept, h.Sequence))
				kept.Add(r.Kept)
			}
			return nil
		})
		for _, name := range kept.Names() {
			keys = append(keys, format.KeptTypeKey(log, name, b.Sequence))
		}
		if err != nil && journal.KindOf(err) != journal.KindCorrupt {
			return err
		}
		bytes += size
		last = b.Sequence // damaged or not: what it left in the index is not served any more
		return nil
	})
	if err != nil && !errors.Is(err, stored.ErrStop) {
		return nil, 0, err
	}
	for _, k := range answers {
		value, ok, err := storage.Index.Get(ctx, k)
		if err != nil {
			return nil, 0, err
		}
		if where, good := format.DecodePlace(value); ok && (!good || where.Sequence < c.Sequence) {
			keys = append(keys, k)
		}
	}
	return keys, last, nil
}

// floor is what the latest retention left of an entity; ok is false if it has lost
// nothing.
func (j *Journal) floor(ctx context.Context, log journal.LogName, key string) (x format.Base, ok bool, err error) {
	if c := j.overlay.cutOf(log); c.Sequence > 0 {
		return j.storedFloor(ctx, log, key, c)
	}
	return format.Base{}, false, nil
}

// EntityFirst is the version of the first event of an entity that a retention has left, or would be if
// there were any: 1 if it has deleted none.
func (j *Journal) EntityFirst(ctx context.Context, log journal.LogName, key string) (journal.Version, error) {
	x, _, err := j.floor(ctx, log, key)
	return x.Gone() + 1, err
}

func (j *Journal) storedFloor(
	ctx context.Context, log journal.LogName, key string, c format.Cut,
) (x format.Base, ok bool, err error) {
	if err := j.reads.enter("load", log); err != nil {
		return format.Base{}, false, err
	}
	defer j.reads.leave()
	prefix := format.FloorPrefix(log, key)
	err = j.storage.Index.Scan(ctx, prefix, format.FloorKey(log, key, c.From), func(k, value []byte) error {
		_, sequence, good := format.ParseFloorKey(log, k)
		if good && !c.Keeps(sequence) {
			return stored.ErrStop
		}
		if !good || !format.OpenFloor(bytes.Clone(value), &x) {
			return journal.Errorf(journal.KindCorrupt, "load", log, "what a retention left of entity %q is damaged "+
				"in the index; rebuild the index", key)
		}
		ok = true
		return stored.ErrStop
	})
	if err != nil && !errors.Is(err, stored.ErrStop) {
		return format.Base{}, false, stored.ReadError("load", log, err)
	}
	x.Key = key
	return x, ok, nil
}

// trimmedLog is the error for a reader that wants events that a retention has deleted.
func trimmedLog(log journal.LogName, first journal.Position) error {
	return journal.Errorf(journal.KindTrimmed, "read", log, "a retention has deleted the events before position %d, "+
		"which is the first available", first)
}
