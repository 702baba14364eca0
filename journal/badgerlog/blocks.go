package badgerlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Keys of the log database: 'b', u16 length of the log's name, the name, u64 first
// position, u64 sequence; numbers big-endian, so that byte order is log order. The
// value is the batch.
func logPrefix(log journal.LogName) []byte {
	b := make([]byte, 0, 32+len(log))
	b = append(b, 'b')
	b = binary.BigEndian.AppendUint16(b, uint16(len(log)))
	return append(b, log...)
}

func blockKey(prefix []byte, first journal.Position, sequence uint64) []byte {
	k := binary.BigEndian.AppendUint64(prefix[:len(prefix):len(prefix)], uint64(first))
	return binary.BigEndian.AppendUint64(k, sequence)
}

// parseBlockKey is total: ok is false for a key that is not a block's.
func parseBlockKey(k []byte) (log journal.LogName, first journal.Position, sequence uint64, ok bool) {
	if len(k) < 19 || k[0] != 'b' {
		return "", 0, 0, false
	}
	n := int(binary.BigEndian.Uint16(k[1:]))
	if len(k) != 3+n+16 {
		return "", 0, 0, false
	}
	at := k[3+n:]
	log, first = journal.LogName(k[3:3+n]), journal.Position(binary.BigEndian.Uint64(at))
	return log, first, binary.BigEndian.Uint64(at[8:]), true
}

func malformed(op string, log journal.LogName) error {
	return &journal.Error{Op: op, Log: log, Kind: journal.KindCorrupt, Detail: "a key of the log is malformed"}
}

// blockOf tells of which block a key is, or the part that it names.
func blockOf(key []byte) (log journal.LogName, sequence uint64, ok bool) {
	if len(key) > 5 && key[0] == 0 {
		key = key[1 : len(key)-4]
	}
	log, _, sequence, ok = parseBlockKey(key)
	return log, sequence, ok
}

// Append implements journal.LogStore. It writes the entries of all blocks in one transaction. Big blocks are
// written before in parts. So are all of them if together they are more than fits into one transaction.
func (l *Log) Append(_ context.Context, blocks []journal.Block) error {
	err := l.append(blocks, maxInline)
	if errors.Is(err, badger.ErrTxnTooBig) {
		err = l.append(blocks, 0)
	}
	if err == nil {
		l.heads.note(blocks)
	}
	return Classify("append", err)
}

// append writes blocks of more than inline bytes in parts.
func (l *Log) append(blocks []journal.Block, inline int) error {
	parts := &batch{log: l}
	entries := make([]*badger.Entry, len(blocks))
	for i, b := range blocks {
		key := blockKey(logPrefix(b.Log), b.First, b.Sequence)
		if len(b.Data) <= inline {
			entries[i] = l.entry(key, b.Data)
			continue
		}
		var err error
		if entries[i], err = parts.setParts(key, b.Data); err != nil {
			return err
		}
	}
	if err := parts.flush(); err != nil {
		return err
	}
	return l.write(entries)
}

func (l *Log) blocks(
	ctx context.Context, log journal.LogName, from journal.Position, yield func(journal.Block) error,
) error {
	var inner error
	err := l.db.View(func(txn *badger.Txn) error {
		prefix := logPrefix(log)
		start := blockKey(prefix, 0, 0)
		if back, ok := last(txn, prefix, blockKey(prefix, from, ^uint64(0))); ok {
			if _, first, _, ok := parseBlockKey(back); ok {
				start = blockKey(prefix, first, 0)
			}
		}
		o := badger.DefaultIteratorOptions
		// Badger would read values ahead on goroutines of its own, where nobody can catch a fault.
		o.Prefix, o.PrefetchValues = prefix, false
		var data []byte
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Seek(start); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			item := it.Item()
			name, first, sequence, ok := parseBlockKey(item.Key())
			if !ok {
				return malformed("read", log)
			}
			err := l.checkLineage(item)
			if err != nil {
				return err
			}
			// A copy, as Badger must not begin another file while somebody holds a value of the last.
			if data, err = valueCopy(txn, item, data); err != nil {
				return err
			}
			if inner = yield(journal.Block{Log: name, First: first, Sequence: sequence, Data: data}); inner != nil {
				return inner
			}
		}
		return nil
	})
	if inner != nil {
		return inner
	}
	return Classify("read", err)
}

// last returns the greatest key with the prefix that is not above upper.
func last(txn *badger.Txn, prefix, upper []byte) ([]byte, bool) {
	it := lastOf(txn, prefix, upper)
	defer it.Close()
	if !it.Valid() {
		return nil, false
	}
	return it.Item().KeyCopy(nil), true
}

// lastOf is an iterator that is at the greatest key with the prefix that is not above upper, if there is one.
func lastOf(txn *badger.Txn, prefix, upper []byte) *badger.Iterator {
	o := badger.DefaultIteratorOptions
	o.Reverse, o.PrefetchValues = true, false
	o.Prefix = prefix // so that only tables that may have it are looked into
	it := txn.NewIterator(o)
	it.Seek(upper)
	return it
}

func (l *Log) last(log journal.LogName) (b journal.Block, ok bool, err error) {
	err = l.db.View(func(txn *badger.Txn) error {
		prefix := logPrefix(log)
		it := lastOf(txn, prefix, blockKey(prefix, ^journal.Position(0), ^uint64(0)))
		defer it.Close() // after the value was read: until then no file of values is removed
		if !it.Valid() {
			return nil
		}
		item := it.Item()
		name, first, sequence, good := parseBlockKey(item.Key())
		if !good {
			return malformed("read", log)
		}
		b, ok = journal.Block{Log: name, First: first, Sequence: sequence}, true
		if err := l.checkLineage(item); err != nil {
			return err
		}
		b.Data, err = valueCopy(txn, item, nil)
		return err
	})
	return b, ok, Classify("read", err)
}

// logs seeks from one log's name to the next, so it reads one key a log.
func (l *Log) logs() (names []journal.LogName, err error) {
	err = l.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Seek([]byte{'b'}); it.ValidForPrefix([]byte{'b'}); {
			name, _, _, ok := parseBlockKey(it.Item().Key())
			if !ok {
				return malformed("read", "")
			}
			names = append(names, name)
			it.Seek(append(logPrefix(name), bytes.Repeat([]byte{0xff}, 17)...))
		}
		return nil
	})
	// Keys order names by length first.
	slices.Sort(names)
	return names, Classify("read", err)
}
