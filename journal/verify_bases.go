package journal

import "crypto/sha256"

// verifiedBases is what verification knows of a log's retentions.
type verifiedBases struct {
	cut    cut                 // as the index has it
	floors map[string]Version  // likewise
	values map[string][32]byte // of the index by its keys, hashed, as the base records make them
	found  cut                 // the last one in the log
	stray  []counted           // base batches behind the cut before
	beyond bool                // there are some that the index does not cover yet
}

type counted struct{ sequence, records uint64 }

// retained reads what the index has of retentions.
func (l *logVerifier) retained() (err error) {
	b := &l.bases
	b.floors, b.values = map[string]Version{}, map[string][32]byte{}
	if b.cut, err = trimOf(l.ctx, l.engine.Index(), l.log); err != nil {
		if KindOf(err) != KindCorrupt {
			return err
		}
		l.problem(l.log, 0, 0, "the index entry of the retention is damaged; rebuild the index")
	}
	prefix := indexPrefix('f', l.log)
	err = l.engine.Index().Scan(l.ctx, prefix, prefix, func(k, value []byte) error {
		var x base
		if key, sequence, ok := parseFloorKey(l.log, k); ok && b.cut.keeps(sequence) && openFloor(value, &x) {
			b.floors[key] = x.floor
		}
		return nil
	})
	if err != nil {
		return err
	}
	first, err := firstSequence(l.ctx, l.engine.Log(), l.log)
	if err != nil || first <= max(b.cut.sequence, 1) {
		return err
	}
	// The index does not know of the latest retention yet; the log does.
	type kept struct {
		sequence uint64
		floor    Version
	}
	all := map[string]kept{}
	return l.engine.Log().Blocks(l.ctx, l.log, 0, func(block Block) error {
		err := eachBase(block, func(h *batchHeader, x *base, c *cut) error {
			if x != nil {
				all[x.key] = kept{h.sequence, x.floor}
				return nil
			}
			b.cut, b.floors = *c, map[string]Version{}
			for key, k := range all {
				if c.keeps(k.sequence) {
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
	records := uint64(0)
	return func(h *batchHeader, x *base, c *cut) error {
		if h.sequence > l.indexed.sequence {
			b.beyond = true
		}
		if x != nil {
			b.values[string(floorKey(l.log, x.key, h.sequence))] = sha256.Sum256(sealFloor(x))
			if records++; records == 1 {
				b.stray = append(b.stray, counted{sequence: h.sequence})
			}
			b.stray[len(b.stray)-1].records++
			if was := l.versionOf(x.key).version; x.floor > was && l.damages == 0 {
				l.problem(l.log, block.Sequence, block.First, "a retention keeps entity %q as it was before version %d, its last commit left it at %d", x.key, x.floor+1, was)
			}
			return nil
		}
		there := uint64(0)
		for _, batch := range b.stray {
			if batch.sequence >= c.from {
				there += batch.records
			}
		}
		// Unless a later retention has deleted them, and only just not this cut.
		if there != c.bases && c.from > l.counts.Deleted && l.damages == 0 {
			l.problem(l.log, block.Sequence, block.First, "a retention says that it keeps %d entities, but keeps %d", c.bases, there)
		}
		if c.sequence < b.found.sequence {
			l.problem(l.log, block.Sequence, block.First, "a retention keeps what an earlier one has deleted")
		}
		b.found, b.stray = *c, nil
		return nil
	}
}

// checkBases holds what the index has of retentions to the log.
func (l *logVerifier) checkBases() error {
	b := &l.bases
	if b.beyond || l.damages > 0 {
		return nil // opening the journal completes it; or it cannot be told
	}
	if b.found.bases = b.cut.bases; b.found != b.cut { // the index does not have how many there are
		l.problem(l.log, 0, 0, "the index says that a retention kept position %d and what follows, the log says %d; rebuild the index", b.cut.position, b.found.position)
	}
	prefix := indexPrefix('f', l.log)
	entries := 0
	err := l.engine.Index().Scan(l.ctx, prefix, prefix, func(k, value []byte) error {
		entries++
		if want, ok := b.values[string(k)]; !ok || sha256.Sum256(value) != want {
			key, _, _ := parseFloorKey(l.log, k)
			l.problem(l.log, 0, 0, "the index has something else than the log of what a retention kept of entity %q; rebuild the index", key)
		}
		return nil
	})
	if err == nil && entries < len(b.values) {
		l.problem(l.log, 0, 0, "the index has what retentions kept of %d entities, the log of %d; rebuild the index", entries, len(b.values))
	}
	return err
}
