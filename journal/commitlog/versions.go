package commitlog

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// versionUpTo is the version of an entity that has no event above most.
func (j *Journal) versionUpTo(
	ctx context.Context, log journal.LogName, key string, most journal.Version,
) (journal.Version, error) {
	j.overlay.mu.Lock()
	s := j.overlay.logs[log]
	if s == nil {
		j.overlay.mu.Unlock()
		return 0, nil
	}
	v, known := j.overlay.knownVersion(s, key)
	j.overlay.mu.Unlock()
	if known {
		return min(v, most), nil
	}
	return j.indexedVersion(ctx, log, key)
}

// indexedAt is indexedVersion for a caller that expects a version. That the index has it and not the
// next one is two look-ups of whole keys, which cost about half of a search for the
// greatest key in all tables: each commit to an entity that memory does not know needs it. It rests on
// an entity's versions being dense in the index. Where they are not, the index is damaged, and
// Load says so to a caller that reads the entity before it appends to it.
func (j *Journal) indexedAt(
	ctx context.Context, log journal.LogName, key string, expected journal.Version,
) (journal.Version, error) {
	prefix := format.EntityPrefix(log, key)
	has := func(v journal.Version) (ok bool, err error) {
		if err := j.reads.enter("version", log); err != nil {
			return false, err
		}
		defer j.reads.leave()
		ok, err = j.storage.Index.Has(ctx, format.EntityKey(prefix, v))
		return ok, stored.ReadError("version", log, err)
	}
	above := true
	if expected < ^journal.Version(0) {
		var err error
		if above, err = has(expected + 1); err != nil {
			return 0, err
		}
	}
	switch {
	case above:
	case expected > 0:
		if at, err := has(expected); at || err != nil {
			return expected, err
		}
	case j.overlay.cutOf(log).Sequence == 0: // versions begin with 1 where no retention was
		return 0, nil
	}
	return j.indexedVersion(ctx, log, key)
}

// indexedVersion is an entity's version as the index knows it.
func (j *Journal) indexedVersion(ctx context.Context, log journal.LogName, key string) (journal.Version, error) {
	if err := j.reads.enter("version", log); err != nil {
		return 0, err
	}
	defer j.reads.leave()
	prefix := format.EntityPrefix(log, key)
	last, ok, err := j.storage.Index.Last(ctx, prefix)
	if err != nil {
		return 0, &journal.Error{Op: "version", Log: log, Kind: stored.StorageKind(err), Err: err}
	}
	if !ok {
		floor, _, err := j.floor(ctx, log, key)
		return floor.Floor, err
	}
	v, ok := format.EntityVersion(prefix, last)
	if !ok {
		return 0, journal.Errorf(journal.KindCorrupt, "version", log, "the index has a malformed key for entity %q; "+
			"rebuild the index",
			key)
	}
	return v, nil
}
