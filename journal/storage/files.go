package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/badgerlog"
)

// Badger and the index have each of their files open as long as it is there, and some
// for a moment while they make new ones. A file that cannot be opened for want of a
// descriptor would end the journal. So a storage that has been told how many it may have
// says that it is full before that, as when its disk is full.

const (
	// fileGrowth is how many descriptors a storage needs beside one for each of its files:
	// for its directories and lock, and for tables that are written by flushes and merges of
	// log and index while those that they replace are still there.
	fileGrowth = 32
	// fileReserve is how many of these have to be left for what was accepted before.
	fileReserve = 16
)

// FilesOf is how many descriptors a storage in a directory needs for what is there now and
// for what it may make in the next seconds.
func FilesOf(dir string) (int, error) {
	n := fileGrowth
	for _, sub := range []string{"log", "index"} {
		files, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, badgerlog.Classify("files", err)
		}
		n += len(files)
	}
	return n, nil
}

// checkFiles says that the storage is full if it has too few descriptors left.
func (s *Storage) checkFiles() error {
	if s.options.MaxFiles <= 0 {
		return nil
	}
	need, err := FilesOf(s.dir)
	if err != nil {
		return err
	}
	if need > s.options.MaxFiles+fileGrowth-fileReserve {
		return &journal.Error{Op: "space", Kind: journal.KindFull,
			Detail: fmt.Sprintf("the journal has %d files and may have %d open; raise the limit of open files, "+
				"or delete events and start again", need-fileGrowth, s.options.MaxFiles-fileReserve)}
	}
	return nil
}
