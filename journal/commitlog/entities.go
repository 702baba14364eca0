package commitlog

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// Keys yields the keys of the entities of a log that come after the key after; the empty key is before all. They are
// those with an indexed event that can be read, or with something that a retention has left of them. The order is that
// of the keys' lengths, and of their bytes among keys of one length. An error of yield ends the scan and is returned
// unchanged. A yield may call the journal. Each key takes a search in the index, whatever the number of its events.
func (j *Journal) Keys(
	ctx context.Context, log journal.LogName, after string, yield func(key string) error,
) error {
	if err := j.overlay.awaitIndex(ctx, log); err != nil {
		return err
	}
	events, floors := keyFinder{kind: 'e'}, keyFinder{kind: 'f'}
	for {
		if err := errors.Join(events.find(ctx, j, log, after), floors.find(ctx, j, log, after)); err != nil {
			return stored.ReadError("keys", log, err)
		}
		switch {
		case events.ended && floors.ended:
			return nil
		case floors.ended || !events.ended && keyBefore(events.key, floors.key):
			after = events.key
		default:
			after = floors.key
		}
		if err := yield(after); err != nil {
			return err
		}
	}
}

// keyBefore reports whether a comes before b in the index.
func keyBefore(a, b string) bool {
	return len(a) < len(b) || len(a) == len(b) && a < b
}

// keyFinder finds keys of entities among the entries of one kind.
type keyFinder struct {
	kind  byte
	key   string // the last one found; empty before the first
	ended bool   // there are no more
}

// find finds the first key after the key after, unless the one found last is that.
func (f *keyFinder) find(ctx context.Context, j *Journal, log journal.LogName, after string) error {
	if f.ended || f.key != "" && keyBefore(after, f.key) {
		return nil
	}
	if err := j.reads.enter("keys", log); err != nil {
		return err
	}
	defer j.reads.leave()
	c := j.overlay.cutOf(log)
	prefix := format.IndexPrefix(f.kind, log)
	from := prefix
	if after != "" { // no version and no sequence is that great
		from = append(format.EntityPrefix(log, after), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
		from[0] = f.kind
	}
	f.ended = true
	err := j.storage.Index.Scan(ctx, prefix, from, func(k, _ []byte) error {
		var sequence uint64
		key, _, ok := format.ParseEntityKey(log, k)
		if f.kind == 'f' {
			if key, sequence, ok = format.ParseFloorKey(log, k); ok && !c.Keeps(sequence) {
				return nil
			}
		}
		if !ok {
			return journal.Errorf(journal.KindCorrupt, "keys", log, "an entry %q of the index is damaged; rebuild "+
				"the index", k)
		}
		if key == after {
			return nil
		}
		f.key, f.ended = key, false
		return stored.ErrStop
	})
	if errors.Is(err, stored.ErrStop) {
		return nil
	}
	return err
}
