package format

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// An entity without a snapshot needs its events. So a retention keeps them: it writes those of the batches that it
// deletes, and those that an earlier retention kept, into base batches, each in a record. Readers of the log begin
// after them. Readers of their entity get them first.
//
//	record of a kept event
//	uint  length of the rest
//	u8    5
//	str   key
//	uint  version
//	…     the event, as its entry in the index has it after the checksum
//
// The kept events of a retention come in the order of their positions, before its base records.
const recordKept = 5

// AppendKept appends the record of a kept event.
func AppendKept(b []byte, e *journal.Event) []byte {
	w := writer{[]byte{recordKept}}
	w.str(e.Key)
	w.uint(uint64(e.Version))
	w.b = appendEventValue(w.b, e)
	out := writer{b}
	out.bytes(w.b)
	return out.b
}

// readKept takes the rest of a record off r. e is the one before, or zero: positions increase. Bytes after the fields
// are skipped, as in all records. Byte slices are views.
func readKept(r *reader, h *BatchHeader, e *journal.Event, t *Texts) bool {
	before := e.Position
	*e = journal.Event{Log: h.Log, Key: r.str(), Version: journal.Version(r.uint())}
	return readEventValue(r, e, t) && e.Version > 0 && e.Position > before && e.Position < h.First &&
		len(e.Key) > 0 && len(e.Key) <= journal.MaxKey && len(e.CommandID) > 0 &&
		len(e.CommandID) <= journal.MaxCommandID &&
		len(e.CommandType) <= journal.MaxTypeName && len(e.Type) <= journal.MaxTypeName &&
		len(e.ContentType) > 0 && len(e.ContentType) <= journal.MaxTypeName
}

// Entries of the index. As those of base records they count if the cut in force keeps their batch.

func KeptPrefix(log journal.LogName, key string) []byte {
	b := EntityPrefix(log, key)
	b[0] = 'k'
	return b
}

// KeptPlace is the key of an entity's event of a version in a base batch. Each retention writes what it keeps again, in
// later batches: so the batch comes first, and those of earlier retentions cost its readers nothing.
func KeptPlace(prefix []byte, sequence uint64, v journal.Version) []byte {
	return EntityKey(binary.BigEndian.AppendUint64(slices.Clip(prefix), sequence), v)
}

// KeptKey is the key of an event that the base batch with a sequence keeps.
func KeptKey(e *journal.Event, sequence uint64) []byte {
	return KeptPlace(KeptPrefix(e.Log, e.Key), sequence, e.Version)
}

// ParseKeptKey decodes a key of KeptKey, without the prefix of its entity.
func ParseKeptKey(prefix, key []byte) (v journal.Version, sequence uint64, ok bool) {
	if len(key) != len(prefix)+16 {
		return 0, 0, false
	}
	rest := key[len(prefix):]
	return journal.Version(binary.BigEndian.Uint64(rest[8:])), binary.BigEndian.Uint64(rest), true
}

// KeptTypeKey is the key of the events of a type that the base batch with a sequence keeps.
func KeptTypeKey(log journal.LogName, name string, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append(IndexPrefix('z', log), name...), sequence)
}

// ParseKeptTypeKey decodes a key of KeptTypeKey, without the prefix of its log.
func ParseKeptTypeKey(prefix, key []byte) (name string, sequence uint64, ok bool) {
	if len(key) < len(prefix)+8 {
		return "", 0, false
	}
	rest := key[len(prefix):]
	return string(rest[:len(rest)-8]), binary.BigEndian.Uint64(rest[len(rest)-8:]), true
}

// KeptTypes counts the events that a base batch keeps, by type.
type KeptTypes map[string]*TypeEntry

// Add counts a kept event.
func (t *KeptTypes) Add(e *journal.Event) {
	if *t == nil {
		*t = KeptTypes{}
	}
	entry := (*t)[e.Type]
	if entry == nil {
		entry = &TypeEntry{}
		(*t)[e.Type] = entry
	}
	entry.Add(e.Position)
}

// Names are those of the types, in order.
func (t KeptTypes) Names() []string { return slices.Sorted(maps.Keys(t)) }

// Pairs appends the entries of the index.
func (t KeptTypes) Pairs(pairs []journal.Pair, b journal.Block) []journal.Pair {
	for _, name := range t.Names() {
		pairs = append(pairs, t.Pair(name, b))
	}
	return pairs
}

// Pair is the index entry of a type in a base batch.
func (t KeptTypes) Pair(name string, b journal.Block) journal.Pair {
	entry := *t[name]
	entry.From = b.Sequence
	return journal.Pair{Key: KeptTypeKey(b.Log, name, b.Sequence), Value: EncodeTypeEntry(&entry)}
}
