package badgerengine

import (
	"encoding/binary"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Badger keeps values above its threshold in a value log. When the sync of that
// fails, Badger notes it in its own log and reports success, and the kernel
// tells of a lost write only once. So nothing of ours may get there, and the
// threshold is as high as it can be. A value above maxInline is cut into parts:
//
//	entry   key              meta 1, value: u64 length of the whole
//	parts   00, key, u32 i   up to maxInline bytes each, numbered from 0
//
// Integers are big-endian. Parts are written before the entry that makes them
// count, so an entry is whole or absent however big it is. Parts whose entry is
// missing are of an append that did not finish; nothing looks at them. Keys must
// not begin with a zero byte.
//
// These constants are part of the disk format and must not change.
const (
	maxInline = 512 << 10
	metaParts = 1 // Badger's user meta of an entry whose value is in parts; else 0
)

func partKey(key []byte, i int) []byte {
	k := make([]byte, 0, 1+len(key)+4)
	k = append(append(k, 0), key...)
	return binary.BigEndian.AppendUint32(k, uint32(i))
}

// batch writes entries in order, in as few transactions as Badger allows.
type batch struct {
	db  *database
	txn *badger.Txn
}

func newBatch(db *database) *batch { return &batch{db, db.begin()} }

func (b *batch) discard() { b.txn.Discard() }

func (b *batch) commit() error { return b.db.commit(b.txn) }

// flush commits what there is and goes on with a new transaction.
func (b *batch) flush() error {
	if err := b.commit(); err != nil {
		return err
	}
	b.txn = b.db.begin()
	return nil
}

// set adds an entry. One that does not fit any more goes into the next transaction,
// when the one before is written.
func (b *batch) set(e *badger.Entry) error {
	err := b.txn.SetEntry(e)
	if !errors.Is(err, badger.ErrTxnTooBig) {
		return err
	}
	if err := b.flush(); err != nil {
		return err
	}
	return b.txn.SetEntry(e)
}

// setParts adds the parts of a value and returns the entry that makes them count.
func (b *batch) setParts(key, value []byte) (*badger.Entry, error) {
	length := len(value)
	for i := 0; len(value) > 0; i++ {
		n := min(len(value), maxInline)
		if err := b.set(b.db.entry(partKey(key, i), value[:n])); err != nil {
			return nil, err
		}
		value = value[n:]
	}
	head := binary.BigEndian.AppendUint64(nil, uint64(length))
	return b.db.entry(key, head).WithMeta(metaParts), nil
}

var errParts = &journal.Error{Op: "read", Kind: journal.KindCorrupt, Detail: "a value in parts is not whole"}

// value yields the value of an item, put together if it is in parts. It is valid
// during the call of yield only.
func value(txn *badger.Txn, item *badger.Item, yield func([]byte) error) error {
	if item.UserMeta() != metaParts {
		return item.Value(yield)
	}
	var length uint64
	err := item.Value(func(v []byte) error {
		if len(v) != 8 {
			return errParts
		}
		length = binary.BigEndian.Uint64(v)
		return nil
	})
	if err != nil {
		return err
	}
	var whole []byte // grows by what is there, not by what is claimed
	for i := 0; uint64(len(whole)) < length; i++ {
		part, err := txn.Get(partKey(item.Key(), i))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return errParts
		}
		if err != nil {
			return err
		}
		if part.ExpiresAt() != item.ExpiresAt() {
			return errParts // it is another journal's
		}
		before := len(whole)
		if err := part.Value(func(v []byte) error { whole = append(whole, v...); return nil }); err != nil {
			return err
		}
		if len(whole) == before {
			return errParts
		}
	}
	if uint64(len(whole)) != length {
		return errParts
	}
	return yield(whole)
}

// valueCopy returns the value of an item, for the caller to keep.
func valueCopy(txn *badger.Txn, item *badger.Item) (v []byte, err error) {
	if item.UserMeta() != metaParts {
		return item.ValueCopy(nil)
	}
	err = value(txn, item, func(whole []byte) error { v = whole; return nil })
	return v, err
}
