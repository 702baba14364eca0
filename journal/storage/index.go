package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/badgerlog"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/pebbleindex"
)

// index is the store of the index.
type index = *pebbleindex.Store

// checkedIndex is up to which size an index is read as a whole whenever it is opened, which takes
// about a tenth of a second then. Damage of a larger one is found when the block is read.
const checkedIndex = 64 << 20

const asideSuffix = ".damaged"

func (d *directory) indexOptions() pebbleindex.Options {
	return pebbleindex.Options{
		ReadOnly:    d.options.ReadOnly,
		MemoryBytes: d.options.IndexCacheBytes,
		Group:       format.IndexGroup,
		Counted:     pebbleindex.Counted{Of: format.AnswerDay, Prefix: format.AnswerPrefix},
		// The reserve is the log's. A compaction that would eat into it is not worth it.
		Room:      func(bytes int64) error { return checkSpace(d.dir, d.reserve+uint64(bytes)) },
		Abandoned: d.memory.loseIndex,
		Logger:    d.options.Logger,
	}
}

// openIndex opens the index, or an empty one in the place of one that is damaged.
func (d *directory) openIndex() (err error) {
	dir, o := d.indexDir(), d.indexOptions()
	if o.ReadOnly {
		d.index, err = pebbleindex.Open(dir, o)
		return err
	}
	if d.index, err = d.openOwnIndex(dir, o); err == nil || journal.KindOf(err) != journal.KindCorrupt {
		return err
	}
	if o.Logger != nil {
		o.Logger.Error("the journal's index is damaged; it is put aside and made again from the log", "error", err)
	}
	// One that was put aside before makes room.
	if err := errors.Join(os.RemoveAll(dir+asideSuffix), os.Rename(dir, dir+asideSuffix)); err != nil {
		return err
	}
	if _, err := badgerlog.KeepLineage(dir, d.log.Lineage()); err != nil {
		return err
	}
	if err := d.memory.again(); err != nil {
		return err
	}
	d.index, err = pebbleindex.Open(dir, o)
	return err
}

// openOwnIndex opens the index if it is this journal's and not damaged.
func (d *directory) openOwnIndex(dir string, o pebbleindex.Options) (*pebbleindex.Store, error) {
	own, err := false, removeOlderIndex(dir)
	if err == nil {
		own, err = badgerlog.KeepLineage(dir, d.log.Lineage())
	}
	switch {
	case errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR):
		return nil, damagedIndex(dir, "it is no directory, or has one in the place of a file", err)
	case err != nil:
		return nil, err
	case !own:
		return nil, damagedIndex(dir, "it is the index of another journal", nil)
	}
	index, err := pebbleindex.Open(dir, o)
	if err != nil || !d.deep && index.Stats().Bytes > checkedIndex {
		return index, err
	}
	found := index.Check(context.Background())
	if journal.KindOf(found) == journal.KindCorrupt {
		return nil, errors.Join(found, index.Close())
	}
	if found != nil && o.Logger != nil { // what cannot be read now is no damage yet
		o.Logger.Warn("the journal's index could not be checked", "error", found)
	}
	return index, nil
}

func damagedIndex(dir, detail string, err error) error {
	detail = fmt.Sprintf("%s is damaged: %s", dir, detail)
	return &journal.Error{Op: "open", Kind: journal.KindCorrupt, Detail: detail, Err: err}
}

// removeOlderIndex removes an index of an earlier version, which kept it in Badger, or in tables of its own. It is made
// from the log again.
func removeOlderIndex(dir string) error {
	older := dir + ".older"
	err := os.RemoveAll(older) // which may be of a try before
	for _, name := range []string{"MANIFEST", "RUNS"} {
		if err != nil {
			return err
		}
		if _, err = os.Stat(filepath.Join(dir, name)); err == nil {
			err = errors.Join(os.Rename(dir, older), os.RemoveAll(older))
		} else if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	return err
}
