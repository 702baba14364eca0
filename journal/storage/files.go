package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/badgerlog"
	"github.com/bulkhead-wasm/bulkhead/journal/pebbleindex"
)

// The log keeps all of its files open, the index as many of its tables as it may, and both some more while they make
// new ones. If the process had no descriptor left for a new file, the journal would fail. So a storage that was given a
// maximum refuses writes before it reaches that, as it does when the disk is full.

const (
	// fileGrowth is the number of descriptors that a storage needs in addition to one for each file: for its
	// directories and lock, and for tables that are written while those that they replace are still there.
	fileGrowth = 32
	// fileReserve is the number of these that must be free, for commits that were accepted before.
	fileReserve = 16
)

// FilesOf returns how many descriptors the storage in a directory needs, for the files that are there and those that it
// may make in the next seconds.
func FilesOf(dir string) (int, error) {
	log, err := filesIn(filepath.Join(dir, "log"))
	if err != nil {
		return 0, err
	}
	index, err := filesIn(filepath.Join(dir, "index"))
	if err != nil {
		return 0, err
	}
	return fileGrowth + log + min(index, pebbleindex.MaxFiles), nil
}

// filesIn counts the files below a directory, which may not be there.
func filesIn(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // also if it is removed meanwhile
			return nil
		}
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	return n, badgerlog.Classify("files", err)
}

// checkFiles returns a KindFull error if too few descriptors are left.
func (d *directory) checkFiles() error {
	if d.options.MaxFiles <= 0 {
		return nil
	}
	need, err := FilesOf(d.dir)
	if err != nil {
		return err
	}
	if need > d.options.MaxFiles+fileGrowth-fileReserve {
		return &journal.Error{Op: "space", Kind: journal.KindFull,
			Detail: fmt.Sprintf("the journal has %d files and may have %d open; raise the limit of open files, "+
				"or delete events and start again", need-fileGrowth, d.options.MaxFiles-fileReserve)}
	}
	return nil
}
