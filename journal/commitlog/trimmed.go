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

// Retentions is a number that changes with each retention of a log that deletes something; 0 before the first.
func (j *Journal) Retentions(log journal.LogName) uint64 { return j.overlay.cutOf(log).At }

// AllTrimmed yields the entities of a log that have lost events to a retention and come after the key after; the empty
// key is before all. The order is fixed but unspecified. The caller may keep what it yields. An error of yield ends the
// scan and is returned unchanged. A yield must not call the journal. If a retention comes into force meanwhile, some
// entities may be left out: Retentions has changed then.
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
