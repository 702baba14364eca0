package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
)

// verifiedBases is what verification knows of a log's retentions.
type verifiedBases struct {
	cut    cut                 // as the index has it
	floors map[string]Version  // likewise
	values map[string][32]byte // of the index by its keys, hashed, as the records of base batches make them
	kept   uint64              // entries of the index for kept events, as these make them
	found  cut                 // the last one in the log
	stray  []*strayBases       // base batches behind the cut before
	beyond bool                // there are some that the index does not cover yet
}

// strayBases is a base batch of which it is not known yet whether it counts.
type strayBases struct {
	sequence, records uint64
	kept              map[string]versions // events that it keeps
	claims            map[string]versions // what its base records say of that
	first, last       Position            // of these events
	types             keptTypes
}

// versions are those from first to last.
type versions struct{ first, last Version }

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
	b.floors, b.values = map[string]Version{}, map[string][32]byte{}
	if b.cut, err = trimOf(l.ctx, l.storage.Index, l.log); err != nil {
		if KindOf(err) != KindCorrupt {
			return err
		}
		l.problem(l.log, 0, 0, "the index entry of the retention is damaged; rebuild the index")
	}
	prefix := indexPrefix('f', l.log)
	err = l.storage.Index.Scan(l.ctx, prefix, prefix, func(k, value []byte) error {
		var x base
		if key, sequence, ok := parseFloorKey(l.log, k); ok && b.cut.keeps(sequence) && openFloor(value, &x) {
			b.floors[key] = x.floor
		}
		return nil
	})
	if err != nil {
		return err
	}
	first, err := firstSequence(l.ctx, l.storage.Log, l.log)
	if err != nil || first <= max(b.cut.sequence, 1) {
		return err
	}
	// The index does not know of the latest retention yet; the log does.
	type kept struct {
		sequence uint64
		floor    Version
	}
	all := map[string]kept{}
	return l.storage.Log.Blocks(l.ctx, l.log, 0, func(block Block) error {
		err := eachBase(block, func(h *batchHeader, r baseRecord) error {
			switch {
			case r.base != nil:
				all[r.base.key] = kept{h.sequence, r.base.floor}
				return nil
			case r.cut == nil:
				return nil
			}
			b.cut, b.floors = *r.cut, map[string]Version{}
			for key, k := range all {
				if r.cut.keeps(k.sequence) {
					b.floors[key] = k.floor
				}
			}
			return nil
		})
		if KindOf(err) == KindCorrupt {
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
func (l *logVerifier) base(block Block) baseYield {
	b := &l.bases
	var here *strayBases
	return func(h *batchHeader, r baseRecord) error {
		if h.sequence > l.indexed.sequence {
			b.beyond = true
		}
		if r.cut != nil {
			l.cutFound(block, r.cut)
			return nil
		}
		if here == nil {
			here = &strayBases{sequence: h.sequence, kept: map[string]versions{}, claims: map[string]versions{}}
			b.stray = append(b.stray, here)
		}
		here.records++
		if r.kept != nil {
			return l.keptEvent(block, h, here, r.kept)
		}
		x := r.base
		if x.kept > 0 {
			here.claims[x.key] = versions{x.kept, x.floor}
		}
		if h.sequence >= b.cut.sequence { // or it is about to be removed, with what the index has of it
			b.values[string(floorKey(l.log, x.key, h.sequence))] = sha256.Sum256(sealFloor(x))
		}
		if was := l.versionOf(x.key).version; x.floor > was && l.damages == 0 {
			l.problem(l.log, block.Sequence, block.First, "a retention keeps entity %q as it was before version %d, "+
				"its last commit left it at %d", x.key, x.floor+1, was)
		}
		return nil
	}
}

// keptEvent checks the record of a kept event, and what the index has of it.
func (l *logVerifier) keptEvent(block Block, h *batchHeader, here *strayBases, e *Event) error {
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
	if h.sequence < b.cut.sequence {
		return nil
	}
	here.types.add(e)
	types := here.types.pair(e.Type, block)
	b.values[string(types.Key)] = sha256.Sum256(types.Value)
	got, ok, err := l.storage.Index.Get(l.ctx, keptKey(e, h.sequence))
	if err != nil || !ok && h.sequence > l.indexed.sequence {
		return err
	}
	b.kept++
	if !ok || string(got) != string(encodeIndexEvent(e)) {
		l.problem(l.log, block.Sequence, e.Position,
			"the index %s version %d of entity %q, which a retention keeps; rebuild the index", hasOther(ok), e.Version,
			e.Key)
	}
	return nil
}

// cutFound checks what a retention has written before its cut.
func (l *logVerifier) cutFound(block Block, c *cut) {
	b := &l.bases
	bad := func(format string, args ...any) { l.problem(l.log, block.Sequence, block.First, format, args...) }
	there, kept, claims := uint64(0), map[string]versions{}, map[string]versions{}
	whole, at := true, Position(0)
	for _, batch := range b.stray {
		if batch.sequence < c.from {
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
	if c.from > l.counts.Deleted && l.damages == 0 {
		if there != c.bases {
			bad("a retention says that it keeps %d records, but keeps %d", c.bases, there)
		}
		if !whole || at >= c.position || !maps.Equal(kept, claims) {
			bad("a retention keeps other events than it says")
		}
	}
	if c.sequence < b.found.sequence {
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
	if b.found.bases = b.cut.bases; b.found != b.cut { // the index does not have how many there are
		l.problem(l.log, 0, 0, "the index says that a retention kept position %d and what follows, the log says %d; "+
			"rebuild the index", b.cut.position, b.found.position)
	}
	entries, kept := 0, uint64(0)
	for _, kind := range []byte("fkz") {
		prefix := indexPrefix(kind, l.log)
		err := l.storage.Index.Scan(l.ctx, prefix, prefix, func(k, value []byte) error {
			behind := 8 // the sequence of the batch, and what follows it
			if kind == 'k' {
				behind = 16
			}
			if at := len(k) - behind; at >= len(prefix) && binary.BigEndian.Uint64(k[at:]) < b.cut.sequence {
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
			key, _, _ := parseFloorKey(l.log, k)
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
