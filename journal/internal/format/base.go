package format

import (
	"encoding/binary"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A retention deletes the first batches of a log. First it writes what is still needed of them into the log itself,
// because everything derived must follow from what the log has. It writes base batches, which have format version 2
// and no commits. Their records are the events of entities without a snapshot (see kept.go), the state of each entity
// that loses events, and last the cut. Without the cut the others have no effect.
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

// Base is what is kept of an entity that has lost its first events.
type Base struct {
	Key      string
	Floor    journal.Version
	Kept     journal.Version   // of the first kept event; the others follow, up to floor. 0: there are none
	Snapshot *journal.Snapshot // nil: all events are kept, or the state is lost, as somebody wanted
}

// Trimmed is what a caller is told of the entity. The base of an index entry does not know its key.
func (x *Base) Trimmed(key string) journal.Trimmed {
	return journal.Trimmed{Key: key, Floor: x.Floor, Kept: x.Kept, Snapshot: x.Snapshot}
}

// Gone is the version up to which the events can no longer be read.
func (x *Base) Gone() journal.Version {
	t := x.Trimmed(x.Key)
	return t.Gone()
}

// flags are those of the record.
func (x *Base) flags() (flags byte) {
	if x.Snapshot != nil {
		flags = baseHasSnapshot
	}
	if x.Kept > 0 {
		flags |= baseHasKept
	}
	return flags
}

// BaseRecord is a record of a base batch: one of the three.
type BaseRecord struct {
	Base *Base
	Kept *journal.Event
	Cut  *Cut
}

// Cut says which batches a retention deleted.
type Cut struct {
	Sequence uint64           // of the first batch that is kept
	Position journal.Position // of the first event that is kept, or comes
	From     uint64           // sequence of the first base batch
	Bases    uint64
	Origin   journal.Stamp // of the log's first batch
	Before   journal.Stamp // of the batch with the event before position; zero if position is 1
	At       uint64        // sequence of the batch that holds it; not in the record
}

// appendBaseValue encodes a base without flags and key, as the index has it, too.
func appendBaseValue(b []byte, x *Base) []byte {
	w := writer{b}
	w.uint(uint64(x.Floor))
	if x.Kept > 0 {
		w.uint(uint64(x.Kept))
	}
	if x.Snapshot != nil {
		w.b = appendSnapshot(w.b, x.Snapshot)
	}
	return w.b
}

func readBaseValue(r *reader, flags byte, x *Base) bool {
	x.Floor, x.Kept, x.Snapshot = journal.Version(r.uint()), 0, nil
	if flags&baseHasKept != 0 {
		if x.Kept = journal.Version(r.uint()); x.Kept == 0 || x.Kept > x.Floor {
			return false
		}
	}
	if flags&baseHasSnapshot != 0 {
		x.Snapshot = &journal.Snapshot{}
		if !readSnapshot(r, x.Snapshot) || x.Snapshot.Version < x.Gone() {
			return false
		}
	}
	return !r.bad && x.Floor > 0
}

// AppendBase appends the record of a base.
func AppendBase(b []byte, x *Base) []byte {
	w := writer{[]byte{recordBase, x.flags()}}
	w.str(x.Key)
	w.b = appendBaseValue(w.b, x)
	out := writer{b}
	out.bytes(w.b)
	return out.b
}

// AppendCut appends the record of a cut.
func AppendCut(b []byte, c *Cut) []byte {
	w := writer{[]byte{recordCut}}
	w.u64(c.Sequence)
	w.u64(uint64(c.Position))
	w.u64(c.From)
	w.uint(c.Bases)
	w.b = append(append(w.b, c.Origin[:]...), c.Before[:]...)
	out := writer{b}
	out.bytes(w.b)
	return out.b
}

// EachBase decodes a block and, if it is a base batch, yields its records. They are valid during
// their yield only.
func EachBase(block journal.Block, yield BaseYield) error {
	h, packed, err := OpenBlock(&block)
	if err != nil || !h.Base {
		return err
	}
	return unpackBlock(&block, &h, packed, func(body reader) error { return readBases(&block, &h, body, yield) })
}

func readBases(b *journal.Block, h *BatchHeader, body reader, yield BaseYield) error {
	var x Base
	var e journal.Event
	var t Texts
	for range h.Commits {
		rec := reader{b: body.bytes()}
		kind := rec.take(1)
		if body.bad || rec.bad {
			return damagedBlock(b, "a record is malformed")
		}
		var err error
		switch kind[0] {
		case recordBase:
			flags := rec.take(1)
			x.Key = rec.str()
			if rec.bad || len(x.Key) == 0 || len(x.Key) > journal.MaxKey || !readBaseValue(&rec, flags[0], &x) {
				return damagedBlock(b, "a base record is malformed")
			}
			err = yield(h, BaseRecord{Base: &x})
		case recordKept:
			if !readKept(&rec, h, &e, &t) {
				return damagedBlock(b, "the record of a kept event is malformed")
			}
			err = yield(h, BaseRecord{Kept: &e})
		case recordCut:
			c := Cut{At: h.Sequence, Sequence: rec.u64(), Position: journal.Position(rec.u64()), From: rec.u64(),
				Bases: rec.uint()}
			if len(rec.b) > 0 { // one that does not have them proves nothing of what stood before it
				rec.fill(c.Origin[:])
				rec.fill(c.Before[:])
			}
			if rec.bad || c.Sequence == 0 || c.Position == 0 || c.From == 0 || c.Sequence > h.Sequence ||
				c.Position > h.First || c.From > h.Sequence {
				return damagedBlock(b, "a cut record is malformed")
			}
			err = yield(h, BaseRecord{Cut: &c})
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

// FloorPrefix is before the sequences of the base batches that keep an entity.
func FloorPrefix(log journal.LogName, key string) []byte {
	b := EntityPrefix(log, key)
	b[0] = 'f'
	return b
}

// FloorKey is the key of what the base batch with a sequence keeps of an entity.
func FloorKey(log journal.LogName, key string, sequence uint64) []byte {
	return EntityKey(FloorPrefix(log, key), journal.Version(sequence))
}

// ParseFloorKey reads what FloorKey made; ok is false for another key.
func ParseFloorKey(log journal.LogName, k []byte) (key string, sequence uint64, ok bool) {
	return parseNumbered(IndexPrefix('f', log), k)
}

// ParseEntityKey reads what [EntityKey] makes of an entity's prefix; ok is false for another key.
func ParseEntityKey(log journal.LogName, k []byte) (key string, version journal.Version, ok bool) {
	key, n, ok := parseNumbered(IndexPrefix('e', log), k)
	return key, journal.Version(n), ok
}

// parseNumbered reads a key that has, after a prefix, the key of an entity and a number.
func parseNumbered(prefix, k []byte) (key string, number uint64, ok bool) {
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

// SealFloor encodes a base for the index: flags, and what appendBaseValue makes.
func SealFloor(x *Base) []byte {
	b := make([]byte, 5, 64)
	b[4] = x.flags()
	return sealValue(appendBaseValue(b, x))
}

// OpenFloor decodes what SealFloor has encoded. The key of x stays as it is.
func OpenFloor(value []byte, x *Base) bool {
	r, ok := openValue(value)
	if !ok {
		return false
	}
	flags := r.take(1)
	return !r.bad && readBaseValue(&r, flags[0], x) && len(r.b) == 0
}

// TrimKey is the key of the cut of a log's latest retention.
func TrimKey(log journal.LogName) []byte { return IndexPrefix('t', log) }

// SealTrim encodes a cut for the index.
func SealTrim(c *Cut) []byte {
	w := writer{make([]byte, 4, 56)}
	w.u64(c.Sequence)
	w.u64(uint64(c.Position))
	w.u64(c.From)
	w.u64(c.At)
	w.b = append(append(w.b, c.Origin[:]...), c.Before[:]...)
	return sealValue(w.b)
}

// OpenTrim decodes what SealTrim has encoded.
func OpenTrim(value []byte) (c Cut, ok bool) {
	r, ok := openValue(value)
	if !ok {
		return Cut{}, false
	}
	c = Cut{Sequence: r.u64(), Position: journal.Position(r.u64()), From: r.u64(), At: r.u64()}
	r.fill(c.Origin[:])
	r.fill(c.Before[:])
	return c, !r.bad && len(r.b) == 0 && c.Sequence > 0 && c.Position > 0
}

// Keeps reports whether what a base batch keeps counts: it is of the retention that
// this cut ended, not of an earlier one, nor of one that did not come to its end.
func (c *Cut) Keeps(sequence uint64) bool { return sequence >= c.From && sequence <= c.At }
