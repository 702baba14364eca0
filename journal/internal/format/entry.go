package format

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Keys of the index. Everything in it is derived from the log, so its layout may
// change between releases; a changed layout means a new IndexLayout, and Open makes
// the index anew.
//
//	'e' log key u64 version   an event of an entity: position, times, stamp, fields
//	'a' u32 day log command id
//	                          the place of the command's commit; see answers.go
//	'a' u32 day u16 0         for how long the answers of the day were promised. It may be missing
//	'c' log                   checkpoint: how far the log is indexed
//	's' log key               the latest snapshot of an entity; see snapshot.go
//	'f' log key u64 sequence  what a base batch keeps of an entity; see base.go
//	'k' log key u64 sequence u64 version
//	                          an event that a base batch keeps of an entity; see kept.go
//	'z' log type u64 sequence events of a type that a base batch keeps
//	't' log                   the latest retention's cut
//	'y' log type              events of a type that the log has; see types.go
//	'b' log                   bytes of the log's batches; see count.go. It may be missing
//	'v'                       layout
//
// log and key carry a u16 length, big-endian like all numbers in keys, so that
// byte order is the order of versions and no name is a prefix of another. Values
// start with a CRC-32C of the rest.
const IndexLayout = 6

// IndexPrefix is what the keys of a kind begin with that belong to a log.
func IndexPrefix(kind byte, log journal.LogName) []byte {
	return appendIndexPrefix(make([]byte, 0, 32+len(log)), kind, log)
}

func appendIndexPrefix(b []byte, kind byte, log journal.LogName) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(log)))
	return append(b, log...)
}

// EntityPrefix is what the keys of an entity's events begin with.
func EntityPrefix(log journal.LogName, key string) []byte {
	return AppendEntityPrefix(make([]byte, 0, 32+len(log)+len(key)), log, key)
}

// AppendEntityPrefix appends EntityPrefix.
func AppendEntityPrefix(b []byte, log journal.LogName, key string) []byte {
	b = appendIndexPrefix(b, 'e', log)
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))
	return append(b, key...)
}

// EntityKey is the key of an entity's event, by EntityPrefix and version.
func EntityKey(prefix []byte, v journal.Version) []byte {
	return binary.BigEndian.AppendUint64(prefix[:len(prefix):len(prefix)], uint64(v))
}

// EntityVersion is the version in a key of EntityKey.
func EntityVersion(prefix, key []byte) (journal.Version, bool) {
	if len(key) != len(prefix)+8 {
		return 0, false
	}
	return journal.Version(binary.BigEndian.Uint64(key[len(prefix):])), true
}

// IndexGroup is the length of the beginning of a key, or of a prefix of a scan, of the index that all
// entries have in common which are read together: the events of an entity, and what retentions
// left of it. It is 0 if there is no such beginning. A store that knows which groups are where has
// less to look into. It is total.
func IndexGroup(key []byte) int {
	if len(key) < 3 || key[0] != 'e' && key[0] != 'f' {
		return 0
	}
	at := 3 + int(binary.BigEndian.Uint16(key[1:]))
	if len(key) < at+2 {
		return 0
	}
	if at += 2 + int(binary.BigEndian.Uint16(key[at:])); len(key) < at {
		return 0
	}
	return at
}

// CheckpointKey is the key of how far a log is indexed.
func CheckpointKey(log journal.LogName) []byte { return IndexPrefix('c', log) }

// CheckpointLog is the log of a checkpoint's key, empty if the key is not one.
func CheckpointLog(key []byte) journal.LogName {
	if len(key) < 3 || key[0] != 'c' || int(binary.BigEndian.Uint16(key[1:])) != len(key)-3 {
		return ""
	}
	return journal.LogName(key[3:])
}

// LayoutKey is the key of the layout of all other keys.
var LayoutKey = []byte{'v'}

// sealValue puts the checksum into the four bytes that precede a value.
func sealValue(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

func openValue(b []byte) (reader, bool) {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return reader{}, false
	}
	return reader{b: b[4:]}, true
}

