package journal

import (
	"bytes"
	"context"
)

// Trimmed is what a retention has left of an entity: it has lost its first events.
type Trimmed struct {
	Key   string
	Floor Version // the events up to this version are gone from the log
	// Kept is the version of the first event that the retention has kept apart, as no snapshot stood for it;
	// the others up to Floor follow on it. 0 if there are none. [Journal.Load] and [Journal.Entity] yield them.
	Kept Version
	// Snapshot is of the version Gone or a later one. It is nil if all events are kept, or the state was lost, as
	// somebody wanted. It is in the log, so it stays whatever is put by PutSnapshot.
	Snapshot *Snapshot
}

// Gone is the version up to which the entity's events cannot be read any more.
func (t *Trimmed) Gone() Version {
	if t.Kept > 0 {
		return t.Kept - 1
	}
	return t.Floor
}

// Trimmed returns what the latest retention has left of an entity; ok is false if it has all
// of its events.
func (j *Journal) Trimmed(ctx context.Context, log LogName, key string) (t Trimmed, ok bool, err error) {
	x, ok, err := j.floor(ctx, log, key)
	return x.trimmed(key), ok, err
}

// Retentions is a number that each retention of a log which deletes something makes another one; 0 while there was
// none.
func (j *Journal) Retentions(log LogName) uint64 { return j.cutOf(log).at }

// AllTrimmed yields the entities of a log that have lost events to a retention, those behind
// the key after, in an order of its own; empty is before all. What it yields is the caller's to
// keep. An error of yield ends it and is returned as it is. A yield must not ask the journal.
func (j *Journal) AllTrimmed(ctx context.Context, log LogName, after string, yield func(Trimmed) error) error {
	c := j.cutOf(log)
	if c.sequence == 0 {
		return nil
	}
	if err := j.reads.enter("trimmed", log); err != nil {
		return err
	}
	defer j.reads.leave()
	prefix := indexPrefix('f', log)
	from := prefix
	if after != "" {
		from = floorKey(log, after, ^uint64(0))
	}
	var stopped error // of yield, which goes back as it is
	err := j.storage.Index.Scan(ctx, prefix, from, func(k, value []byte) error {
		key, sequence, ok := parseFloorKey(log, k)
		if ok && !c.keeps(sequence) {
			return nil
		}
		var x base
		if !ok || !openFloor(bytes.Clone(value), &x) {
			return errorf(KindCorrupt, "trimmed", log, "what a retention left is damaged in the index; rebuild the "+
				"index")
		}
		stopped = yield(x.trimmed(key))
		return stopped
	})
	if stopped != nil {
		return stopped
	}
	return readError("trimmed", log, err)
}
