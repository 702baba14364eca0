package commitlog

import (
	"context"
	"errors"
	"maps"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// addKeptTypes adds the events that the latest retention of a log has kept to its catalogue.
func addKeptTypes(
	ctx context.Context, index journal.IndexStore, log journal.LogName, c format.Cut, all map[string]format.TypeEntry,
) error {
	if c.Sequence == 0 {
		return nil
	}
	prefix := format.IndexPrefix('z', log)
	return index.Scan(ctx, prefix, prefix, func(key, value []byte) error {
		name, sequence, ok := format.ParseKeptTypeKey(prefix, key)
		if ok && !c.Keeps(sequence) {
			return nil
		}
		e, good := format.DecodeTypeEntry(value)
		if !ok || !good {
			return damagedTypes(log, "an entry of the types of kept events is damaged")
		}
		if was, there := all[name]; there {
			e.Count, e.First, e.Last = e.Count+was.Count, min(e.First, was.First), max(e.Last, was.Last)
		}
		all[name] = e
		return nil
	})
}

// errSeek ends a scan that goes on elsewhere.
var errSeek = errors.New("seek")

// scanKept yields the kept events of an entity above a version up to the last of them, as the cut c keeps them, and
// returns the last version that it yielded, also with an error. stopped is that of yield.
func (j *Journal) scanKept(
	ctx context.Context, log journal.LogName, x *format.Base, c format.Cut, after journal.Version,
	yield func(*journal.Event) error,
) (at journal.Version, stopped, err error) {
	if err := j.reads.enter("load", log); err != nil {
		return after, nil, err
	}
	defer j.reads.leave()
	prefix := format.KeptPrefix(log, x.Key)
	at = after
	var e journal.Event
	t := format.Texts{Together: true}
	// The versions of an entity increase from batch to batch, so this passes over those with lower ones only.
	next := c.From
	scan := func(k, value []byte) error {
		v, sequence, ok := format.ParseKeptKey(prefix, k)
		if ok && (!c.Keeps(sequence) || v > x.Floor) {
			return stored.ErrStop
		}
		if ok && v <= after {
			next = sequence
			return errSeek
		}
		e = journal.Event{Log: log, Key: x.Key, Version: v}
		if !ok || !format.DecodeIndexEvent(value, &e, &t) {
			return journal.Errorf(journal.KindCorrupt, "load", log,
				"the index entry of a kept event of entity %q after version %d is damaged; rebuild the index", x.Key,
				at)
		}
		if v != at+1 {
			return gap("load", log, x.Key, at, v)
		}
		at = v
		stopped = yield(&e)
		return stopped
	}
	for {
		err = j.storage.Index.Scan(ctx, prefix, format.KeptPlace(prefix, next, after+1), scan)
		if !errors.Is(err, errSeek) || stopped != nil {
			break
		}
	}
	switch {
	case stopped != nil:
		return at, stopped, nil
	case errors.Is(err, stored.ErrStop):
		err = nil
	}
	if err == nil && at < x.Floor {
		err = gap("load", log, x.Key, at, x.Floor+1)
	}
	return at, nil, stored.ReadError("load", log, err)
}

// KeptVersion is the version of the event of an entity at a position, with the stamp of the batch that it came to the
// log in, if the latest retention has kept that event; ok is false if it has not. It costs some look-ups.
func (j *Journal) KeptVersion(
	ctx context.Context, log journal.LogName, key string, at journal.Position, stamp journal.Stamp,
) (v journal.Version, ok bool, err error) {
	c := j.overlay.cutOf(log)
	if at == 0 || at >= c.Position {
		return 0, false, nil
	}
	x, lost, err := j.storedFloor(ctx, log, key, c)
	if err != nil || !lost || x.Kept == 0 {
		return 0, false, err
	}
	// Positions increase with the versions.
	for low, high := x.Kept, x.Floor+1; low < high; {
		middle := low + (high-low)/2
		var e journal.Event
		_, stopped, err := j.scanKept(ctx, log, &x, c, middle-1, func(found *journal.Event) error {
			e = journal.Event{Position: found.Position, Stamp: found.Stamp}
			return stored.ErrStop
		})
		switch {
		case stopped == nil && j.overlay.cutOf(log) != c:
			return j.KeptVersion(ctx, log, key, at, stamp) // a retention has begun meanwhile
		case stopped == nil:
			return 0, false, err
		case e.Position == at:
			return middle, e.Stamp == stamp, nil
		case e.Position < at:
			low = middle + 1
		default:
			high = middle
		}
	}
	return 0, false, nil
}

// Kept yields the kept events of a log in the order of their positions, all of which are below First. It reads them
// from the log, where they are in base batches. An event and its slices are valid during their yield only. An error of
// yield ends the scan and is returned unchanged. If a retention of the log comes into force meanwhile, the error is of
// kind KindTrimmed, as that one may have replaced some of the events by a snapshot.
func (j *Journal) Kept(ctx context.Context, log journal.LogName, yield func(*journal.Event) error) error {
	c := j.overlay.cutOf(log)
	err := j.eachKept(ctx, log, c, nil, yield)
	if now := j.overlay.cutOf(log); now != c && (err == nil || journal.KindOf(err) == journal.KindCorrupt) {
		return trimmedLog(log, now.Position)
	}
	return err
}

// eachKept yields the events that are kept by the retention with the cut c, in the order of their positions, as the log
// has them. pace, if not nil, is called before each batch; its error ends the scan.
func (j *Journal) eachKept(
	ctx context.Context, log journal.LogName, c format.Cut, pace func() error, yield func(*journal.Event) error,
) error {
	if c.Sequence == 0 {
		return nil
	}
	written := journal.BatchRange{From: c.Position, After: c.From - 1, UpTo: c.At}
	return j.Batches(ctx, log, written, func(b journal.Block) error {
		if pace != nil {
			if err := pace(); err != nil {
				return err
			}
		}
		return format.EachBase(b, func(_ *format.BatchHeader, rec format.BaseRecord) error {
			if rec.Kept == nil {
				return nil
			}
			return yield(rec.Kept)
		})
	})
}

// keep writes the events of entities without snapshots that this retention keeps: those that an earlier one has
// kept, and those in the batches that go. It reads them from the log, and not from the index, which follows from it.
func (r *retention) keep() error {
	if len(r.kept) == 0 {
		return nil
	}
	next := maps.Clone(r.kept) // version of the event that comes next, of each entity
	written := uint64(0)
	keep := func(e *journal.Event) error {
		want, ok := next[e.Key]
		if !ok || e.Version < want {
			return nil
		}
		if e.Version > want {
			return r.broken(e.Key, want-1, e.Version)
		}
		next[e.Key]++
		if written++; written%4096 == 0 {
			r.tell("keeping events of entities without snapshots", written, r.result.KeptEvents)
		}
		return r.records.add(r, format.AppendKept(nil, e))
	}
	if err := r.eachKept(r.ctx, r.log, r.overlay.cutOf(r.log), r.pace, keep); err != nil {
		return r.keptDamage(err)
	}
	err := r.Batches(r.ctx, r.log, journal.BatchRange{UpTo: r.cut.Sequence - 1}, func(b journal.Block) error {
		if err := r.pace(); err != nil {
			return err
		}
		return format.EachCommit(b, func(h *format.BatchHeader, _ int, first journal.Position,
			c *format.DecodedCommit) error {
			if _, ok := next[c.Command.Key]; !ok {
				return nil
			}
			for i := range c.Events {
				e := c.Event(h, first, i)
				if err := keep(&e); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for key, v := range next {
		if floor := r.floors[key].at; v != floor+1 {
			return r.broken(key, v-1, floor+1)
		}
	}
	return r.records.flush(r)
}

// keptDamage adds to an error of eachKept what can be done if what an earlier retention kept is damaged.
func (r *retention) keptDamage(err error) error {
	if journal.KindOf(err) != journal.KindCorrupt {
		return err
	}
	return because("retain", r.log, err, "the events that an earlier retention kept are damaged in the log, and "+
		"nothing was deleted; restore a backup, or force the retention, which deletes them")
}

// broken is the error of a log that lacks events of an entity.
func (r *retention) broken(key string, at, next journal.Version) error {
	return journal.Errorf(journal.KindCorrupt, "retain", r.log,
		"the log goes from version %d of entity %q to %d; nothing was deleted", at, key, next)
}

// keptBytes is how many bytes the records of an entity's events take, from one version through another one, and adds
// them to the result; once they are more than most, that is enough to know.
func (r *retention) keptBytes(key string, from, through journal.Version, most int64) (n int64, err error) {
	if from > through {
		return 0, nil
	}
	if err := r.pace(); err != nil {
		return 0, err
	}
	var record []byte
	_, err = r.Load(r.ctx, r.log, key, from-1, func(e *journal.Event) error {
		if e.Version > through || n > most {
			return stored.ErrStop
		}
		record = format.AppendKept(record[:0], e)
		n += int64(len(record))
		r.result.KeptEvents++
		return nil
	})
	if errors.Is(err, stored.ErrStop) {
		err = nil
	}
	r.result.KeptBytes += uint64(n)
	return n, err
}

// baseRecords gathers the records of base batches.
type baseRecords struct {
	n       uint32
	encoded []byte
}

// add adds a record, and writes a batch when there is enough for one.
func (b *baseRecords) add(r *retention, record []byte) error {
	b.encoded = append(b.encoded, record...)
	b.n++
	if len(b.encoded) < baseBytes {
		return nil
	}
	return b.flush(r)
}

// flush writes what there is.
func (b *baseRecords) flush(r *retention) error {
	if b.n == 0 {
		return nil
	}
	sequence, err := r.append(b.n, b.encoded)
	if r.cut.From == 0 {
		r.cut.From = sequence
	}
	r.cut.Bases += uint64(b.n)
	*b = baseRecords{}
	return err
}
