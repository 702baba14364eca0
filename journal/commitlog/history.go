package commitlog

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// Origin is the identity of a log: the stamp of its first batch. It survives retentions, backups and exports. For a log
// without a batch it is the first eight bytes of the SHA-256 of the log's name. It is zero if the identity is lost.
func (j *Journal) Origin(log journal.LogName) journal.Stamp {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	if s := j.overlay.logs[log]; s != nil && s.batches > 0 {
		return s.origin
	}
	return journal.Unborn(log)
}

// Newest is the position of the last event on disk, as [Journal.Head], with the stamp of its batch. The stamp is zero
// if there is no event, or if that batch is damaged.
func (j *Journal) Newest(log journal.LogName) (journal.Position, journal.Stamp) {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	if s := j.overlay.logs[log]; s != nil {
		return s.head, s.stamp
	}
	return 0, journal.Stamp{}
}

// StampAt is the stamp of the batch with the event at a position. It tells whether a reader that was there has read
// this history or another. Position 0, before the first event, has the zero stamp. At the head of a log it reads
// nothing, elsewhere one batch. If a retention has deleted events, the position just before the first one left has a
// stamp too, provided the retention recorded it; lower positions are a KindTrimmed error. A position beyond the head is
// KindInvalid.
func (j *Journal) StampAt(ctx context.Context, log journal.LogName, at journal.Position) (journal.Stamp, error) {
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

// knownStamp is the stamp at a position if it is in memory.
func (j *Journal) knownStamp(log journal.LogName, at journal.Position) (known bool, stamp journal.Stamp, err error) {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	s := j.overlay.logs[log]
	switch {
	case at == 0 && (s == nil || s.trimmed.Position <= 1):
		return true, journal.Stamp{}, nil
	case s == nil || at > s.head:
		return false, journal.Stamp{},
			journal.Errorf(journal.KindInvalid, "stamp", log, "the log has not come to position %d", at)
	case at == s.trimmed.Position-1:
		return true, s.trimmed.Before, nil
	case at < s.trimmed.Position:
		return false, journal.Stamp{}, trimmedLog(log, s.trimmed.Position)
	case at == s.head:
		return s.stamp != journal.Stamp{}, s.stamp, nil
	}
	return false, journal.Stamp{}, nil
}

func (j *Journal) readStamp(ctx context.Context, log journal.LogName, at journal.Position) (journal.Stamp, error) {
	if err := j.reads.enter("stamp", log); err != nil {
		return journal.Stamp{}, err
	}
	defer j.reads.leave()
	return stampAt(ctx, j.storage.Log, log, at)
}

// stampAt reads the batch with the event at a position and hashes it.
func stampAt(
	ctx context.Context, store journal.LogStore, log journal.LogName, at journal.Position,
) (stamp journal.Stamp, err error) {
	err = store.Blocks(ctx, log, at, func(b journal.Block) error {
		if b.First > at {
			return stored.ErrStop
		}
		h, _, err := format.OpenBlock(&b)
		if err != nil || at >= h.First+journal.Position(h.Events) {
			return err
		}
		stamp = h.Stamp()
		return stored.ErrStop
	})
	if err != nil && !errors.Is(err, stored.ErrStop) {
		return journal.Stamp{}, stored.ReadError("stamp", log, err)
	}
	if stamp == (journal.Stamp{}) {
		return journal.Stamp{},
			journal.Errorf(journal.KindCorrupt, "stamp", log, "the batch with position %d is missing", at)
	}
	return stamp, nil
}

// findStamps finds each log's identity and the stamp at its head when the journal is opened. Damaged batches have none;
// a reader finds the damage again.
func (j *Journal) findStamps(ctx context.Context) error {
	store := j.storage.Log
	for name, s := range j.overlay.logs {
		if s.origin = s.trimmed.Origin; s.trimmed.Sequence <= 1 {
			err := store.Blocks(ctx, name, 0, func(b journal.Block) error {
				if h, _, err := format.OpenBlock(&b); err == nil && b.Sequence == 1 {
					s.origin = h.Stamp()
				}
				return stored.ErrStop
			})
			if err != nil && !errors.Is(err, stored.ErrStop) && stored.StorageKind(err) != journal.KindCorrupt {
				return err
			}
		}
		if s.stamp == (journal.Stamp{}) && s.head > 0 {
			if s.stamp = s.trimmed.Before; s.head >= s.trimmed.Position {
				var err error
				if s.stamp, err = stampAt(ctx, store, name, s.head); err != nil &&
					journal.KindOf(err) != journal.KindCorrupt {
					return err
				}
			}
		}
		s.first, s.last = s.origin, new(journal.Stamp)
		*s.last = s.stamp
	}
	return nil
}

// VersionAt is an entity's version after the event at a position of its log, which must be on disk. If a retention has
// deleted the next event, the error is of kind KindTrimmed: it is not known which of the entity's events had been
// deleted by then.
func (j *Journal) VersionAt(
	ctx context.Context, log journal.LogName, key string, at journal.Position,
) (journal.Version, error) {
	held, _, _ := j.overlay.eventsOf(log, key)
	r := j.ReadKeys(log, []string{key})
	r.at = at
	p := keyPass{KeyReader: r, ctx: ctx}
	if err := p.find(&r.keys[0]); err != nil {
		return 0, stored.ReadError("version", log, err)
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
