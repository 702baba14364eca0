package journal

import (
	"bytes"
	"context"
	"errors"
)

// trimOf is the cut of a log's latest retention as the index has it; zero if there was
// none.
func trimOf(ctx context.Context, index IndexStore, log LogName) (cut, error) {
	value, ok, err := index.Get(ctx, trimKey(log))
	if err != nil || !ok {
		return cut{}, err
	}
	c, ok := openTrim(value)
	if !ok {
		return cut{}, damagedIndex(log, "the index entry of the retention is damaged; rebuild the index")
	}
	return c, nil
}

// beginning is the cut of a log's latest retention. It is damage if the log begins
// behind it.
func beginning(ctx context.Context, storage Storage, log LogName) (cut, error) {
	c, err := trimOf(ctx, storage.Index, log)
	if err != nil {
		return c, err
	}
	first, err := firstSequence(ctx, storage.Log, log)
	if err == nil && first > max(c.sequence, 1) {
		err = lostStart(log, first-1)
	}
	return c, err
}

// firstSequence is the sequence of the first block that there is of a log.
func firstSequence(ctx context.Context, store LogStore, log LogName) (first uint64, err error) {
	err = store.Blocks(ctx, log, 0, func(b Block) error {
		first = b.Sequence
		return errStop
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return first, err
}

// trimBytes is about how many bytes of blocks are removed in one step, before they were packed.
const trimBytes = 1 << 20

// trim removes what stands before a cut: first what the index has of it, then the
// blocks, oldest first. Whenever it is interrupted, it can be begun again, until there
// is nothing left. Each step is done by step, which may wait before or after, and
// whose error ends it.
func trim(ctx context.Context, storage Storage, log LogName, c cut, step func(func() error) error) error {
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
func trimmable(ctx context.Context, storage Storage, log LogName, c cut) (keys [][]byte, last uint64, err error) {
	bytes := 0
	var answers [][]byte
	err = storage.Log.Blocks(ctx, log, 0, func(b Block) error {
		if b.Sequence >= c.sequence || bytes >= trimBytes {
			return errStop
		}
		size := len(b.Data)
		var kept keptTypes
		err := eachRecord(b, func(h *batchHeader, _ int, _ Position, d *decodedCommit) error {
			size = max(size, h.records)
			prefix := entityPrefix(log, d.command.Key)
			for i := range d.events {
				keys = append(keys, entityKey(prefix, d.expected+Version(i)+1))
			}
			answers = append(answers, answerKey(log, d.command.ID, dayOf(h.time)))
			return nil
		}, func(h *batchHeader, r baseRecord) error {
			size = max(size, h.records)
			switch {
			case r.base != nil:
				keys = append(keys, floorKey(log, r.base.key, h.sequence))
			case r.kept != nil:
				keys = append(keys, keptKey(r.kept, h.sequence))
				kept.add(r.kept)
			}
			return nil
		})
		for _, name := range kept.names() {
			keys = append(keys, keptTypeKey(log, name, b.Sequence))
		}
		if err != nil && KindOf(err) != KindCorrupt {
			return err
		}
		bytes += size
		last = b.Sequence // damaged or not: what it left in the index is not served any more
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, 0, err
	}
	for _, k := range answers {
		value, ok, err := storage.Index.Get(ctx, k)
		if err != nil {
			return nil, 0, err
		}
		if where, good := decodePlace(value); ok && (!good || where.sequence < c.sequence) {
			keys = append(keys, k)
		}
	}
	return keys, last, nil
}

// floor is what the latest retention left of an entity; ok is false if it has lost
// nothing.
func (j *Journal) floor(ctx context.Context, log LogName, key string) (x base, ok bool, err error) {
	if c := j.cutOf(log); c.sequence > 0 {
		return j.storedFloor(ctx, log, key, c)
	}
	return base{}, false, nil
}

// EntityFirst is the version of the first event of an entity that a retention has left, or would be if
// there were any: 1 if it has deleted none.
func (j *Journal) EntityFirst(ctx context.Context, log LogName, key string) (Version, error) {
	x, _, err := j.floor(ctx, log, key)
	return x.gone() + 1, err
}

func (j *Journal) storedFloor(ctx context.Context, log LogName, key string, c cut) (x base, ok bool, err error) {
	if err := j.reads.enter("load", log); err != nil {
		return base{}, false, err
	}
	defer j.reads.leave()
	prefix := floorPrefix(log, key)
	err = j.storage.Index.Scan(ctx, prefix, floorKey(log, key, c.from), func(k, value []byte) error {
		_, sequence, good := parseFloorKey(log, k)
		if good && !c.keeps(sequence) {
			return errStop
		}
		if !good || !openFloor(bytes.Clone(value), &x) {
			return errorf(KindCorrupt, "load", log, "what a retention left of entity %q is damaged in the index; "+
				"rebuild the index", key)
		}
		ok = true
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return base{}, false, readError("load", log, err)
	}
	x.key = key
	return x, ok, nil
}

// trimmedLog is the error of who wants events that a retention has deleted.
func trimmedLog(log LogName, first Position) error {
	return errorf(KindTrimmed, "read", log, "a retention has deleted the events before position %d, which is the "+
		"first available", first)
}
