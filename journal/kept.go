package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// An entity without a snapshot cannot do without its events. So a retention keeps them apart: it writes those that
// are in the batches it deletes, and those that an earlier one has kept, into base batches again, each in a record.
// They have left the log, whose readers begin behind them, and who reads their entity gets them first.
//
//	record of a kept event
//	uint  length of the rest
//	u8    5
//	str   key
//	uint  version
//	…     the event, as its entry in the index has it behind the checksum
//
// Those of a retention stand in the order of their positions, before its base records.
const recordKept = 5

func appendKept(b []byte, e *Event) []byte {
	w := writer{[]byte{recordKept}}
	w.str(e.Key)
	w.uint(uint64(e.Version))
	w.b = appendEventValue(w.b, e)
	out := writer{b}
	out.bytes(w.b)
	return out.b
}

// readKept takes the rest of a record off r. e is the one before, or zero: positions increase. What is behind the
// fields is skipped, as in all records. Byte slices are views.
func readKept(r *reader, h *batchHeader, e *Event, t *texts) bool {
	before := e.Position
	*e = Event{Log: h.log, Key: r.str(), Version: Version(r.uint())}
	return readEventValue(r, e, t) && e.Version > 0 && e.Position > before && e.Position < h.first &&
		len(e.Key) > 0 && len(e.Key) <= MaxKey && len(e.CommandID) > 0 && len(e.CommandID) <= MaxCommandID &&
		len(e.CommandType) <= MaxTypeName && len(e.Type) <= MaxTypeName &&
		len(e.ContentType) > 0 && len(e.ContentType) <= MaxTypeName
}

// Entries of the index. As those of base records they count if the cut in force keeps their batch.

func keptPrefix(log LogName, key string) []byte {
	b := entityPrefix(log, key)
	b[0] = 'k'
	return b
}

// keptPlace is the key of an entity's event of a version in a base batch. Each retention writes what it keeps again, in
// later batches: so the batch comes first, and those of earlier retentions cost its readers nothing.
func keptPlace(prefix []byte, sequence uint64, v Version) []byte {
	return entityKey(binary.BigEndian.AppendUint64(slices.Clip(prefix), sequence), v)
}

func keptKey(e *Event, sequence uint64) []byte {
	return keptPlace(keptPrefix(e.Log, e.Key), sequence, e.Version)
}

// parseKeptKey reads what keptKey made behind the prefix of an entity.
func parseKeptKey(prefix, key []byte) (v Version, sequence uint64, ok bool) {
	if len(key) != len(prefix)+16 {
		return 0, 0, false
	}
	rest := key[len(prefix):]
	return Version(binary.BigEndian.Uint64(rest[8:])), binary.BigEndian.Uint64(rest), true
}

func keptTypeKey(log LogName, name string, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append(indexPrefix('z', log), name...), sequence)
}

// parseKeptTypeKey reads what keptTypeKey made, behind the prefix of the log.
func parseKeptTypeKey(prefix, key []byte) (name string, sequence uint64, ok bool) {
	if len(key) < len(prefix)+8 {
		return "", 0, false
	}
	rest := key[len(prefix):]
	return string(rest[:len(rest)-8]), binary.BigEndian.Uint64(rest[len(rest)-8:]), true
}

// keptTypes counts the events that a base batch keeps, by type.
type keptTypes map[string]*typeEntry

func (t *keptTypes) add(e *Event) {
	if *t == nil {
		*t = keptTypes{}
	}
	entry := (*t)[e.Type]
	if entry == nil {
		entry = &typeEntry{}
		(*t)[e.Type] = entry
	}
	entry.add(e.Position)
}

// names are those of the types, in order.
func (t keptTypes) names() []string { return slices.Sorted(maps.Keys(t)) }

// pairs appends the entries of the index.
func (t keptTypes) pairs(pairs []Pair, b Block) []Pair {
	for _, name := range t.names() {
		pairs = append(pairs, t.pair(name, b))
	}
	return pairs
}

func (t keptTypes) pair(name string, b Block) Pair {
	entry := *t[name]
	entry.from = b.Sequence
	return Pair{keptTypeKey(b.Log, name, b.Sequence), encodeTypeEntry(&entry)}
}

