package service

import (
	"encoding/hex"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// The metadata of an event in the log are what its guest wrote, and, after a pair without
// a name, the pairs of its command that are kept with it. Guests cannot write such a pair,
// so what they wrote can always be told from what was kept: a guest that applies the event
// again gets its own pairs only, as when it applied it first.

// Bounds of what an outcome keeps of its command's metadata, in bytes. A command of 16 KiB
// of metadata with 100,000 events must not become gigabytes in the log.
const (
	maxKept       = 1 << 10 // for each event
	maxKeptCommit = 1 << 20 // for all events of a command together
)

// TraceParent is the name under which metadata carry the trace context of the W3C.
const TraceParent = "traceparent"

// TraceID names a trace of the W3C; zero is none. It is written with 32 hexadecimal digits.
type TraceID [16]byte

// TraceOf is the trace that metadata belong to. It is total: what is no trace context is none.
func TraceOf(m abi.Metadata) (id TraceID) {
	parent, ok := m.Get(TraceParent)
	if !ok || len(parent) < 55 || parent[2] != '-' || parent[35] != '-' {
		return TraceID{}
	}
	if _, err := hex.Decode(id[:], parent[3:35]); err != nil {
		return TraceID{}
	}
	return id
}

// String is the text of the id.
func (t TraceID) String() string { return hex.EncodeToString(t[:]) }

// OwnMetadata is what a guest wrote of the metadata of an event in the log. It is total.
func OwnMetadata(m abi.Metadata) abi.Metadata {
	for rest := m; ; {
		name, _, next, ok := rest.Next()
		if !ok {
			return m
		}
		if len(name) == 0 {
			at := len(m) - len(rest)
			return m[:at:at]
		}
		rest = next
	}
}

// Pairs yields each name in metadata once, with its first value, as views: the pairs of a
// command, or those of an event that its guest wrote and those that were kept. It is total:
// what is no pair ends it, and a name that is no UTF-8 is passed over.
func Pairs(m abi.Metadata) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		var seen map[string]struct{} // nil before the second pair
		for first := []byte(nil); ; {
			name, value, rest, ok := m.Next()
			if !ok {
				return
			}
			m = rest
			switch {
			case len(name) == 0 || !utf8.Valid(name):
				continue
			case first == nil:
				first = name
			default:
				if seen == nil {
					seen = map[string]struct{}{string(first): {}}
				}
				if _, again := seen[string(name)]; again {
					continue
				}
				seen[string(name)] = struct{}{}
			}
			if !yield(name, value) {
				return
			}
		}
	}
}

// FoldName is a name of metadata without its case: two that differ in case only have the same.
func FoldName(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		return least
	}, name)
}

// RepeatedName is a name that metadata have more than once, in whatever case; empty if they have none. It is total.
func RepeatedName(m abi.Metadata) string {
	_, _, rest, _ := m.Next()
	if len(rest) == 0 { // as nearly always
		return ""
	}
	seen := map[string]struct{}{}
	for {
		name, _, rest, ok := m.Next()
		if !ok {
			return ""
		}
		folded := FoldName(string(name))
		if _, again := seen[folded]; again {
			return string(name)
		}
		seen[folded], m = struct{}{}, rest
	}
}

// keep adds to each event what is kept of its command's metadata: the pairs that the
// event's guest has not written itself, the trace context first, as far as there is room.
func keep(m abi.Metadata, events []journal.NewEvent) {
	if len(m) == 0 || len(events) == 0 {
		return
	}
	kept := kept(m, min(maxKept, maxKeptCommit/len(events)))
	if len(kept) == 0 {
		return
	}
	mark := abi.Metadata(nil).AppendPair("", "")
	whole := append(mark, kept...) // for all that have no pairs of their own
	for i := range events {
		e := &events[i]
		if len(e.Metadata) == 0 {
			e.Metadata = whole
			continue
		}
		own := abi.Metadata(e.Metadata)
		added := own[:len(own):len(own)] // a copy: the guest's bytes may have others after them
		for name, value := range Pairs(kept) {
			if _, has := own.Get(string(name)); has {
				continue
			}
			if len(added) == len(own) {
				added = added.AppendPair("", "")
			}
			added = added.AppendPair(string(name), string(value))
		}
		e.Metadata = added
	}
}

// kept is what fits into so many bytes of a command's metadata. A pair that does not is left
// out, and those after it may still fit.
func kept(m abi.Metadata, room int) (all abi.Metadata) {
	add := func(name, value []byte) {
		if n := 4 + len(name) + len(value); n <= room-len(all) {
			all = all.AppendPair(string(name), string(value))
		}
	}
	if trace, ok := m.Get(TraceParent); ok {
		add([]byte(TraceParent), trace)
	}
	for name, value := range Pairs(m) {
		if string(name) != TraceParent {
			add(name, value)
		}
	}
	return all
}
