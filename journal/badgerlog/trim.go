package badgerlog

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// trimAtOnce bounds the blocks that one call of Trim removes: some ten milliseconds for
// which an append may have to wait.
const trimAtOnce = 256

// Trim implements journal.LogStore.
func (l *Log) Trim(ctx context.Context, log journal.LogName, below uint64) (more bool, err error) {
	var keys [][]byte
	err = l.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix, o.PrefetchValues = logPrefix(log), false
		it := txn.NewIterator(o)
		defer it.Close()
		var last [][]byte // of the last block that was seen, which goes only if another follows
		for it.Rewind(); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			keys = append(keys, last...)
			_, _, sequence, ok := parseBlockKey(it.Item().Key())
			if !ok {
				return malformed("trim", log)
			}
			if more = sequence < below && len(keys) >= trimAtOnce; more || sequence >= below {
				return nil
			}
			if last, err = blockKeys(it.Item()); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = l.remove(keys)
	}
	return more, Classify("trim", err)
}

// blockKeys returns the keys of a block. Its parts come last: without the entry they mean nothing.
func blockKeys(item *badger.Item) ([][]byte, error) {
	keys := [][]byte{item.KeyCopy(nil)}
	if item.UserMeta() != metaParts {
		return keys, nil
	}
	err := item.Value(func(v []byte) error {
		if len(v) < 8 {
			return nil // it is damaged; its parts mean nothing without it
		}
		for i := range (binary.BigEndian.Uint64(v) + maxInline - 1) / maxInline {
			if i > 1<<16 {
				return errParts
			}
			keys = append(keys, partKey(keys[0], int(i)))
		}
		return nil
	})
	return keys, err
}

// remove deletes keys in order, in as few transactions as Badger allows.
func (l *Log) remove(keys [][]byte) error {
	if len(keys) == 0 {
		return nil
	}
	l.writing.Lock()
	l.removed = true
	l.writing.Unlock()
	txn := l.begin()
	defer func() { txn.Discard() }()
	for _, k := range keys {
		err := txn.Delete(k)
		if errors.Is(err, badger.ErrTxnTooBig) {
			if err := l.commit(txn); err != nil {
				return err
			}
			txn = l.begin()
			err = txn.Delete(k)
		}
		if err != nil {
			return err
		}
	}
	return l.commit(txn)
}
