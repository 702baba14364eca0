package commitlog

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// eachTypeEntry yields a log's entries, sorted by type name.
func eachTypeEntry(
	ctx context.Context, index journal.IndexStore, log journal.LogName,
	yield func(name string, e format.TypeEntry) error,
) error {
	prefix := format.TypePrefix(log)
	return index.Scan(ctx, prefix, prefix, func(key, value []byte) error {
		e, ok := format.DecodeTypeEntry(value)
		if !ok {
			return damagedTypes(log, "an entry of the event catalogue is damaged")
		}
		return yield(string(key[len(prefix):]), e)
	})
}

func damagedTypes(log journal.LogName, detail string) error {
	return &format.IndexDamage{Err: journal.Errorf(journal.KindCorrupt, "event types", log, "%s; rebuild the index",
		detail)}
}

func storedTypes(
	ctx context.Context, index journal.IndexStore, log journal.LogName,
) (map[string]format.TypeEntry, error) {
	all := map[string]format.TypeEntry{}
	err := eachTypeEntry(ctx, index, log, func(name string, e format.TypeEntry) error {
		all[name] = e
		return nil
	})
	return all, err
}

// EventTypes is the event catalogue of a log: the types of all events that can be read, sorted by name, including kept
// events, which it may count twice while a retention runs. It waits until all commits handed in before the call are
// indexed, and includes them; the error is [journal.KindFailed] if their outcome is unknown. Of a damaged log it has
// what comes before the damage. It is an error, until the journal is opened again, if a retention could not correct it.
func (j *Journal) EventTypes(ctx context.Context, log journal.LogName) ([]journal.EventType, error) {
	if err := j.overlay.awaitIndex(ctx, log); err != nil {
		return nil, err
	}
	if err := j.reads.enter("event types", log); err != nil {
		return nil, err
	}
	defer j.reads.leave()
	var types map[string]format.TypeEntry
	var err error
	for again := true; again && err == nil; {
		c := j.overlay.cutOf(log)
		if types, err = storedTypes(ctx, j.storage.Index, log); err == nil {
			err = addKeptTypes(ctx, j.storage.Index, log, c, types)
		}
		// a retention has begun meanwhile, and may have deleted events that the previous one kept
		again = j.overlay.cutOf(log) != c
	}
	j.overlay.mu.Lock()
	stale := j.overlay.logs[log].staleTypes("event types")
	j.overlay.mu.Unlock()
	if stale != nil {
		return nil, stale
	}
	var all []journal.EventType
	for _, name := range slices.Sorted(maps.Keys(types)) {
		e := types[name]
		all = append(all, journal.EventType{Type: name, Count: e.Count, First: e.First, Last: e.Last})
	}
	return all, stored.ReadError("event types", log, err)
}

// settleTypes corrects a log's entries for its latest cut if the retention was interrupted before it had done so: it
// counts the log up to the batch through again.
func settleTypes(
	ctx context.Context, storage journal.Storage, log journal.LogName, c format.Cut, through uint64,
) error {
	stale := false
	err := eachTypeEntry(ctx, storage.Index, log, func(_ string, t format.TypeEntry) error {
		stale = stale || t.From != c.Sequence
		return nil
	})
	if err != nil || !stale {
		return err
	}
	there, err := storedTypes(ctx, storage.Index, log)
	if err != nil {
		return err
	}
	now := map[string]*format.TypeEntry{}
	err = storage.Log.Blocks(ctx, log, c.Position, func(b journal.Block) error {
		switch {
		case b.Sequence < c.Sequence:
			return nil
		case b.Sequence > through:
			return stored.ErrStop
		}
		return format.EachCommit(b, func(_ *format.BatchHeader, _ int, first journal.Position,
			d *format.DecodedCommit) error {
			for i := range d.Events {
				t := now[d.Events[i].Type]
				if t == nil {
					t = &format.TypeEntry{From: c.Sequence}
					now[d.Events[i].Type] = t
				}
				t.Add(first + journal.Position(i))
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, stored.ErrStop) {
		return err
	}
	var pairs []journal.Pair
	for name, t := range now {
		pairs = append(pairs, journal.Pair{Key: format.TypeKey(log, name), Value: format.EncodeTypeEntry(t)})
	}
	var gone [][]byte
	for name := range there {
		if now[name] == nil {
			gone = append(gone, format.TypeKey(log, name))
		}
	}
	if err := storage.Index.Update(ctx, pairs); err != nil {
		return err
	}
	return storage.Index.Delete(ctx, gone)
}
