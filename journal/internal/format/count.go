package format

import "github.com/bulkhead-wasm/bulkhead/journal"

// CountEntry is a log's entry in the index: the number of bytes of the batches from sequence Cut (0: from the first)
// to sequence Last. Next is the position of the first event after them.
type CountEntry struct {
	Cut, Last uint64
	Next      journal.Position
	Bytes     int64
}

// CountKey is the key of a log's count of bytes.
func CountKey(log journal.LogName) []byte { return IndexPrefix('b', log) }

// EncodeCount encodes a count for the index.
func EncodeCount(c CountEntry) []byte {
	w := writer{make([]byte, 4, 36)}
	w.u64(c.Cut)
	w.u64(c.Last)
	w.u64(uint64(c.Next))
	w.u64(uint64(c.Bytes))
	return sealValue(w.b)
}

// DecodeCount is total.
func DecodeCount(b []byte) (c CountEntry, ok bool) {
	r, ok := openValue(b)
	if !ok {
		return CountEntry{}, false
	}
	c = CountEntry{Cut: r.u64(), Last: r.u64(), Next: journal.Position(r.u64()), Bytes: int64(r.u64())}
	return c, !r.bad && len(r.b) == 0 && c.Bytes >= 0
}
