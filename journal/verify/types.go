package verify

import (
	"maps"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// verifiedTypes is what verification knows of a log's event catalogue.
type verifiedTypes struct {
	there map[string]format.TypeEntry  // as the index has it
	found map[string]*format.TypeEntry // as the log has it, as far as the index should
}

// catalogue reads what the index has.
func (l *logVerifier) catalogue() error {
	l.types = verifiedTypes{map[string]format.TypeEntry{}, map[string]*format.TypeEntry{}}
	prefix := format.TypePrefix(l.log)
	return l.storage.Index.Scan(l.ctx, prefix, prefix, func(key, value []byte) error {
		name := string(key[len(prefix):])
		e, ok := format.DecodeTypeEntry(value)
		if !ok {
			l.problem(l.log, 0, 0, "the index's count of the events of type %q is damaged; rebuild the index", name)
		}
		l.types.there[name] = e
		return nil
	})
}

// countTypes counts the events of a commit, as far as the index covers them: an entry of the
// catalogue may be ahead of the checkpoint.
func (l *logVerifier) countTypes(b journal.Block, at journal.Position, c *format.DecodedCommit) {
	for i := range c.Events {
		name, position := c.Events[i].Type, at+journal.Position(i)
		if b.Sequence > l.indexed.Sequence && position > l.types.there[name].Last {
			continue
		}
		e := l.types.found[name]
		if e == nil {
			e = &format.TypeEntry{From: l.bases.cut.Sequence}
			l.types.found[name] = e
		}
		e.Add(position)
	}
}

// checkTypes holds the catalogue to the log. One of an earlier cut is completed when the
// journal is opened.
func (l *logVerifier) checkTypes() {
	if l.damages > 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(l.types.there)) {
		e := l.types.there[name]
		switch found := l.types.found[name]; {
		case e.Count == 0 || e.From < l.bases.cut.Sequence: // damaged, which was told, or stale
		case found == nil:
			l.problem(l.log, 0, e.First, "the index has %d events of type %q, the log none; rebuild the index", e.Count,
				name)
		case *found != e:
			l.problem(l.log, 0, e.First, "the index has %d events of type %q at %d to %d, the log %d at %d to %d; "+
				"rebuild the index",
				e.Count, name, e.First, e.Last, found.Count, found.First, found.Last)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.types.found)) {
		if _, ok := l.types.there[name]; !ok {
			found := l.types.found[name]
			l.problem(l.log, 0, found.First, "the index has no event of type %q, the log %d; rebuild the index", name,
				found.Count)
		}
	}
}
