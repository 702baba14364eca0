package storage

import (
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/badgerlog"
)

// Badger writes its files through memory maps, and the disk blocks of these files are allocated by the writes. When the
// disk is full the kernel cannot return an error for such a write. It sends SIGBUS to one of Badger's goroutines, which
// ends the process. So Badger must never meet a full disk. While less space is free than the reserve, the storage says
// that it is full, and the journal refuses commits. The reserve is for commits that were accepted before, and for
// compactions, which write new tables before they remove old ones.
//
// This does not help if another program fills the disk while Badger writes, or against a quota that the file system
// does not report as free space. The process then ends as by kill -9, and after a restart says that the disk is
// full.

// space is Space of the journal.Storage.
func (d *directory) space() error {
	if err := checkSpace(d.dir, d.reserve); err != nil {
		return err
	}
	return d.checkFiles()
}

// Disk is the size of the disk of a directory, and the room that is left on it for this
// user, in bytes. known is false where the system does not tell.
func Disk(dir string) (size, free int64, known bool, err error) {
	total, left, known, err := diskBytes(dir)
	return int64(total), int64(left), known, err
}

func checkSpace(dir string, minFree uint64) error {
	if minFree == 0 {
		return nil
	}
	_, free, known, err := diskBytes(dir)
	if err != nil {
		return badgerlog.Classify("space", err)
	}
	if known && free < minFree {
		return &journal.Error{Op: "space", Kind: journal.KindFull,
			Detail: fmt.Sprintf("the disk of %s has %d MiB left and the journal needs %d; make room",
				dir, free>>20, minFree>>20)}
	}
	return nil
}
