package badgerengine

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// recovery is what recover does; see values.go.
type recovery struct {
	*database
	mark  mark
	last  uint64                     // version of the last write of values
	all   bool                       // all is written again, also what there are pointers to
	first map[journal.LogName]uint64 // sequence of the first block with a pointer, 0 if there is none
	known bool                       // each key could be looked up
}

// recover writes again what the value log has and Badger has no pointer to, and removes pointers
// to what was being written when the power was lost. files are those of the value log before Badger was opened. Where a table
// is damaged nothing is known of a key; what cannot be done then is tried again at the next opening, and so is everything
// if there are doubts about the log's files.
func (d *database) recover(m mark, files []valueFile, doubts bool, heads map[journal.LogName]journal.Head) error {
	dir := d.Opts().Dir
	top := d.MaxVersion()
	if top < m.Version {
		m.File = 0 // pointers are missing that were on disk
	}
	files = slices.DeleteFunc(slices.Clone(files), func(f valueFile) bool { return f.id < m.File || f.size <= logHeaderSize })
	_, err := os.Stat(filepath.Join(dir, unsyncedFile))
	r := recovery{database: d, mark: m, last: max(top, m.Version), all: err == nil, first: map[journal.LogName]uint64{}, known: true}
	for _, f := range files {
		// Who died before syncing it acknowledged nothing, but from now on it can be read.
		err := withValues(dir, f.id, func(content []byte, file *os.File) error {
			if err := syncData(file); err != nil {
				return errors.Join(err, noteUnsynced(dir))
			}
			return eachValue(content, file, func(_ int, e storedValue) error {
				r.last = max(r.last, e.version)
				return nil
			})
		})
		r.known = r.known && err == nil
		if err != nil && !errors.Is(err, errDamaged) {
			return err
		}
	}
	d.version = r.last
	for _, f := range files {
		err := withValues(dir, f.id, func(content []byte, file *os.File) error { return r.file(content, file) })
		r.known = r.known && err == nil
		if err != nil && !errors.Is(err, errDamaged) {
			return err
		}
	}
	if top > m.Version {
		err := guard(new(bool), func() error { return d.removeTorn(top, heads) })
		if journal.KindOf(err) == journal.KindCorrupt {
			r.known, err = false, nil
		}
		if err != nil {
			return err
		}
	}
	// What was being written and is not there is no matter any more. The group's key is never deleted, so
	// Badger always has a version as great as this.
	d.written, _, err = d.newest(groupKey)
	if !r.known || journal.KindOf(err) == journal.KindCorrupt {
		return nil
	}
	if err != nil {
		return err
	}
	if err := removeIfThere(filepath.Join(dir, unsyncedFile)); err != nil || doubts {
		return err
	}
	if d.values != nil {
		err = d.note()
	} else if left, listed := listValues(dir); len(left) > 0 || listed != nil {
		err = errors.Join(listed, notePointers(dir, left[len(left)-1].id+1, d.written))
	}
	if d.values == nil {
		d.SetDiscardTs(d.version)
	}
	d.settled = err == nil
	return err
}

