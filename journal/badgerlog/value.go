package badgerlog

import (
	"encoding/binary"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Badger bounds its transactions. A value above maxInline is cut into parts:
//
//	entry   key              meta 1, value: u64 length of the whole, and zeros or nothing
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

// flushEntries bounds the entries of one transaction of parts.
const flushEntries = 1000

// maxTxnBytes bounds the values of one transaction, so that the map of a file of values never has to grow while it is
// read.
func (l *Log) maxTxnBytes() int { return int(l.db.Opts().ValueLogFileSize / 4) }

// batch writes entries in order, in a few transactions.
type batch struct {
	log     *Log
	entries []*badger.Entry
	bytes   int
}

// flush writes what there is.
func (b *batch) flush() error {
	if len(b.entries) == 0 {
		return nil
	}
	err := b.log.write(b.entries)
	b.entries, b.bytes = b.entries[:0], 0
	return err
}

// set adds an entry. One that does not fit any more goes into the next transaction,
// when the one before is written.
func (b *batch) set(e *badger.Entry) error {
	if b.bytes+len(e.Value) > b.log.maxTxnBytes() || len(b.entries) >= flushEntries {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.entries, b.bytes = append(b.entries, e), b.bytes+len(e.Value)
	return nil
}

// setParts adds the parts of a value and returns the entry that makes them count.
func (b *batch) setParts(key, value []byte) (*badger.Entry, error) {
	length := len(value)
	for i := 0; len(value) > 0; i++ {
		n := min(len(value), maxInline)
		if err := b.set(b.log.entry(partKey(key, i), value[:n])); err != nil {
			return nil, err
		}
		value = value[n:]
	}
	head := make([]byte, minInFile) // so long that it is in a file of values
	binary.BigEndian.PutUint64(head, uint64(length))
	return b.log.entry(key, head).WithMeta(metaParts), nil
}

var errParts = &journal.Error{Op: "read", Kind: journal.KindCorrupt, Detail: "a value in parts is not whole"}

// valueCopy returns the value of an item, for the caller to keep.
// It may be put into buffer.
func valueCopy(txn *badger.Txn, item *badger.Item, buffer []byte) (v []byte, err error) {
	if item.UserMeta() != metaParts {
		return item.ValueCopy(buffer)
	}
	var length uint64
	err = item.Value(func(v []byte) error {
		if len(v) < 8 {
			return errParts
		}
		length = binary.BigEndian.Uint64(v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	whole := buffer[:0] // grows by what is there, not by what is claimed
	for i := 0; uint64(len(whole)) < length; i++ {
		part, err := txn.Get(partKey(item.Key(), i))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil, errParts
		}
		if err != nil {
			return nil, err
		}
		if part.ExpiresAt() != item.ExpiresAt() {
			return nil, errParts // it is another journal's
		}
		before := len(whole)
		if err := part.Value(func(v []byte) error { whole = append(whole, v...); return nil }); err != nil {
			return nil, err
		}
		if len(whole) == before {
			return nil, errParts
		}
	}
	if uint64(len(whole)) != length {
		return nil, errParts
	}
	return whole, nil
}
