package badgerlog

import (
	"context"
	"errors"
	"math"

	"github.com/dgraph-io/badger/v4"
)

// What a retention removes is given back in three steps, by Badger's own means. Tables in memory, which have the
// deletions, are written to disk. Merging tables drops the values that were deleted, and counts for each file how
// much of it that was. RunValueLogGC writes what is left of a file, of which half or more was dropped, into the
// newest file, and removes it. So what was not deleted takes at most twice its size, beside the newest file.
//
// Three things that RunValueLogGC does not care about are cared for here:
//
//   - It believes that a file ends at the first entry that is not whole, and would lose what a damaged file has
//     behind that. So nothing is collected while a file is damaged, or anything of the log stands aside.
//   - It removes the old file although a sync of the new one has failed, of which there is only a line in the log.
//     An open iterator has it leave the old file where it is until it is known that there was no such line.
//   - It writes again what it has seen in the old file, also if a merge has dropped it, together with its deletion,
//     meanwhile. So merges drop nothing while it runs.

// collectRatio is the part of a file that has to be dropped before the rest is written again.
const collectRatio = 0.5

// flushKey is the key of an entry without meaning. Dropping it writes the tables in memory to disk.
var flushKey = []byte("f")

// Compact implements journal.Compactor: with one worker, so that the disk is left to others too.
func (l *Log) Compact(ctx context.Context) error {
	l.compacting.Lock()
	defer l.compacting.Unlock()
	err := l.flush()
	if err == nil {
		err = l.db.Flatten(1)
	}
	if err == nil && len(l.doubts) == 0 {
		err = l.collect(ctx)
	}
	return Classify("compact", err)
}

// flush writes tables in memory to disk, and merges them with those of the first level, if there may be deletions
// in them. Flatten does neither. Nothing is written to the log meanwhile.
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

// collect collects files of values until there is none left that is worth it.
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
	// It waits for the merges that are under way, so that from here on none drops anything.
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
	if !whole { // what can be read is as it was, so this is no error
		if l.options.Logger != nil {
			l.options.Logger.Warn("the journal gives no space of deleted events back while one of its files is "+
				"damaged; a backup that is restored has no such file", "file", valuesPath(l.badger(), id))
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

// collectFile has Badger collect a file. From before that on nobody misses it, and once it is known that what was
// left of it is on disk elsewhere, it may go.
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
		l.pin = pin // for ever
		return false, l.fail(err, l.endOf(id))
	}
	pin.Close()
	txn.Discard()
	l.moving = 0
	if collected {
		l.files[id] = finished{Version: before.Version}
	} else if listed {
		l.files[id] = before
	}
	if _, err := l.names.settle(); err != nil {
		return false, l.fail(err, l.endOf(id))
	}
	return collected, l.list()
}

// keepAll has merges drop nothing from now on, or what was deleted again.
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
