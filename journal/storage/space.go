package storage

import (
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/badgerlog"
)

// Badger writes its tables and its write-ahead logs through maps of files that
// have their size and not yet their blocks. When the disk is full the kernel has no
// error for such a write: it sends SIGBUS, on one of Badger's goroutines, and that
// is the end of the process. So Badger must not meet a full disk. While there is
// less room than the reserve, the storage says that it is full and the journal
// takes nothing in; the reserve is for what was accepted before, and for Badger's
// compactions, which write new tables before they remove the old ones.
//
// What this cannot prevent: somebody else who fills the disk below the reserve while
// Badger writes, and a quota that the file system does not tell as free space. The
// process then dies as by kill -9, and the next one says that the disk is full.

// Space implements journal.Spacer.
func (s *Storage) Space() error {
	if err := checkSpace(s.dir, s.reserve); err != nil {
		return err
	}
	return s.checkFiles()
}

// Disk is the size of the disk of a directory, and the room that is left on it for this
// user, in bytes. known is false where the system does not tell.
func Disk(dir string) (size, free int64, known bool, err error) {
	total, left, known, err := diskBytes(dir)
	return int64(total), int64(left), known, err
}

func checkSpace(dir string, least uint64) error {
	if least == 0 {
		return nil
	}
	_, free, known, err := diskBytes(dir)
	if err != nil {
		return badgerlog.Classify("space", err)
	}
	if known && free < least {
		return &journal.Error{Op: "space", Kind: journal.KindFull,
			Detail: fmt.Sprintf("the disk of %s has %d MiB left and the journal needs %d; make room",
				dir, free>>20, least>>20)}
	}
	return nil
}
