package journal

import "encoding/binary"

// A retention deletes the first batches of a log. What they left behind is
// written into the log itself before, as it must be possible to make everything
// derived from what the log still has: base batches, which have format version 2 and
// no commits. Their records are events of entities without a snapshot, see kept.go, the state
// of each entity that loses events, and at last the cut, without which the others count for nothing.
//
//	base record                       cut record
//	uint  length of the rest          uint  length of the rest
//	u8    3                           u8    4
//	u8    flags: 1 has a snapshot,    u64   sequence of the first batch that is kept
//	      2 has kept events           u64   position of the first event that is kept
//	str   key                         u64   sequence of the first base batch
//	uint  floor                       uint  number of records of the retention before it
//	uint  with flag 2: version of     8 B   stamp of the log's first batch
//	      the first kept event        8 B   stamp of the batch with the last deleted event
//	…     snapshot
//
// The floor is the entity's version before the first batch that stays: the events up to it
// are gone, but for those from the first kept event on. The snapshot is of a version not below
// the last one whose event is gone.
const (
	recordBase      = 3
	recordCut       = 4
	baseHasSnapshot = 1
	baseHasKept     = 2
)

// base is what is kept of an entity that has lost its first events.
type base struct {
	key      string
	floor    Version
	kept     Version   // of the first kept event; the others follow, up to floor. 0: there are none
	snapshot *Snapshot // nil: all events are kept, or the state is lost, as somebody wanted
}

// trimmed is what a caller is told of the entity. The base of an index entry does not know its key.
func (x *base) trimmed(key string) Trimmed {
	return Trimmed{Key: key, Floor: x.floor, Kept: x.kept, Snapshot: x.snapshot}
}

// gone is the version up to which the events can no longer be read.
func (x *base) gone() Version {
	t := x.trimmed(x.key)
	return t.Gone()
}

// flags are those of the record.
func (x *base) flags() (flags byte) {
	if x.snapshot != nil {
		flags = baseHasSnapshot
	}
	if x.kept > 0 {
		flags |= baseHasKept
	}
	return flags
}

// baseRecord is a record of a base batch: one of the three.
type baseRecord struct {
	base *base
	kept *Event
	cut  *cut
}

// cut says which batches a retention deleted.
type cut struct {
	sequence uint64   // of the first batch that is kept
	position Position // of the first event that is kept, or comes
	from     uint64   // sequence of the first base batch
	bases    uint64
	origin   Stamp  // of the log's first batch
	before   Stamp  // of the batch with the event before position; zero if position is 1
	at       uint64 // sequence of the batch that holds it; not in the record
}

// appendBaseValue encodes a base without flags and key, as it stands in the index too.
func appendBaseValue(b []byte, x *base) []byte {
	w := writer{b}
	w.uint(uint64(x.floor))
	if x.kept > 0 {
		w.uint(uint64(x.kept))
	}
	if x.snapshot != nil {
		w.b = appendSnapshot(w.b, x.snapshot)
	}
	return w.b
}

func readBaseValue(r *reader, flags byte, x *base) bool {
	x.floor, x.kept, x.snapshot = Version(r.uint()), 0, nil
	if flags&baseHasKept != 0 {
		if x.kept = Version(r.uint()); x.kept == 0 || x.kept > x.floor {
			return false
		}
	}
	if flags&baseHasSnapshot != 0 {
		x.snapshot = &Snapshot{}
		if !readSnapshot(r, x.snapshot) || x.snapshot.Version < x.gone() {
			return false
		}
	}
	return !r.bad && x.floor > 0
}

func appendBase(b []byte, x *base) []byte {
	w := writer{[]byte{recordBase, x.flags()}}
	w.str(x.key)
	w.b = appendBaseValue(w.b, x)
	out := writer{b}
	out.bytes(w.b)
	return out.b
}

func appendCut(b []byte, c *cut) []byte {
	w := writer{[]byte{recordCut}}
	w.u64(c.sequence)
	w.u64(uint64(c.position))
	w.u64(c.from)
	w.uint(c.bases)
	w.b = append(append(w.b, c.origin[:]...), c.before[:]...)
	out := writer{b}
	out.bytes(w.b)
	return out.b
}

// eachBase decodes a block and, if it is a base batch, yields its records. They are valid during
// their yield only.
func eachBase(block Block, yield baseYield) error {
	h, packed, err := openBlock(&block)
	if err != nil || !h.base {
		return err
	}
	return unpackBlock(&block, &h, packed, func(body reader) error { return readBases(&block, &h, body, yield) })
}

