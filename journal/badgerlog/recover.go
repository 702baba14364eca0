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

// Badger syncs values before it writes pointers to them, so a value whose pointer is gone can be found in the files of
// values, with its key and its version. It is written again under that version, by a transaction: of entries with the
// same key and version Badger reads the one that was written last, so a recovery that is cut short can begin again.
//
// Pointers are missing where a table, the list of tables, or the log of a table in memory is damaged, and where the
// process was killed between the values of a group and their pointers. Blocks are deleted from the beginning of a
// log, so what comes before the first block that has a pointer was deleted. Of a group of which nobody knows
// whether it was acknowledged, either all blocks are written again or none: see groupKey.

// groupKey is the key of an entry that each transaction of values has: how many others it has. Badger writes a
// transaction in no particular order, and nothing else says whether all of its values are there.
var groupKey = []byte("g")

// groupEntry is the entry of a transaction with so many others.
func (l *Log) groupEntry(others int) *badger.Entry {
	value := make([]byte, leastApart)
	binary.PutUvarint(value, uint64(others))
	return l.entry(groupKey, value)
}

// redo says what has to be written again.
type redo struct {
	after uint64 // the files of values are read that ended after this version
	all   bool   // all that they have is written again, and not only what has no pointer
}

// redoFile is there while values have to be written again: "after all" as text. The kernel takes what it could not
// write for written, so after a failed write all of that file is.
const redoFile = "UNSYNCED"

// note notes what has to be written again, beside what was noted before.
func (r redo) note(dir string) error {
	before, there, err := readRedo(dir)
	if there {
		r = redo{min(r.after, before.after), r.all || before.all}
	}
	return errors.Join(err, writeSynced(filepath.Join(dir, redoFile), fmt.Appendln(nil, r.after, r.all)))
}

// readRedo reads the note. A damaged one means everything.
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

// recoverWrites removes a write that was cut short and writes again what has to be. Where a table is damaged nothing
// is known of a key, so what cannot be done now is tried at the next opening.
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
	if err != nil || !there && len(l.doubts) == 0 {
		return err
	}
	err = l.redo(r)
	if err == nil && cut { // Badger knows from now on that a write that was cut short had this version
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
		if before && len(l.doubts) == 0 {
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
		if p.all && whole && err == nil { // all that it has stands elsewhere now
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

// file writes again what a file of values has.
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

// group writes those entries of a transaction again that are wanted.
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

// removeTorn removes the blocks of the last write if not all of them can be read and nobody was told that they are
// there. Badger writes a pointer after its value, also if it could not sync that; then a loss of power may leave the
// pointer alone.
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
		return nil // a table is damaged there; whoever reads is told
	}
	if err != nil || !torn || len(keys) == 0 {
		return err
	}
	return l.remove(keys)
}
