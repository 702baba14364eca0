package commitlog

import (
	"context"
	"errors"
	"maps"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// watchedIndex tells damage of the index from damage of the log; the errors of both have the same kind.
type watchedIndex struct{ journal.IndexStore }

// watched returns a storage that reports damage of the index as a [format.IndexDamage].
func watched(s journal.Storage) journal.Storage {
	s.Index = watchedIndex{s.Index}
	return s
}

func (watchedIndex) mark(err error) error {
	var known *format.IndexDamage
	if journal.KindOf(err) == journal.KindCorrupt && !errors.As(err, &known) {
		return &format.IndexDamage{Err: err}
	}
	return err
}

func (x watchedIndex) Update(ctx context.Context, pairs []journal.Pair) error {
	return x.mark(x.IndexStore.Update(ctx, pairs))
}

func (x watchedIndex) Delete(ctx context.Context, keys [][]byte) error {
	return x.mark(x.IndexStore.Delete(ctx, keys))
}

func (x watchedIndex) DeleteRange(ctx context.Context, from, to []byte) error {
	return x.mark(x.IndexStore.DeleteRange(ctx, from, to))
}

func (x watchedIndex) Clear(ctx context.Context) error { return x.mark(x.IndexStore.Clear(ctx)) }

func (x watchedIndex) Get(ctx context.Context, key []byte) ([]byte, bool, error) {
	value, ok, err := x.IndexStore.Get(ctx, key)
	return value, ok, x.mark(err)
}

func (x watchedIndex) Has(ctx context.Context, key []byte) (bool, error) {
	ok, err := x.IndexStore.Has(ctx, key)
	return ok, x.mark(err)
}

func (x watchedIndex) Last(ctx context.Context, prefix []byte) ([]byte, bool, error) {
	key, ok, err := x.IndexStore.Last(ctx, prefix)
	return key, ok, x.mark(err)
}

func (x watchedIndex) Scan(ctx context.Context, prefix, from []byte, yield func(key, value []byte) error) error {
	var stopped error
	err := x.IndexStore.Scan(ctx, prefix, from, func(key, value []byte) error {
		stopped = yield(key, value)
		return stopped
	})
	if stopped != nil {
		return stopped
	}
	return x.mark(err)
}

// openIndex completes the index and reads from it where each log begins. An index that turns out to be damaged is set
// aside, once, and rebuilt from the log; Open succeeds all the same.
func (j *Journal) openIndex(ctx context.Context) error {
	found := maps.Clone(j.overlay.damaged) // damage of logs found before the index was read
	err := j.tryIndex(ctx)
	var damage *format.IndexDamage
	if !errors.As(err, &damage) {
		return err
	}
	if err := j.storage.Index.SetAside(ctx); err != nil {
		return &journal.Error{Op: "open: index", Kind: unlessCorrupt(err), Detail: "the index is damaged (" +
			damage.Err.Error() + ") and cannot be set aside", Err: err}
	}
	j.mended, j.overlay.damaged = damage, found
	err = j.tryIndex(ctx)
	if errors.As(err, &damage) { // new damage, in an index just rebuilt
		return &journal.Error{Op: "open: index", Kind: journal.KindInternal,
			Detail: "the index was damaged, was rebuilt from the " +
				"log, and is damaged again; the log is not concerned: look at the disk and the memory of this machine",
			Err: damage}
	}
	return err
}

// unlessCorrupt is the kind of an error of the index. Damage of the index is not damage of the journal, which would
// need a backup.
func unlessCorrupt(err error) journal.ErrorKind {
	if k := stored.StorageKind(err); k != journal.KindCorrupt {
		return k
	}
	return journal.KindInternal
}

func (j *Journal) tryIndex(ctx context.Context) error {
	if err := completeIndex(ctx, j.storage, nil, j.overlay.damaged); err != nil {
		return &journal.Error{Op: "open: index", Kind: stored.StorageKind(err), Err: err}
	}
	for name, s := range j.overlay.logs {
		var err error
		if s.trimmed, err = beginning(ctx, watched(j.storage), name); j.overlay.damaged.add(name, err) != nil {
			return &journal.Error{Op: "open", Log: name, Kind: stored.StorageKind(err), Err: err}
		}
		s.counted = s.trimmed.Sequence
	}
	if err := j.answers.find(ctx, watched(j.storage).Index); err != nil {
		return &journal.Error{Op: "open: index", Kind: stored.StorageKind(err), Err: err}
	}
	if err := j.findCounts(ctx, watched(j.storage).Index); err != nil {
		return &journal.Error{Op: "open: index", Kind: stored.StorageKind(err), Err: err}
	}
	return nil
}

// IndexDamage is the damage of the index that Open found, or nil. The damaged index was
// set aside and rebuilt from the log; only snapshots were lost, which are a cache.
func (j *Journal) IndexDamage() error {
	if j.mended == nil {
		return nil
	}
	return j.mended
}
