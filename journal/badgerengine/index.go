package badgerengine

import (
	"context"
	"errors"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

func sortNames(names []journal.LogName) { slices.Sort(names) }

type indexStore struct{ db *database }

// loadFrom is the number of pairs from which on Badger's loader is worth its big buffers.
const loadFrom = 512

// Update writes the pairs in order, in more than one transaction if they are too
// many for one.
func (s indexStore) Update(_ context.Context, pairs []journal.Pair) error {
	small := !slices.ContainsFunc(pairs, func(p journal.Pair) bool { return len(p.Value) > maxInline })
	if small && len(pairs) >= loadFrom {
		return classify("index", s.db.load(pairs))
	}
	b := newBatch(s.db)
	defer b.discard()
	for _, p := range pairs {
		entry := badger.NewEntry(p.Key, p.Value)
		var err error
		if len(p.Value) > maxInline {
			if entry, err = b.setParts(p.Key, p.Value); err != nil {
				return classify("index", err)
			}
			// Readers see a transaction that is under way in any order.
			if err := b.flush(); err != nil {
				return classify("index", err)
			}
		}
		if err := b.set(entry); err != nil {
			return classify("index", err)
		}
	}
	return classify("index", b.commit())
}

func (s indexStore) Get(_ context.Context, key []byte) (v []byte, ok bool, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		ok = true
		v, err = valueCopy(txn, item)
		return err
	})
	return v, ok && err == nil, classify("index", err)
}

func (s indexStore) Has(_ context.Context, key []byte) (ok bool, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		_, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		ok = err == nil
		return err
	})
	return ok, classify("index", err)
}

func (s indexStore) Scan(ctx context.Context, prefix, from []byte, yield func(key, value []byte) error) error {
	var inner error
	err := s.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		// The values stand beside their keys, so there is nothing to fetch ahead.
		o.Prefix, o.PrefetchValues = prefix, false
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Seek(from); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			item := it.Item()
			err := value(txn, item, func(v []byte) error {
				inner = yield(item.Key(), v)
				return inner
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if inner != nil {
		return inner
	}
	return classify("index", err)
}

func (s indexStore) Last(_ context.Context, prefix []byte) (key []byte, ok bool, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		upper := append(slices.Clone(prefix), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
		key, ok = last(txn, prefix, upper)
		return nil
	})
	return key, ok, classify("index", err)
}

func (s indexStore) Clear(context.Context) error { return classify("index", s.db.DropAll()) }