// EncodeIndexEvent encodes an event for the index.
func EncodeIndexEvent(e *journal.Event) []byte { return AppendIndexEvent(nil, e) }

// AppendIndexEvent appends what EncodeIndexEvent returns.
func AppendIndexEvent(b []byte, e *journal.Event) []byte {
	out := appendEventValue(append(b, 0, 0, 0, 0), e)
	sealValue(out[len(b):])
	return out
}

// appendEventValue encodes an event without log, key and version, as records of kept events have it, too.
func appendEventValue(b []byte, e *journal.Event) []byte {
	w := writer{b}
	w.u64(uint64(e.Position))
	w.u64(uint64(e.Time))
	w.u64(uint64(e.CommandTime))
	w.b = append(w.b, e.Stamp[:]...)
	w.uint(e.CommandFuel)
	w.str(e.Type)
	w.str(e.ContentType)
	w.str(string(e.CommandID))
	w.str(e.CommandType)
	w.bytes(e.Metadata)
	w.bytes(e.Data)
	return w.b
}

// DecodeIndexEvent fills in what the value says; the slices are views.
func DecodeIndexEvent(b []byte, e *journal.Event, t *Texts) bool {
	r, ok := openValue(b)
	return ok && readEventValue(&r, e, t) && len(r.b) == 0
}

func readEventValue(r *reader, e *journal.Event, t *Texts) bool {
	e.Position, e.Time, e.CommandTime = journal.Position(r.u64()), journal.UnixNano(r.u64()), journal.UnixNano(r.u64())
	r.fill(e.Stamp[:])
	e.CommandFuel = r.uint()
	e.Type, e.ContentType = t.types.str(r.bytes()), t.types.str(r.bytes())
	e.CommandID, e.CommandType = t.ID(r.bytes()), t.types.str(r.bytes())
	e.Metadata, e.Data = r.bytes(), r.bytes()
	return !r.bad
}

// Place is the place of a commit in its log.
type Place struct {
	First    journal.Position // of the batch
	Sequence uint64           // of the batch
	Ordinal  uint64           // of the commit in the batch
	Time     journal.UnixNano // of the batch
}

func encodePlace(p Place) []byte { return AppendPlace(nil, p) }

// AppendPlace appends a place as the index has it.
func AppendPlace(b []byte, p Place) []byte {
	w := writer{append(b, 0, 0, 0, 0)}
	w.u64(uint64(p.First))
	w.u64(p.Sequence)
	w.uint(p.Ordinal)
	w.u64(uint64(p.Time))
	sealValue(w.b[len(b):])
	return w.b
}

// DecodePlace decodes what AppendPlace has appended.
func DecodePlace(b []byte) (p Place, ok bool) {
	r, ok := openValue(b)
	if !ok {
		return Place{}, false
	}
	p = Place{First: journal.Position(r.u64()), Sequence: r.u64(), Ordinal: r.uint(), Time: journal.UnixNano(r.u64())}
	return p, !r.bad && len(r.b) == 0
}

// Checkpoint says that all batches of a log up to Sequence are in the index. Next is the position of the first event
// after them.
type Checkpoint struct {
	Sequence uint64
	Next     journal.Position
}

// EncodeCheckpoint encodes a checkpoint for the index.
func EncodeCheckpoint(c Checkpoint) []byte {
	w := writer{make([]byte, 4, 20)}
	w.u64(c.Sequence)
	w.u64(uint64(c.Next))
	return sealValue(w.b)
}

// DecodeCheckpoint decodes what EncodeCheckpoint has encoded.
func DecodeCheckpoint(b []byte) (c Checkpoint, ok bool) {
	r, ok := openValue(b)
	if !ok {
		return Checkpoint{}, false
	}
	c = Checkpoint{Sequence: r.u64(), Next: journal.Position(r.u64())}
	return c, !r.bad && len(r.b) == 0
}
