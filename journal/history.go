package journal

import (
	"context"
	"crypto/sha256"
	"errors"
)

// Origin is the identity of a log: the stamp of its first batch. It survives retentions, backups and exports. Of a
// log without a batch it is the first eight bytes of the SHA-256 of the log's name. It is zero where nobody
// knows it any more.
func (j *Journal) Origin(log LogName) Stamp {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.logs[log]; s != nil && s.batches > 0 {
		return s.origin
	}
	return Unborn(log)
}

// Unborn is what [Journal.Origin] is of a log that has no batch yet.
func Unborn(log LogName) Stamp {
	sum := sha256.Sum256([]byte(log))
	return Stamp(sum[:8])
}

// Newest is the position of the last event on disk, as [Journal.Head], with the stamp of its batch: zero if there is
// no event, or that batch is damaged.
func (j *Journal) Newest(log LogName) (Position, Stamp) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.logs[log]; s != nil {
		return s.head, s.stamp
	}
	return 0, Stamp{}
}

// StampAt is the stamp of the batch with the event at a position, by which a reader that was there is told from one
// of another history. Position 0, behind which is the first event of all, has the zero stamp. It costs nothing at the
// head of a log, else it reads one batch. Of what a retention has deleted the position just before the first event that
// is kept has a stamp too, if the retention noted it; others are a KindTrimmed error. A position beyond the head is
// KindInvalid.
func (j *Journal) StampAt(ctx context.Context, log LogName, at Position) (Stamp, error) {
	known, stamp, err := j.knownStamp(log, at)
	if known || err != nil {
		return stamp, err
	}
	stamp, err = j.readStamp(ctx, log, at)
	if err != nil {
		if _, _, gone := j.knownStamp(log, at); gone != nil { // a retention has begun meanwhile
			err = gone
		}
	}
	return stamp, err
}

// knownStamp is the stamp at a position as far as memory has it.
func (j *Journal) knownStamp(log LogName, at Position) (known bool, stamp Stamp, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.logs[log]
	switch {
	case at == 0 && (s == nil || s.trimmed.position <= 1):
		return true, Stamp{}, nil
	case s == nil || at > s.head:
		return false, Stamp{}, errorf(KindInvalid, "stamp", log, "the log has not come to position %d", at)
	case at == s.trimmed.position-1:
		return true, s.trimmed.before, nil
	case at < s.trimmed.position:
		return false, Stamp{}, trimmedLog(log, s.trimmed.position)
	case at == s.head:
		return s.stamp != Stamp{}, s.stamp, nil
	}
	return false, Stamp{}, nil
}

func (j *Journal) readStamp(ctx context.Context, log LogName, at Position) (Stamp, error) {
	if err := j.reads.enter("stamp", log); err != nil {
		return Stamp{}, err
	}
	defer j.reads.leave()
	return stampAt(ctx, j.storage.Log, log, at)
}

// stampAt reads the batch with the event at a position and hashes it.
func stampAt(ctx context.Context, store LogStore, log LogName, at Position) (stamp Stamp, err error) {
	err = store.Blocks(ctx, log, at, func(b Block) error {
		if b.First > at {
			return errStop
		}
		h, _, err := openBlock(&b)
		if err != nil || at >= h.first+Position(h.events) {
			return err
		}
		stamp = h.stamp()
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return Stamp{}, readError("stamp", log, err)
	}
	if stamp == (Stamp{}) {
		return Stamp{}, errorf(KindCorrupt, "stamp", log, "the batch with position %d is missing", at)
	}
	return stamp, nil
}

// findStamps learns of each log, when the journal is opened, which one it is and the stamp at its head. What is
// damaged has none; that is found again by whoever reads it.
func (j *Journal) findStamps(ctx context.Context) error {
	store := j.storage.Log
	for name, s := range j.logs {
		if s.origin = s.trimmed.origin; s.trimmed.sequence <= 1 {
			err := store.Blocks(ctx, name, 0, func(b Block) error {
				if h, _, err := openBlock(&b); err == nil && b.Sequence == 1 {
					s.origin = h.stamp()
				}
				return errStop
			})
			if err != nil && !errors.Is(err, errStop) && storageKind(err) != KindCorrupt {
				return err
			}
		}
		if s.stamp == (Stamp{}) && s.head > 0 {
			if s.stamp = s.trimmed.before; s.head >= s.trimmed.position {
				var err error
				if s.stamp, err = stampAt(ctx, store, name, s.head); err != nil && KindOf(err) != KindCorrupt {
					return err
				}
			}
		}
		s.first, s.last = s.origin, new(Stamp)
		*s.last = s.stamp
	}
	return nil
}

// VersionAt is an entity's version after the event at a position of its log, which is on disk. If a retention has
// deleted the event behind it, the error is of kind KindTrimmed: which of the entity's events it had taken out of the
// log by // then nobody knows.
func (j *Journal) VersionAt(ctx context.Context, log LogName, key string, at Position) (Version, error) {
	held, _, _ := j.overlay(log, key)
	r := j.ReadKeys(log, []string{key})
	r.at = at
	p := keyPass{KeyReader: r, ctx: ctx}
	if err := p.find(&r.keys[0]); err != nil {
		return 0, readError("version", log, err)
	}
	v := r.keys[0].next - 1
	for i := range held {
		if e := &held[i]; e.Position > 0 && e.Position <= at {
			v = max(v, e.Version)
		}
	}
	if first := j.First(log); at+1 < first {
		return 0, trimmedLog(log, first)
	}
	return v, nil
}
