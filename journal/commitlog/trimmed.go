package commitlog

import (
	"bytes"
	"context"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// Trimmed returns what the latest retention has left of an entity; ok is false if it has all
// of its events.
func (j *Journal) Trimmed(
	ctx context.Context, log journal.LogName, key string,
) (t journal.Trimmed, ok bool, err error) {
	x, ok, err := j.floor(ctx, log, key)
	return x.Trimmed(key), ok, err
}

// Retentions is a number that each retention of a log which deletes something makes another one; 0 while there was
// none.
func (j *Journal) Retentions(log journal.LogName) uint64 { return j.overlay.cutOf(log).At }

// AllTrimmed yields the entities of a log that have lost events to a retention, those behind
// the key after, in an order of its own; empty is before all. What it yields is the caller's to
// keep. An error of yield ends it and is returned as it is. A yield must not ask the journal.
func (j *Journal) AllTrimmed(
	ctx context.Context, log journal.LogName, after string, yield func(journal.Trimmed) error,
) error {
	c := j.overlay.cutOf(log)
	if c.Sequence == 0 {
		return nil
	}
	if err := j.reads.enter("trimmed", log); err != nil {
		return err
	}
	defer j.reads.leave()
	prefix := format.IndexPrefix('f', log)
	from := prefix
	if after != "" {
		from = format.FloorKey(log, after, ^uint64(0))
	}
	var stopped error // of yield, which goes back as it is
	err := j.storage.Index.Scan(ctx, prefix, from, func(k, value []byte) error {
		key, sequence, ok := format.ParseFloorKey(log, k)
		if ok && !c.Keeps(sequence) {
			return nil
		}
		var x format.Base
		if !ok || !format.OpenFloor(bytes.Clone(value), &x) {
			return journal.Errorf(journal.KindCorrupt, "trimmed", log,
				"what a retention left is damaged in the index; rebuild the "+
					"index")
		}
		stopped = yield(x.Trimmed(key))
		return stopped
	})
	if stopped != nil {
		return stopped
	}
	return stored.ReadError("trimmed", log, err)
}
