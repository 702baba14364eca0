package badgerlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Badger syncs values before it writes pointers to them. So a value whose pointer is lost can be found in the files of
// values, with its key and its version. It is written again by a transaction with the same version. Of entries with the
// same key and version Badger reads the one that was written last, so a recovery that is interrupted can start again.
//
// Pointers are lost when a table, the list of tables or the log of a table in memory is damaged, and when the process
// is killed between the values of a group and their pointers. Blocks are deleted from the beginning of a log: a block
// before the first one that has a pointer was deleted. A group of which it is unknown whether it was acknowledged is
// written again as a whole or not at all; see groupKey.

// groupKey is the key of an entry that each transaction with values has: the number of its other entries. Badger writes
// the entries of a transaction in no particular order, and does not mark the end of one in a file of values.
var groupKey = []byte("g")

// groupEntry is the entry of a transaction with so many others.
func (l *Log) groupEntry(others int) *badger.Entry {
	value := make([]byte, minInFile)
	binary.PutUvarint(value, uint64(others))
	return l.entry(groupKey, value)
}

// redo says which values have to be written again.
type redo struct {
	after uint64 // read the files of values that ended after this version
	all   bool   // write all live values of these files again, and not only those without a pointer
}

// redoFile exists while values have to be written again. It has "after all" as text. After a failed write all is true:
// the kernel takes what it could not write for written.
const redoFile = "UNSYNCED"

// note writes the file, which keeps what was noted before.
func (r redo) note(dir string) error {
	before, there, err := readRedo(dir)
	if there {
		r = redo{min(r.after, before.after), r.all || before.all}
	}
	return errors.Join(err, writeSynced(filepath.Join(dir, redoFile), fmt.Appendln(nil, r.after, r.all)))
}

