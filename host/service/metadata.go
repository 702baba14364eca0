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

// The metadata of an event in the log are what its guest wrote. After them, separated by a pair without a
// name, come the pairs of its command that are kept with it. Guests cannot write such a pair, so the two
// parts can always be told apart: a guest that applies the event again gets only its own pairs, as at the
// first time.

// Bounds of what an outcome keeps of its command's metadata, in bytes. A command with 16 KiB of metadata and
// 100,000 events must not take gigabytes in the log.
const (
	maxKept       = 1 << 10 // for each event
	maxKeptCommit = 1 << 20 // for all events of a command together
)

// TraceParent is the name of the metadata pair with a W3C trace context.
const TraceParent = "traceparent"

// TraceID identifies a W3C trace; zero means none. Its text has 32 hexadecimal digits.
type TraceID [16]byte

// TraceOf is the trace to which metadata belong. It is total: an invalid trace context gives zero.
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

// OwnMetadata is the part of an event's metadata in the log that its guest wrote. It is total.
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

// Pairs yields each name in metadata once, with its first value, as views. The metadata are those of a
// command, or those of an event in the log, with both parts. It is total: it ends at the first malformed
// pair, and skips names that are not UTF-8.
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

// FoldName removes the case of a metadata name: names that differ only in case become equal.
func FoldName(name string) string {
	return strings.Map(func(r rune) rune {
		folded := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			folded = min(folded, other)
		}
		return folded
	}, name)
}

// RepeatedName is a name that occurs more than once in metadata, in any case; empty if there is none. It is
// total.
func RepeatedName(m abi.Metadata) string {
	_, _, rest, _ := m.Next()
	if len(rest) == 0 { // almost always
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

// keep adds the command's metadata to each event, as far as there is room: the trace context first, and no
// pairs that the event's guest has written itself.
func keep(m abi.Metadata, events []journal.NewEvent) {
	if len(m) == 0 || len(events) == 0 {
		return
	}
	kept := kept(m, min(maxKept, maxKeptCommit/len(events)))
	if len(kept) == 0 {
		return
	}
	mark := abi.Metadata(nil).AppendPair("", "")
	whole := append(mark, kept...) // for all events without pairs of their own
	for i := range events {
		e := &events[i]
		if len(e.Metadata) == 0 {
			e.Metadata = whole
			continue
		}
		own := abi.Metadata(e.Metadata)
		added := own[:len(own):len(own)] // a copy: other data may follow the guest's bytes
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

// kept selects the pairs of a command's metadata that fit into room bytes. A pair that does not fit is left
// out, but later ones may fit.
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
