package badgerlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// step is a step of opening. Some are left out if the log is opened for reading only, as they write.
type step struct {
	name   string
	writes bool
	do     func(*Log) error
}

// steps are those of opening, in order. The first that fails ends it.
var steps = []step{
	{"read the lineage", false, (*Log).readLineage},
	{"read the heads", false, (*Log).readHeads},
	{"remove files that were never written", true, func(l *Log) error { return removeEmpty(l.badger()) }},
	{"empty the shelf of the opening before", true, func(l *Log) error { return clearUnlisted(l.badger()) }},
	{"take an older log over", true, (*Log).takeOver},
	{"mend small files", true, func(l *Log) error { return mendSmall(l.badger()) }},
	{"quarantine damaged tables", true, (*Log).quarantineTables},
	{"look for missing files of values", true, (*Log).missFiles},
	{"quarantine files of other journals", true, (*Log).quarantineForeign},
	{"look for lost pointers", true, func(l *Log) error { return noteLostPointers(l.badger()) }},
	{"keep a damaged newest file of values", true, (*Log).keepNewest},
	{"open Badger", false, (*Log).openBadger},
	{"find or begin the lineage", true, (*Log).findLineage},
	{"write the heads", true, (*Log).openHeads},
	{"list quarantined files", false, (*Log).listQuarantined},
	{"sync the names of new files", true, (*Log).settle},
	{"recover", true, (*Log).recoverWrites},
}

func (l *Log) open() error {
	l.names = directory{path: l.badger(), sync: syncPath}
	for _, s := range steps {
		if s.writes && l.options.ReadOnly {
			continue
		}
		if err := s.do(l); err != nil {
			return within(s.name, err)
		}
	}
	return nil
}

// within adds the name of a step to an error that does not say by itself what it is about.
func within(step string, err error) error {
	var ours *journal.Error
	if errors.As(err, &ours) {
		return err
	}
	return fmt.Errorf("%s: %w", step, err)
}

func openError(dir string, err error) error {
	if saysLocked(err) {
		return &journal.Error{Op: "open", Kind: journal.KindLocked,
			Detail: fmt.Sprintf("another process has the journal in %s open", dir), Err: err}
	}
	return Classify("open", err)
}

func (l *Log) openBadger() error {
	db, err := badger.OpenManaged(l.badgerOptions())
	if err != nil {
		if !ofTheSystem(err) {
			err = damaged(l.badger(), "%v", err)
		}
		return err
	}
	l.db, l.version, l.removed = db, max(l.version, db.MaxVersion()), true
	db.SetDiscardTs(db.MaxVersion())
	return nil
}

// listQuarantined lists the quarantined files.
func (l *Log) listQuarantined() (err error) {
	l.quarantined, err = filepath.Glob(filepath.Join(l.badger(), "*"+asideSuffix))
	return err
}

// olderMark is a file of logs from before Badger synced its writes itself, which may lack pointers.
const olderMark = "SYNCED"

// takeOver has what an older log lacks found.
func (l *Log) takeOver() error {
	mark := filepath.Join(l.badger(), olderMark)
	if _, err := os.Stat(mark); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return err
	}
	if err := (redo{}).note(l.badger()); err != nil {
		return err
	}
	return os.Remove(mark)
}
