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

// Log and index keep all of their files open, and some more while they make new ones. If the process had no descriptor
// left for a new file, the journal would fail. So a storage that was given a maximum refuses writes before it reaches
// that, as it does when the disk is full.

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

// checkFiles returns a KindFull error if too few descriptors are left.
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
