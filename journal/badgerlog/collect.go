package badgerlog

import (
	"context"
	"errors"
	"math"

	"github.com/dgraph-io/badger/v4"
)

// The space of deleted blocks is reclaimed in three steps, all of them Badger's. Tables in memory, which have the
// deletions, are flushed. Compactions drop pointers to deleted values, and count for each file of values how many
// bytes were dropped. RunValueLogGC copies the live values of a file to the newest file, and removes it. It is called
// as long as half or more of the files that it would take next was dropped. So live values take at most twice their
// size, plus the newest file.
//
// RunValueLogGC has three weaknesses, and each has its remedy here:
//
//   - It takes the first entry that is not whole for the end of a file, and drops everything after it. So a file is
//     read first, and nothing is collected while it is damaged, or while a file of the log is quarantined.
//   - It removes the old file even if the sync of the new one failed, which Badger only logs. So an open iterator
//     keeps the old file until it is known that no error was logged.
//   - It writes a value again that it has read in the old file, even if a compaction has dropped that value and its
//     deletion in the meantime. So compactions drop nothing while it runs.

// collectRatio is the part of files that must have been dropped before they are collected.
const collectRatio = 0.5

// flushKey is the key of an entry without meaning: DropPrefix flushes the tables in memory if there is such a key.
var flushKey = []byte("f")

// Compact gives the space of deleted blocks back to the disk. It has one worker, so that the disk is left to others
// too.
func (l *Log) Compact(ctx context.Context) error {
	l.compacting.Lock()
	defer l.compacting.Unlock()
	err := l.flush()
	if err == nil {
		err = l.db.Flatten(1)
	}
	if err == nil && len(l.quarantined) == 0 {
		err = l.collect(ctx)
	}
	return Classify("compact", err)
}

// flush flushes the tables in memory, and compacts them with the first level, if they may have deletions. Flatten does
// neither. Appends wait for it.
func (l *Log) flush() error {
	l.writing.Lock()
	removed := l.removed
	l.writing.Unlock()
	if !removed {
		return nil
	}
	if err := l.write([]*badger.Entry{l.entry(flushKey, make([]byte, 1))}); err != nil {
		return err
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.failed != nil {
		return l.failed
	}
	err := l.db.DropPrefix(flushKey)
	if err == nil {
		err = l.settle()
	}
	if err != nil { // Badger may have been left in between
		return l.fail(err, l.endOf(math.MaxUint32))
	}
	l.removed = false
	return nil
}

// collect collects files of values until none is worth it.
func (l *Log) collect(ctx context.Context) error {
	for collected := true; collected; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if collected, err = l.collectOne(); err != nil {
			return err
		}
	}
	return nil
}

// collectOne collects one file, if there is one that is worth it.
func (l *Log) collectOne() (collected bool, err error) {
	if err := l.keepAll(true); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, l.keepAll(false)) }()
	// Flatten waits for compactions that are running, so that from here on none drops anything.
	if err := l.db.Flatten(1); err != nil {
		return false, err
	}
	id, ratio, err := toCollect(l.badger())
	if err != nil || id == 0 {
		return false, err
	}
	whole, err := wholeValues(l.badger(), id)
	if err != nil {
		return false, err
	}
	if !whole { // everything that could be read still can, so this is no error
		if l.options.Logger != nil {
			l.options.Logger.Warn("the space of deleted events is not reclaimed, as a file of the journal is damaged; "+
				"restoring a backup mends that", "file", valuesPath(l.badger(), id))
		}
		return false, nil
	}
	if l.options.Room != nil {
		if err := l.options.Room(l.db.Opts().ValueLogFileSize); err != nil {
			return false, err
		}
	}
	return l.collectFile(id, ratio)
}

// collectFile has Badger collect a file. First the file is struck from the list, so that it is not missed. Once its
// live values are known to be on disk elsewhere, the list says that it may be removed.
func (l *Log) collectFile(id uint32, ratio float64) (collected bool, err error) {
	l.writing.Lock()
	before, listed := l.files[id]
	delete(l.files, id)
	l.moving = id
	err = l.list()
	l.writing.Unlock()
	if err != nil {
		return false, err
	}
	txn := l.db.NewTransactionAt(math.MaxUint64, false)
	o := badger.DefaultIteratorOptions
	o.PrefetchValues, o.Prefix = false, flushKey
	pin := txn.NewIterator(o)
	mark := l.watch.mark()
	if underRace {
		l.writing.Lock()
	}
	err = l.db.RunValueLogGC(ratio)
	if underRace {
		l.writing.Unlock()
	}
	if l.moved != nil {
		l.moved()
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if collected = err == nil; errors.Is(err, badger.ErrNoRewrite) {
		err = nil
	}
	if err == nil {
		err = l.watch.since(mark)
	}
	if err != nil {
		l.pin = pin // until the process ends
		return false, l.fail(err, l.endOf(id))
	}
	pin.Close()
	txn.Discard()
	l.moving = 0
	if counts, err := readDiscards(l.badger()); collected && err == nil && counts[id] == 0 {
		l.files[id] = finished{Version: before.Version}
	} else if listed {
		l.files[id] = before
	}
	if _, err := l.names.settle(); err != nil {
		return false, l.fail(err, l.endOf(id))
	}
	return collected, l.list()
}

// keepAll has compactions drop nothing from now on; or, with false, drop deleted values again.
func (l *Log) keepAll(keep bool) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.failed != nil {
		return l.failed
	}
	if l.collecting = keep; keep {
		l.db.SetDiscardTs(0)
	} else {
		l.db.SetDiscardTs(l.version)
	}
	return nil
}