// addKeptTypes adds the events that the latest retention of a log has kept to its catalogue.
func addKeptTypes(ctx context.Context, index IndexStore, log LogName, c cut, all map[string]typeEntry) error {
	if c.sequence == 0 {
		return nil
	}
	prefix := indexPrefix('z', log)
	return index.Scan(ctx, prefix, prefix, func(key, value []byte) error {
		name, sequence, ok := parseKeptTypeKey(prefix, key)
		if ok && !c.keeps(sequence) {
			return nil
		}
		e, good := decodeTypeEntry(value)
		if !ok || !good {
			return damagedTypes(log, "an entry of the types of kept events is damaged")
		}
		if was, there := all[name]; there {
			e.count, e.first, e.last = e.count+was.count, min(e.first, was.first), max(e.last, was.last)
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
	ctx context.Context, log LogName, x *base, c cut, after Version, yield func(*Event) error,
) (at Version, stopped, err error) {
	if err := j.reads.enter("load", log); err != nil {
		return after, nil, err
	}
	defer j.reads.leave()
	prefix := keptPrefix(log, x.key)
	at = after
	var e Event
	t := texts{together: true}
	// The versions of an entity increase from batch to batch, so this passes over those with lower ones only.
	next := c.from
	scan := func(k, value []byte) error {
		v, sequence, ok := parseKeptKey(prefix, k)
		if ok && (!c.keeps(sequence) || v > x.floor) {
			return errStop
		}
		if ok && v <= after {
			next = sequence
			return errSeek
		}
		e = Event{Log: log, Key: x.key, Version: v}
		if !ok || !decodeIndexEvent(value, &e, &t) {
			return errorf(KindCorrupt, "load", log,
				"the index entry of a kept event of entity %q after version %d is damaged; rebuild the index", x.key,
				at)
		}
		if v != at+1 {
			return gap("load", log, x.key, at, v)
		}
		at = v
		stopped = yield(&e)
		return stopped
	}
	for {
		err = j.storage.Index.Scan(ctx, prefix, keptPlace(prefix, next, after+1), scan)
		if !errors.Is(err, errSeek) || stopped != nil {
			break
		}
	}
	switch {
	case stopped != nil:
		return at, stopped, nil
	case errors.Is(err, errStop):
		err = nil
	}
	if err == nil && at < x.floor {
		err = gap("load", log, x.key, at, x.floor+1)
	}
	return at, nil, readError("load", log, err)
}

// KeptVersion is the version of the event of an entity at a position, with the stamp of the batch that it came to the
// log in, if the latest retention has kept that event; ok is false if it has not. It costs some look-ups.
func (j *Journal) KeptVersion(
	ctx context.Context, log LogName, key string, at Position, stamp Stamp,
) (v Version, ok bool, err error) {
	c := j.cutOf(log)
	if at == 0 || at >= c.position {
		return 0, false, nil
	}
	x, lost, err := j.storedFloor(ctx, log, key, c)
	if err != nil || !lost || x.kept == 0 {
		return 0, false, err
	}
	// Positions increase with the versions.
	for low, high := x.kept, x.floor+1; low < high; {
		middle := low + (high-low)/2
		var e Event
		_, stopped, err := j.scanKept(ctx, log, &x, c, middle-1, func(found *Event) error {
			e = Event{Position: found.Position, Stamp: found.Stamp}
			return errStop
		})
		switch {
		case stopped == nil && j.cutOf(log) != c:
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

// eachKept yields the events that the latest retention of a log before this one has kept, in the order of their
// positions, as they stand in the log.
func (r *retention) eachKept(yield func(*Event) error) error {
	last := r.cutOf(r.log)
	if last.sequence == 0 {
		return nil
	}
	written := BatchRange{From: last.position, After: last.from - 1, UpTo: last.at}
	return r.Batches(r.ctx, r.log, written, func(b Block) error {
		if err := r.pace(); err != nil {
			return err
		}
		return eachBase(b, func(_ *batchHeader, rec baseRecord) error {
			if rec.kept == nil {
				return nil
			}
			return yield(rec.kept)
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
	keep := func(e *Event) error {
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
		return r.records.add(r, appendKept(nil, e))
	}
	if err := r.eachKept(keep); err != nil {
		return err
	}
	err := r.Batches(r.ctx, r.log, BatchRange{UpTo: r.cut.sequence - 1}, func(b Block) error {
		if err := r.pace(); err != nil {
			return err
		}
		return eachCommit(b, func(h *batchHeader, _ int, first Position, c *decodedCommit) error {
			if _, ok := next[c.command.Key]; !ok {
				return nil
			}
			for i := range c.events {
				e := c.event(h, first, i)
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

// broken is the error of a log that lacks events of an entity.
func (r *retention) broken(key string, at, next Version) error {
	return errorf(KindCorrupt, "retain", r.log,
		"the log goes from version %d of entity %q to %d; nothing was deleted", at, key, next)
}

// keptBytes is how many bytes the records of an entity's events take, from one version through another one, and adds
// them to the result; once they are more than most, that is enough to know.
func (r *retention) keptBytes(key string, from, through Version, most int64) (n int64, err error) {
	if from > through {
		return 0, nil
	}
	if err := r.pace(); err != nil {
		return 0, err
	}
	var record []byte
	_, err = r.Load(r.ctx, r.log, key, from-1, func(e *Event) error {
		if e.Version > through || n > most {
			return errStop
		}
		record = appendKept(record[:0], e)
		n += int64(len(record))
		r.result.KeptEvents++
		return nil
	})
	if errors.Is(err, errStop) {
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
	if r.cut.from == 0 {
		r.cut.from = sequence
	}
	r.cut.bases += uint64(b.n)
	*b = baseRecords{}
	return err
}