// readRedo reads the file. A damaged one means everything.
func readRedo(dir string) (r redo, there bool, err error) {
	content, err := os.ReadFile(filepath.Join(dir, redoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return redo{}, false, nil
	}
	if _, bad := fmt.Sscan(string(content), &r.after, &r.all); bad != nil {
		r = redo{all: true}
	}
	return r, true, err
}

// recoverWrites removes a write that was cut short, and writes values again. Where a table is damaged nothing is
// known of a key, so what cannot be done now is tried again at the next opening.
func (l *Log) recoverWrites() error {
	top := l.db.MaxVersion()
	cut := l.version > top
	if err := l.removeTorn(top); err != nil {
		return err
	}
	r, there, err := readRedo(l.badger())
	if cut { // pointers are missing, or a write was cut short
		if !there || r.after > top {
			r.after = top
		}
		there, err = true, errors.Join(err, r.note(l.badger()))
	}
	if err != nil || !there && len(l.quarantined) == 0 {
		return err
	}
	err = l.redo(r)
	if err == nil && cut { // from now on Badger knows of this version, so it is not used twice
		err = l.write(nil)
	}
	if journal.KindOf(err) == journal.KindCorrupt {
		return nil
	}
	return errors.Join(err, removeIfThere(filepath.Join(l.badger(), redoFile)))
}

func (l *Log) redo(r redo) error {
	files, err := listValues(l.badger())
	if err != nil {
		return err
	}
	p := redoing{Log: l, known: map[journal.LogName]extent{}}
	for _, f := range files[:max(len(files)-1, 0)] { // Badger has just begun the newest
		ended, listed := l.files[f.id]
		before := listed && ended.Version <= r.after
		if before && len(l.quarantined) == 0 {
			continue
		}
		p.all = r.all && !before
		var inner error
		whole := false
		err := withMap(valuesPath(l.badger(), f.id), func(content []byte) {
			end, _ := wholeUpTo(content)
			whole = onlyZeros(content[end:])
			inner = p.file(content)
		})
		if err = errors.Join(inner, err); err != nil && !errors.Is(err, errDamaged) {
			return err
		}
		if p.all && whole && err == nil { // every live value of it is in another file now
			l.files[f.id] = finished{Version: ended.Version}
		}
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.list()
}

// redoing is a redo that is under way.
type redoing struct {
	*Log
	all   bool
	known map[journal.LogName]extent
}

// extent is what a log had before anything was written again.
type extent struct {
	first uint64 // sequence of the first block that has a pointer, 0 if there is none
	last  uint64 // of the last block that was acknowledged, as far as is known
}

// file writes values of a file again.
func (p *redoing) file(content []byte) error {
	var group []storedValue
	err := eachValue(content, p.lineage, func(_ int, e storedValue) error {
		p.version = max(p.version, e.version)
		if len(group) > 0 && group[0].version != e.version {
			if err := p.group(group); err != nil {
				return err
			}
			group = group[:0]
		}
		group = append(group, e)
		return nil
	})
	if err != nil {
		return err
	}
	return p.group(group)
}

// group writes those entries of a transaction again that are missing.
func (p *redoing) group(group []storedValue) error {
	whole := slices.ContainsFunc(group, func(e storedValue) bool {
		others, _ := binary.Uvarint(e.value)
		return string(e.key) == string(groupKey) && others == uint64(len(group)-1)
	})
	txn := p.begin()
	defer txn.Discard()
	some := false
	for _, e := range group {
		wanted, err := p.wanted(e, whole)
		if err == nil && wanted {
			again := badger.NewEntry(slices.Clone(e.key), slices.Clone(e.value)).WithMeta(e.userMeta)
			again.ExpiresAt, some = e.expires, true
			err = txn.SetEntry(again)
		}
		if err != nil {
			return err
		}
	}
	if !some {
		return nil
	}
	return p.commitAt(txn, group[0].version)
}

// wanted reports whether an entry is to be written again.
func (p *redoing) wanted(e storedValue, whole bool) (bool, error) {
	log, sequence, ok := blockOf(e.key)
	if !ok || p.lineage != 0 && e.expires != p.lineage {
		return false, nil
	}
	newest, readable, err := p.newest(e.key)
	switch {
	case err != nil || newest > e.version: // it was deleted, or written again
		return false, err
	case newest == e.version:
		return p.all || !readable, nil
	}
	has, err := p.extent(log)
	return sequence >= has.first && (whole || sequence <= has.last), err
}

// newest returns the newest version of a key, also if that is a deletion, 0 if there is none.
func (l *Log) newest(key []byte) (version uint64, readable bool, err error) {
	err = l.guard(new(bool), func() error {
		return l.db.View(func(txn *badger.Txn) error {
			o := badger.DefaultIteratorOptions
			o.AllVersions, o.PrefetchValues = true, false
			it := txn.NewKeyIterator(key, o)
			defer it.Close()
			if it.Rewind(); !it.Valid() {
				return nil
			}
			version = it.Item().Version()
			return it.Item().Value(func(v []byte) error { readable = len(v) > 0; return nil })
		})
	})
	return version, readable, Classify("recover", err)
}

func (p *redoing) extent(log journal.LogName) (has extent, err error) {
	has, ok := p.known[log]
	if ok {
		return has, nil
	}
	err = guardRead(func() error {
		return p.db.View(func(txn *badger.Txn) error {
			prefix := logPrefix(log)
			o := badger.DefaultIteratorOptions
			o.PrefetchValues, o.Prefix = false, prefix
			first := txn.NewIterator(o)
			defer first.Close()
			if first.Rewind(); first.Valid() {
				_, _, has.first, _ = parseBlockKey(first.Item().Key())
			}
			if key, ok := last(txn, prefix, blockKey(prefix, ^journal.Position(0), ^uint64(0))); ok {
				_, _, has.last, _ = parseBlockKey(key)
			}
			return nil
		})
	})
	has.last = max(has.last, p.heads.last[log].Sequence)
	p.known[log] = has
	return has, Classify("recover", err)
}

// removeTorn removes the blocks of the last write if some of them cannot be read and they were not acknowledged. Badger
// writes pointers even if it failed to sync their values, so a loss of power may leave pointers without values.
func (l *Log) removeTorn(top uint64) error {
	var keys [][]byte
	torn := false
	err := guardRead(func() error {
		return l.db.View(func(txn *badger.Txn) error {
			o := badger.DefaultIteratorOptions
			o.PrefetchValues, o.Prefix, o.SinceTs = false, []byte{'b'}, max(top, 1)-1
			it := txn.NewIterator(o)
			defer it.Close()
			for it.Rewind(); it.Valid(); it.Next() {
				item := it.Item()
				log, _, sequence, ok := parseBlockKey(item.Key())
				if !ok || item.Version() != top {
					continue
				}
				value, err := valueCopy(txn, item, nil)
				if err != nil && !errors.Is(err, errParts) {
					return err
				}
				torn = torn || len(value) == 0
				if sequence > l.heads.last[log].Sequence {
					keys = append(keys, item.KeyCopy(nil))
				}
			}
			return nil
		})
	})
	if journal.KindOf(err) == journal.KindCorrupt {
		return nil // a table is damaged there, which readers are told
	}
	if err != nil || !torn || len(keys) == 0 {
		return err
	}
	return l.remove(keys)
}