// note notes that pointers are synced. Readers want the newest versions only, so nothing older need be kept; but what was deleted
// behind the mark must be known, or it would be found again. The caller holds writing, or nobody else has d yet.
func (d *database) note() error {
	err := notePointers(d.values.dir, d.values.id, d.written)
	if err == nil {
		d.marked = d.values.id
		d.SetDiscardTs(d.written)
	}
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// file writes again what one file has and nobody points to.
func (r *recovery) file(content []byte, f *os.File) error {
	var group []storedValue
	unsynced := 0
	end := func(last bool) error {
		if len(group) == 0 {
			return nil
		}
		version := group[0].version
		entries, err := r.group(group, last)
		group = group[:0]
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, e := range entries {
			unsynced += len(e.Key) + len(e.Value) + leastApart
		}
		if err := r.again(entries, version); err != nil {
			return err
		}
		if unsynced < r.most() {
			return nil
		}
		unsynced = 0
		return r.sync()
	}
	err := eachValue(content, f, func(_ int, e storedValue) error {
		if len(group) > 0 && e.version != group[0].version {
			if err := end(false); err != nil {
				return err
			}
		}
		group = append(group, e)
		return nil
	})
	if err == nil {
		err = end(true)
	}
	return errors.Join(err, r.sync())
}

// group are the entries of a transaction that are to be written again. last says that nothing stands behind them in their file.
func (r *recovery) group(group []storedValue, last bool) (entries []*badger.Entry, err error) {
	want := uint64(math.MaxUint64)
	for _, e := range group {
		if string(e.key) == string(groupKey) {
			want, _ = binary.Uvarint(e.value)
		}
		if r.lineage != 0 && e.expires != r.lineage {
			return nil, nil // it is another journal's
		}
	}
	// Behind another one there is only what was synced, and the rest of it has been removed, or is damaged.
	if want != uint64(len(group)-1) && (last || group[0].version > r.mark.Version && r.mark.File > 0) {
		return nil, nil // it was being written
	}
	for _, e := range group {
		if string(e.key) == string(groupKey) {
			continue
		}
		wanted, err := r.wanted(e)
		if journal.KindOf(err) == journal.KindCorrupt {
			r.known = false
			continue
		}
		if err != nil {
			return nil, err
		}
		if wanted {
			entries = append(entries, r.entry(slices.Clone(e.key), slices.Clone(e.value)).WithMeta(e.userMeta))
		}
	}
	if len(entries) > 0 {
		entries = append(entries, r.groupEntry(len(entries)))
		for _, e := range entries {
			e.ExpiresAt = group[0].expires
		}
	}
	return entries, nil
}

// wanted says whether an entry is to be written again.
func (r *recovery) wanted(e storedValue) (bool, error) {
	newest, live, err := r.newest(e.key)
	switch {
	case err != nil || newest > e.version || newest == e.version && !live:
		return false, err
	case newest == e.version:
		if r.all || e.version == r.last { // the last one may never have been synced, whatever the kernel says now
			return true, nil
		}
		readable, err := r.readable(e.key)
		return !readable, err
	case newest == 0 && r.mark.File > 0 && e.version > r.mark.Version:
		return true, nil // or there would be a deletion
	}
	there, ok, err := r.inLog(e.key, r.first)
	return there && ok, err
}

// firstSequence is the sequence of the first block of a log, 0 if it has none.
func (d *database) firstSequence(log journal.LogName) (first uint64, err error) {
	err = guard(new(bool), func() error {
		return d.View(func(txn *badger.Txn) error {
			o := badger.DefaultIteratorOptions
			o.PrefetchValues, o.Prefix = false, logPrefix(log)
			it := txn.NewIterator(o)
			defer it.Close()
			if it.Rewind(); it.Valid() {
				_, _, first, _ = parseBlockKey(it.Item().Key())
			}
			return nil
		})
	})
	return first, classify("read", err)
}

// blockOf tells of which block a key is, or the part that it names.
func blockOf(key []byte) (log journal.LogName, sequence uint64, ok bool) {
	if len(key) > 5 && key[0] == 0 {
		key = key[1 : len(key)-4]
	}
	log, _, sequence, ok = parseBlockKey(key)
	return log, sequence, ok
}

// readable says whether there is a value under a key and it is whole. Badger makes one that is not an empty one.
func (d *database) readable(key []byte) (ok bool, err error) {
	err = guard(new(bool), func() error {
		return d.View(func(txn *badger.Txn) error {
			item, err := txn.Get(key)
			if err != nil {
				return err
			}
			return item.Value(func(v []byte) error { ok = len(v) > 0; return nil })
		})
	})
	return ok, classify("read", err)
}

// again writes entries under a version that they had before. They are not synced. What does not fit into a transaction goes
// into another one: until all are there, the next opening finds them in the place where they were.
func (r *recovery) again(entries []*badger.Entry, version uint64) error {
	txn := r.begin()
	defer func() { txn.Discard() }()
	for _, e := range entries {
		err := txn.SetEntry(e)
		if errors.Is(err, badger.ErrTxnTooBig) {
			if err := txn.CommitAt(version, nil); err != nil {
				return err
			}
			txn = r.begin()
			err = txn.SetEntry(e)
		}
		if err != nil {
			return err
		}
	}
	return txn.CommitAt(version, nil)
}

// sync syncs what was written again.
func (r *recovery) sync() error {
	if r.values == nil {
		return nil // Badger does
	}
	_, err := r.values.sync()
	return err
}

// newest returns the newest version of a key, 0 if there is none, and whether it is no deletion. If a table is
// damaged there the error's kind is journal.KindCorrupt.
func (d *database) newest(key []byte) (version uint64, live bool, err error) {
	err = guard(new(bool), func() error {
		return d.View(func(txn *badger.Txn) error {
			item, err := txn.Get(key)
			if err == nil {
				version, live = item.Version(), true
			}
			if !errors.Is(err, badger.ErrKeyNotFound) {
				return err
			}
			o := badger.DefaultIteratorOptions
			o.AllVersions, o.PrefetchValues = true, false
			it := txn.NewKeyIterator(key, o)
			defer it.Close()
			if it.Rewind(); it.Valid() {
				version = it.Item().Version()
			}
			return nil
		})
	})
	return version, live, classify("recover", err)
}

// removeTorn removes the blocks of the last write if not all of them are there and nobody was told that
// they are: their pointers came to the disk, or were left by who died, before their values.
func (d *database) removeTorn(last uint64, heads map[journal.LogName]journal.Head) error {
	var keys [][]byte
	torn := false
	err := d.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues, o.Prefix, o.SinceTs = false, []byte{'b'}, last-1
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			log, _, sequence, ok := parseBlockKey(item.Key())
			if !ok || item.Version() != last {
				continue
			}
			if err := item.Value(func(v []byte) error { torn = torn || len(v) == 0; return nil }); err != nil {
				return err
			}
			if sequence > heads[log].Sequence {
				keys = append(keys, item.KeyCopy(nil))
			}
		}
		return nil
	})
	if err != nil || !torn || len(keys) == 0 {
		return err
	}
	return remove(d, keys)
}