func readBases(b *Block, h *batchHeader, body reader, yield baseYield) error {
	var x base
	var e Event
	var t texts
	for range h.commits {
		rec := reader{b: body.bytes()}
		kind := rec.take(1)
		if body.bad || rec.bad {
			return damagedBlock(b, "a record is malformed")
		}
		var err error
		switch kind[0] {
		case recordBase:
			flags := rec.take(1)
			x.key = rec.str()
			if rec.bad || len(x.key) == 0 || len(x.key) > MaxKey || !readBaseValue(&rec, flags[0], &x) {
				return damagedBlock(b, "a base record is malformed")
			}
			err = yield(h, baseRecord{base: &x})
		case recordKept:
			if !readKept(&rec, h, &e, &t) {
				return damagedBlock(b, "the record of a kept event is malformed")
			}
			err = yield(h, baseRecord{kept: &e})
		case recordCut:
			c := cut{at: h.sequence, sequence: rec.u64(), position: Position(rec.u64()), from: rec.u64(),
				bases: rec.uint()}
			if len(rec.b) > 0 { // one that does not have them proves nothing of what stood before it
				rec.fill(c.origin[:])
				rec.fill(c.before[:])
			}
			if rec.bad || c.sequence == 0 || c.position == 0 || c.from == 0 || c.sequence > h.sequence ||
				c.position > h.first || c.from > h.sequence {
				return damagedBlock(b, "a cut record is malformed")
			}
			err = yield(h, baseRecord{cut: &c})
		default:
			return damagedBlock(b, "a base batch has a record of a kind that this program does not know")
		}
		if err != nil {
			return err
		}
	}
	if len(body.b) != 0 {
		return damagedBlock(b, "the records do not fill the batch")
	}
	return nil
}

// Entries of the index that are derived from base batches; see index.go for the
// others.

// floorPrefix is before the sequences of the base batches that keep an entity.
func floorPrefix(log LogName, key string) []byte {
	b := entityPrefix(log, key)
	b[0] = 'f'
	return b
}

func floorKey(log LogName, key string, sequence uint64) []byte {
	return entityKey(floorPrefix(log, key), Version(sequence))
}

// parseFloorKey reads what floorKey made; ok is false for another key.
func parseFloorKey(log LogName, k []byte) (key string, sequence uint64, ok bool) {
	prefix := indexPrefix('f', log)
	if len(k) < len(prefix)+2+8 || string(k[:len(prefix)]) != string(prefix) {
		return "", 0, false
	}
	rest := k[len(prefix):]
	n := int(binary.BigEndian.Uint16(rest))
	if len(rest) != 2+n+8 {
		return "", 0, false
	}
	return string(rest[2 : 2+n]), binary.BigEndian.Uint64(rest[2+n:]), true
}

// sealFloor encodes a base for the index: flags, and what appendBaseValue makes.
func sealFloor(x *base) []byte {
	b := make([]byte, 5, 64)
	b[4] = x.flags()
	return sealValue(appendBaseValue(b, x))
}

func openFloor(value []byte, x *base) bool {
	r, ok := openValue(value)
	if !ok {
		return false
	}
	flags := r.take(1)
	return !r.bad && readBaseValue(&r, flags[0], x) && len(r.b) == 0
}

func trimKey(log LogName) []byte { return indexPrefix('t', log) }

func sealTrim(c *cut) []byte {
	w := writer{make([]byte, 4, 56)}
	w.u64(c.sequence)
	w.u64(uint64(c.position))
	w.u64(c.from)
	w.u64(c.at)
	w.b = append(append(w.b, c.origin[:]...), c.before[:]...)
	return sealValue(w.b)
}

func openTrim(value []byte) (c cut, ok bool) {
	r, ok := openValue(value)
	if !ok {
		return cut{}, false
	}
	c = cut{sequence: r.u64(), position: Position(r.u64()), from: r.u64(), at: r.u64()}
	r.fill(c.origin[:])
	r.fill(c.before[:])
	return c, !r.bad && len(r.b) == 0 && c.sequence > 0 && c.position > 0
}

// keeps reports whether what a base batch keeps counts: it is of the retention that
// this cut ended, not of an earlier one, nor of one that did not come to its end.
func (c *cut) keeps(sequence uint64) bool { return sequence >= c.from && sequence <= c.at }
