package journal

import (
	"maps"
	"slices"
)

// verifiedTypes is what verification knows of a log's event catalogue.
type verifiedTypes struct {
	there map[string]typeEntry  // as the index has it
	found map[string]*typeEntry // as the log has it, as far as the index should
}

// catalogue reads what the index has.
func (l *logVerifier) catalogue() error {
	l.types = verifiedTypes{map[string]typeEntry{}, map[string]*typeEntry{}}
	prefix := typePrefix(l.log)
	return l.storage.Index.Scan(l.ctx, prefix, prefix, func(key, value []byte) error {
		name := string(key[len(prefix):])
		e, ok := decodeTypeEntry(value)
		if !ok {
			l.problem(l.log, 0, 0, "the index's count of the events of type %q is damaged; rebuild the index", name)
		}
		l.types.there[name] = e
		return nil
	})
}

// countTypes counts the events of a commit, as far as the index covers them: an entry of the
// catalogue may be ahead of the checkpoint.
func (l *logVerifier) countTypes(b Block, at Position, c *decodedCommit) {
	for i := range c.events {
		name, position := c.events[i].Type, at+Position(i)
		if b.Sequence > l.indexed.sequence && position > l.types.there[name].last {
			continue
		}
		e := l.types.found[name]
		if e == nil {
			e = &typeEntry{from: l.bases.cut.sequence}
			l.types.found[name] = e
		}
		e.add(position)
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
		case e.count == 0 || e.from < l.bases.cut.sequence: // damaged, which was told, or stale
		case found == nil:
			l.problem(l.log, 0, e.first, "the index has %d events of type %q, the log none; rebuild the index", e.count,
				name)
		case *found != e:
			l.problem(l.log, 0, e.first, "the index has %d events of type %q at %d to %d, the log %d at %d to %d; "+
				"rebuild the index",
				e.count, name, e.first, e.last, found.count, found.first, found.last)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.types.found)) {
		if _, ok := l.types.there[name]; !ok {
			found := l.types.found[name]
			l.problem(l.log, 0, found.first, "the index has no event of type %q, the log %d; rebuild the index", name,
				found.count)
		}
	}
}
