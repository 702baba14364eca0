// Package badgerlog keeps the journal's log in Badger, through Badger's documented API. It is the only
// package that knows Badger.
//
// The log has a directory of its own for Badger, log/, in the directory of the journal, and beside it the files
// lineage and heads. Whoever opens it holds the lock of the journal's directory.
//
// Badger is trusted with what its documentation and its code promise, and with no more:
//
//   - Writes are synced (SyncWrites): Badger syncs a value before it writes the pointer to it to the log of
//     a table in memory, then syncs that, and syncs a finished file of values before it begins the next.
//   - It returns the error of each of these syncs but one: it only logs that the sync of the file of values to
//     which it writes has failed. So a write during which it logged an error has failed; see commit.
//   - It does not sync the directory when it makes a file; see directory.
//   - It drops deleted values when it merges tables, and RunValueLogGC gives the space back; see collect.go.
//
// What it does not do, a log has to have: a damaged table or file must not cost what the others have. What that
// needs to know of Badger's files is in quarantine.go.
package badgerlog

import (
	"cmp"
	"errors"
	"expvar"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Options are the choices of a log. A zero field means its default.
type Options struct {
	// Logger gets Badger's own messages. Default: none.
	Logger *slog.Logger
	// ReadOnly opens the log for reading only. Default: false.
	ReadOnly bool
	// ValueFileBytes is the size from which on Badger begins another file of values; files of a log that has
	// hundreds of them are larger. Least 4 MiB, default 64 MiB.
	ValueFileBytes int64
	// MaxFiles is how many files the whole journal may have open. Default: no bound.
	MaxFiles int
	// Deep has opening read every block of every table. Default: their ends only.
	Deep bool
	// LineageCopy is a directory that may have a copy of the lineage; see KeepLineage. Default: none.
	LineageCopy string
	// Room is asked before that many bytes are written to give back the space of others. Its error, if any, ends
	// that. Default: there is always room.
	Room func(bytes int64) error
	// Abandoned is called if Badger cannot be closed, so that what it has in memory stays until the process ends.
	// Default: nobody is told.
	Abandoned func()
}

// Log is an open log. Its methods may be called concurrently, Append by one goroutine at a time.
//
// Badger is told which version it is writing ("managed mode"). Left to itself, it has each reader wait for the
// write that is under way, so for a sync of the disk. Here a reader sees what is in the tables in memory, which may
// be part of a write: the journal knows what is durable, and believes nothing beyond.
type Log struct {
	dir         string // of the journal
	options     Options
	watch       *watch
	db          *badger.DB
	lineage     uint64 // of the entries; see lineage.go
	heads       *heads
	quarantined []string // damaged files that were put aside

	faulted    atomic.Bool // a value could not be read, and Badger still holds its file for reading
	compacting sync.Mutex  // held by Compact

	writing    sync.Mutex // held during a write; guards the fields below
	version    uint64     // of the last write
	names      directory
	files      map[uint32]finished // see filesFile
	listed     []byte              // that list as it was written last
	moving     uint32              // file of values that is being collected, 0 if there is none
	failed     error               // of a write whose outcome is unknown; nothing is written after it
	collecting bool                // merges drop nothing meanwhile
	removed    bool                // there may be deletions that no merge has seen
	pin        *badger.Iterator    // keeps files whose values were moved in vain; see collect.go

	// For tests: called when Badger has committed, or collected, and the size of a table in memory.
	committed, moved func()
	tableBytes       int64
}

var (
	_ journal.LogStore  = (*Log)(nil)
	_ journal.HeadStore = (*Log)(nil)
)

const (
	// minInFile is the minimum length of a value that is kept in a file of values; shorter ones are in the tables.
	// Badger's own mark at the end of a transaction has up to 20 digits, and must be in the tables.
	minInFile = 32
	// tableBytes is the size of a table in memory. It has keys and pointers, so that of a gigabyte of batches
	// or so.
	tableBytes = 8 << 20

	badgerDir = "log"
)

func (l *Log) badgerOptions() badger.Options {
	dir, o := l.badger(), l.options
	minBytes := max(cmp.Or(o.ValueFileBytes, valueFileBytes), 8*maxInline)
	return badger.DefaultOptions(dir).
		WithLogger(l.watch).
		WithReadOnly(o.ReadOnly).
		WithSyncWrites(true).
		WithCompression(options.None).
		WithMemTableSize(tableBytesFor(dir, cmp.Or(l.tableBytes, tableBytes))).
		WithNumMemtables(3).
		WithNumCompactors(2).
		WithBaseLevelSize(8 * tableBytes).
		// Keys come in order, so merging is nothing but copying, once a level.
		WithLevelSizeMultiplier(16).
		WithBlockCacheSize(0).
		WithValueThreshold(minInFile).
		WithValueLogFileSize(fileBytesFor(dir, minBytes, maxOfASize(o.MaxFiles))).
		WithValueLogMaxEntries(math.MaxUint32). // a file ends by its size
		WithVerifyValueChecksum(true).          // before Badger believes what the entry says of its length
		WithMetricsEnabled(true).               // for Written
		WithDetectConflicts(false)              // there is one writer
}

// Open opens or makes the log in the directory of a journal. If another process has it open, the error's
// kind is journal.KindLocked.
func Open(dir string, o Options) (*Log, error) {
	l := &Log{dir: dir, options: o, watch: &watch{to: o.Logger}}
	if err := l.open(); err != nil {
		if l.db != nil || l.heads != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, openError(dir, err)
	}
	return l, nil
}

// Close closes the log when all is written. It is called once.
func (l *Log) Close() error {
	if l.faulted.Load() {
		if l.options.Abandoned != nil {
			l.options.Abandoned()
		}
		return errors.Join(Classify("close", errFaulted), l.heads.close())
	}
	var err error
	if l.db != nil {
		err = l.db.Close()
	}
	return Classify("close", errors.Join(err, l.heads.close()))
}

// begin starts a transaction that writes. It does not read.
func (l *Log) begin() *badger.Txn { return l.db.NewTransactionAt(math.MaxUint64, true) }

// commit writes a transaction, which survives a loss of power when commit returns nil. After an error its outcome is
// unknown and nothing more is written. The kernel may still show to readers what it failed to write to the disk, so
// the next opening writes it again; see recover.go.
func (l *Log) commit(txn *badger.Txn) error { return l.commitAt(txn, 0) }

// commitAt writes a transaction under a version that there was before, or under the next one: 0.
func (l *Log) commitAt(txn *badger.Txn, version uint64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.failed == nil && l.faulted.Load() {
		l.failed = errFaulted
	}
	if l.failed != nil {
		return l.failed
	}
	if version == 0 {
		l.version++
		version = l.version
	}
	mark := l.watch.mark()
	err := txn.CommitAt(version, nil)
	if l.committed != nil {
		l.committed()
	}
	if err == nil {
		err = l.watch.since(mark)
	}
	if err == nil {
		err = l.settle()
	}
	if err != nil {
		return l.fail(err, l.endOf(math.MaxUint32))
	}
	if !l.collecting {
		l.db.SetDiscardTs(l.version) // readers want the newest only, so nothing older need be kept
	}
	return nil
}

// fail ends all writing. It is unknown what the disk has of the files that ended after this version. The caller holds
// writing.
func (l *Log) fail(err error, after uint64) error {
	l.failed = errors.Join(err, redo{after: after, all: true}.note(l.badger()))
	return l.failed
}

// write writes entries in one transaction. If they are more than Badger takes the error is
// badger.ErrTxnTooBig, and nothing is written.
func (l *Log) write(entries []*badger.Entry) error {
	txn := l.begin()
	defer txn.Discard()
	size := 0
	for _, e := range entries {
		if size += len(e.Value); size > l.maxTxnBytes() {
			return badger.ErrTxnTooBig
		}
		if err := txn.SetEntry(e); err != nil {
			return err
		}
	}
	if err := txn.SetEntry(l.groupEntry(len(entries))); err != nil {
		return err
	}
	return l.commit(txn)
}

// badger is the directory of Badger's files.
func (l *Log) badger() string { return filepath.Join(l.dir, badgerDir) }

// Lineage is the journal's lineage.
func (l *Log) Lineage() uint64 { return l.lineage }

// Quarantined names the damaged files that were put aside; see journal.Storage.
func (l *Log) Quarantined() []string { return l.quarantined }

// Levels describes the levels of Badger's tables.
func (l *Log) Levels() []badger.LevelInfo { return l.db.Levels() }

// Bytes is what the log takes on disk, now.
func (l *Log) Bytes() (bytes int64) {
	for _, level := range l.db.Levels() {
		bytes += level.Size
	}
	files, err := listValues(l.badger())
	if err != nil {
		return bytes
	}
	for _, f := range files {
		bytes += f.disk
	}
	return bytes
}

// Written is how many bytes Badger has written. It counts them for a whole process only, so with several logs in
// one each has the sum of all.
func (l *Log) Written() (bytes uint64) {
	if n, ok := expvar.Get("badger_write_bytes_user").(*expvar.Int); ok {
		bytes += 2 * uint64(n.Value()) // once to the log of the table in memory, once with that table
	}
	if n, ok := expvar.Get("badger_write_bytes_vlog").(*expvar.Int); ok {
		bytes += uint64(n.Value())
	}
	if m, ok := expvar.Get("badger_write_bytes_compaction").(*expvar.Map); ok {
		m.Do(func(level expvar.KeyValue) {
			if n, ok := level.Value.(*expvar.Int); ok {
				bytes += uint64(n.Value())
			}
		})
	}
	return bytes
}

const (
	// valueFileBytes is the size from which on Badger begins a file; see fileBytesFor. It maps twice as much.
	valueFileBytes = 64 << 20
	// maxFileBytes is the maximum size, plus one transaction. Opening after a kill reads as much.
	maxFileBytes = 512 << 20
	// maxFilesOfASize: Badger keeps all files open and mapped, so larger files are made when there are so many.
	maxFilesOfASize = 512
)

// maxOfASize returns how many files of one size there should be for a journal that may have so many files open; 0: any
// number.
func maxOfASize(maxFiles int) int64 {
	if maxFiles <= 0 {
		return maxFilesOfASize
	}
	return max(1, min(maxFilesOfASize, int64(maxFiles)/8))
}

// fileBytesFor returns the size of the next files: min, doubled until files of that size would not be too many.
func fileBytesFor(dir string, minBytes, maxFiles int64) int64 {
	files, _ := listValues(dir) // an error comes again when they are opened
	total := int64(0)
	for _, f := range files {
		total += f.size
	}
	size := minBytes
	for size < maxFileBytes && total/size >= maxFiles {
		size *= 2
	}
	return size
}

// tableBytesFor is the size of a table in memory: what is in the logs of those that a crash left has to fit into
// one again.
func tableBytesFor(dir string, size int64) int64 {
	logs, _ := filepath.Glob(filepath.Join(dir, "*"+memSuffix))
	for _, log := range logs {
		info, err := os.Stat(log)
		switch {
		case err != nil:
		case info.Size()%(1<<20) == 0: // as it was made, twice as large as its table
			size = max(size, info.Size()/2)
		default: // cut to its content; in memory, an entry takes up to half as much again
			size = max(size, info.Size()*3/2)
		}
	}
	return size
}
