package format

import "github.com/bulkhead-wasm/bulkhead/journal"

// TypeEntry is an entry of the catalogue.
type TypeEntry struct {
	// From is the sequence of the batch from which on events are counted: that of the log's
	// Cut, 0 if there is none. One of an earlier cut is stale: a retention was interrupted
	// before it could take off what it deleted.
	From        uint64
	Count       uint64
	First, Last journal.Position
}

// TypePrefix is what the keys of a log's event types begin with.
func TypePrefix(log journal.LogName) []byte { return IndexPrefix('y', log) }

// TypeKey is the key of an event type.
func TypeKey(log journal.LogName, name string) []byte { return append(TypePrefix(log), name...) }

// EncodeTypeEntry encodes an entry of the event catalogue.
func EncodeTypeEntry(e *TypeEntry) []byte {
	w := writer{make([]byte, 4, 40)}
	w.u64(e.From)
	w.uint(e.Count)
	w.u64(uint64(e.First))
	w.u64(uint64(e.Last))
	return sealValue(w.b)
}

// DecodeTypeEntry is total.
func DecodeTypeEntry(b []byte) (e TypeEntry, ok bool) {
	r, ok := openValue(b)
	if !ok {
		return TypeEntry{}, false
	}
	e = TypeEntry{From: r.u64(), Count: r.uint(), First: journal.Position(r.u64()), Last: journal.Position(r.u64())}
	return e, !r.bad && len(r.b) == 0 && e.Count > 0 && e.First > 0 && e.First <= e.Last &&
		e.Count-1 <= uint64(e.Last-e.First)
}

// Add counts an event after all that were counted.
func (e *TypeEntry) Add(at journal.Position) {
	if e.Count == 0 {
		e.First = at
	}
	e.Count++
	e.Last = at
}
