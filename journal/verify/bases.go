package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// verifiedBases is what verification knows of a log's retentions.
type verifiedBases struct {
	cut    format.Cut                 // as the index has it
	floors map[string]journal.Version // likewise
	values map[string][32]byte        // of the index by its keys, hashed, as the records of base batches make them
	kept   uint64                     // entries of the index for kept events, as these make them
	found  format.Cut                 // the last one in the log
	stray  []*strayBases              // base batches after the cut before
	beyond bool                       // there are some that the index does not cover yet
}

// strayBases is a base batch of which it is not known yet whether it counts.
type strayBases struct {
	sequence, records uint64
	kept              map[string]versions // events that it keeps
	claims            map[string]versions // what its base records say of that
	first, last       journal.Position    // of these events
	types             format.KeptTypes
}

// versions are those from first to last.
type versions struct{ first, last journal.Version }

// join adds some that follow on v, which may be empty.
func (v *versions) join(next versions) bool {
	if v.last == 0 {
		*v = next
		return true
	}
	dense := next.first == v.last+1
	v.last = next.last
	return dense
}

// retained reads what the index has of retentions.
func (l *logVerifier) retained() (err error) {
	b := &l.bases
	b.floors, b.values = map[string]journal.Version{}, map[string][32]byte{}
	if b.cut, err = stored.TrimOf(l.ctx, l.storage.Index, l.log); err != nil {
		if journal.KindOf(err) != journal.KindCorrupt {
			return err
		}
		l.problem(l.log, 0, 0, "the index entry of the retention is damaged; rebuild the index")
	}
	prefix := format.IndexPrefix('f', l.log)
	err = l.storage.Index.Scan(l.ctx, prefix, prefix, func(k, value []byte) error {
		var x format.Base
		if key, sequence, ok := format.ParseFloorKey(l.log, k); ok && b.cut.Keeps(sequence) &&
			format.OpenFloor(value, &x) {
			b.floors[key] = x.Floor
		}
		return nil
	})
	if err != nil {
		return err
	}
	first, err := stored.FirstSequence(l.ctx, l.storage.Log, l.log)
	if err != nil || first <= max(b.cut.Sequence, 1) {
		return err
	}
	// The index does not know of the latest retention yet; the log does.
	type kept struct {
		sequence uint64
		floor    journal.Version
	}
	all := map[string]kept{}
	return l.storage.Log.Blocks(l.ctx, l.log, 0, func(block journal.Block) error {
		err := format.EachBase(block, func(h *format.BatchHeader, r format.BaseRecord) error {
			switch {
			case r.Base != nil:
				all[r.Base.Key] = kept{h.Sequence, r.Base.Floor}
				return nil
			case r.Cut == nil:
				return nil
			}
			b.cut, b.floors = *r.Cut, map[string]journal.Version{}
			for key, k := range all {
				if r.Cut.Keeps(k.sequence) {
					b.floors[key] = k.floor
				}
			}
			return nil
		})
		if journal.KindOf(err) == journal.KindCorrupt {
			return nil // it is found again, and told
		}
		return err
	})
}

// versionOf is the version at which an entity's last commit left it.
func (l *logVerifier) versionOf(key string) verified {
	if v, known := l.versions[key]; known {
		return v
	}
	return verified{version: l.bases.floors[key]}
}

// entities counts those of which there is anything.
func (l *logVerifier) entities() int {
	n := len(l.versions)
	for key := range l.bases.floors {
		if _, known := l.versions[key]; !known {
			n++
		}
	}
	return n
}

// base returns what checks the records of a base batch.
func (l *logVerifier) base(block journal.Block) format.BaseYield {
	b := &l.bases
	var here *strayBases
	return func(h *format.BatchHeader, r format.BaseRecord) error {
		if h.Sequence > l.indexed.Sequence {
			b.beyond = true
		}
		if r.Cut != nil {
			l.cutFound(block, r.Cut)
			return nil
		}
		if here == nil {
			here = &strayBases{sequence: h.Sequence, kept: map[string]versions{}, claims: map[string]versions{}}
			b.stray = append(b.stray, here)
		}
		here.records++
		if r.Kept != nil {
			return l.keptEvent(block, h, here, r.Kept)
		}
		x := r.Base
		if x.Kept > 0 {
			here.claims[x.Key] = versions{x.Kept, x.Floor}
		}
		if h.Sequence >= b.cut.Sequence { // or it is about to be removed, with what the index has of it
			b.values[string(format.FloorKey(l.log, x.Key, h.Sequence))] = sha256.Sum256(format.SealFloor(x))
		}
		if was := l.versionOf(x.Key).version; x.Floor > was && l.damages == 0 {
			l.problem(l.log, block.Sequence, block.First, "a retention keeps entity %q as it was before version %d, "+
				"its last commit left it at %d", x.Key, x.Floor+1, was)
		}
		return nil
	}
}

// keptEvent checks the record of a kept event, and what the index has of it.
func (l *logVerifier) keptEvent(block journal.Block, h *format.BatchHeader, here *strayBases, e *journal.Event) error {
	b := &l.bases
	of := here.kept[e.Key]
	if !of.join(versions{e.Version, e.Version}) {
		l.problem(l.log, block.Sequence, e.Position,
			"a retention keeps version %d of entity %q, and not the one before", e.Version, e.Key)
	}
	here.kept[e.Key] = of
	if here.first == 0 {
		here.first = e.Position
	}
	here.last = e.Position
	if h.Sequence < b.cut.Sequence {
		return nil
	}
	here.types.Add(e)
	types := here.types.Pair(e.Type, block)
	b.values[string(types.Key)] = sha256.Sum256(types.Value)
	got, ok, err := l.storage.Index.Get(l.ctx, format.KeptKey(e, h.Sequence))
	if err != nil || !ok && h.Sequence > l.indexed.Sequence {
		return err
	}
	b.kept++
	if !ok || string(got) != string(format.EncodeIndexEvent(e)) {
		l.problem(l.log, block.Sequence, e.Position,
			"the index %s version %d of entity %q, which a retention keeps; rebuild the index", hasOther(ok), e.Version,
			e.Key)
	}
	return nil
}

// cutFound checks what a retention has written before its cut.
func (l *logVerifier) cutFound(block journal.Block, c *format.Cut) {
	b := &l.bases
	bad := func(format string, args ...any) { l.problem(l.log, block.Sequence, block.First, format, args...) }
	there, kept, claims := uint64(0), map[string]versions{}, map[string]versions{}
	whole, at := true, journal.Position(0)
	for _, batch := range b.stray {
		if batch.sequence < c.From {
			continue
		}
		there += batch.records
		for key, some := range batch.kept {
			of := kept[key]
			whole = of.join(some) && whole
			kept[key] = of
		}
		maps.Copy(claims, batch.claims)
		if batch.last > 0 {
			whole = whole && batch.first > at
			at = batch.last
		}
	}
	// Unless a later retention has deleted them, and only just not this cut.
	if c.From > l.counts.Deleted && l.damages == 0 {
		if there != c.Bases {
			bad("a retention says that it keeps %d records, but keeps %d", c.Bases, there)
		}
		if !whole || at >= c.Position || !maps.Equal(kept, claims) {
			bad("a retention keeps other events than it says")
		}
	}
	if c.Sequence < b.found.Sequence {
		bad("a retention keeps what an earlier one has deleted")
	}
	b.found, b.stray = *c, nil
}

// checkBases holds what the index has of retentions to the log.
func (l *logVerifier) checkBases() error {
	b := &l.bases
	if b.beyond || l.damages > 0 {
		return nil // opening the journal completes it; or it cannot be told
	}
	if b.found.Bases = b.cut.Bases; b.found != b.cut { // the index does not have how many there are
		l.problem(l.log, 0, 0, "the index says that a retention kept position %d and what follows, the log says %d; "+
			"rebuild the index", b.cut.Position, b.found.Position)
	}
	entries, kept := 0, uint64(0)
	for _, kind := range []byte("fkz") {
		prefix := format.IndexPrefix(kind, l.log)
		err := l.storage.Index.Scan(l.ctx, prefix, prefix, func(k, value []byte) error {
			behind := 8 // the sequence of the batch, and what follows it
			if kind == 'k' {
				behind = 16
			}
			if at := len(k) - behind; at >= len(prefix) && binary.BigEndian.Uint64(k[at:]) < b.cut.Sequence {
				return nil // about to be removed
			}
			if kind == 'k' {
				kept++
				return nil
			}
			entries++
			if want, ok := b.values[string(k)]; ok && sha256.Sum256(value) == want {
				return nil
			}
			if kind == 'z' {
				l.problem(l.log, 0, 0, "the index has other types of kept events than the log; rebuild the index")
				return nil
			}
			key, _, _ := format.ParseFloorKey(l.log, k)
			l.problem(l.log, 0, 0, "the index has something else than the log of what a retention kept of entity %q; "+
				"rebuild the index", key)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if entries < len(b.values) {
		l.problem(l.log, 0, 0, "the index has %d entries of what retentions kept, the log has %d; rebuild the index",
			entries, len(b.values))
	}
	if kept != b.kept {
		l.problem(l.log, 0, 0, "the index has %d events that retentions kept, the log has %d; rebuild the index",
			kept, b.kept)
	}
	return nil
}
