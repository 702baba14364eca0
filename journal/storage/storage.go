// Package storage keeps a journal in a directory: its log in package badgerlog, its index in a store beside it.
//
// The directory has log/, of which every write is synced, index/, which can be rebuilt from the log, and some small
// files. It is locked: one process can have it open.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/badgerlog"
	"github.com/bulkhead-wasm/bulkhead/journal/pebbleindex"
)

// Options are the choices of a storage. A zero field means its default.
type Options struct {
	// Logger gets the messages of log and index. Default: none.
	Logger *slog.Logger
	// ReadOnly opens the journal for reading only. Default: false.
	ReadOnly bool
	// ReserveBytes is the free disk space below which the storage says that it is full; see space.go. Negative means
	// none. Default 1 GiB.
	ReserveBytes int64
	// IndexCacheBytes bounds the memory of the index: blocks that were read recently, and entries that are not written
	// yet. Less than [MinIndexCacheBytes] is taken for that. The default is that of package pebbleindex.
	IndexCacheBytes int64
	// Memory is asked for the memory of log and index before they are opened, and has it back when Close returns, but
	// not that of a store that could not be closed. Its error ends the opening. Default: nobody is asked.
	Memory Memory
	// ValueFileBytes is the size from which on the log begins another file of batches. Default 64 MiB.
	ValueFileBytes int64
	// MaxFiles bounds the descriptors that the storage may use; see files.go. When few are
	// left it says that it is full. Default: no bound.
	MaxFiles int
}

// MinIndexCacheBytes is the minimum of Options.IndexCacheBytes.
const MinIndexCacheBytes = pebbleindex.MinMemory

const (
	// defaultReserve is for tables of the log, for a file of values that is collected, for what the index has in
	// memory, and the same again.
	defaultReserve = 1 << 30
	// openingBytes is for what opening writes: tables of the log that were in memory, and entries of the index that are
	// missing.
	openingBytes = 256 << 20
)

// directory is the open directory of a journal.
type directory struct {
	dir     string
	options Options
	lock    *os.File // held while open
	reserve uint64
	begun   bool // and counted as such; see deaths.go
	deep    bool // everything is looked at
	memory  lease
	log     *badgerlog.Log
	index   index

	closeOnce sync.Once
	closeErr  error
}

// step is a step of opening. Some are left out if the journal is opened for reading only, as they write.
type step struct {
	name   string
	writes bool
	do     func(*directory) error
}

// steps are those of opening, in order. The first that fails ends it.
var steps = []step{
	{"make the directory", true, (*directory).makeDir},
	{"lock the directory", false, (*directory).takeLock},
	// Opening writes what a crash left in tables in memory of the log, and as much of the index as is made again.
	{"look for room", true, func(d *directory) error { return checkSpace(d.dir, d.opening()) }},
	{"take memory", false, (*directory).takeMemory},
	{"count the opening", true, (*directory).begin},
	{"open the log", false, (*directory).openLog},
	{"open the index", false, (*directory).openIndex},
}

// Open opens or makes the journal in dir. If another process has it
// open, the error's kind is journal.KindLocked.
func Open(dir string, o Options) (journal.Storage, error) {
	d, err := open(dir, o)
	if err != nil {
		return journal.Storage{}, err
	}
	return d.storage(), nil
}

// storage is the directory as a journal uses it.
func (d *directory) storage() journal.Storage {
	return journal.Storage{
		Log: d.log, Index: d.index, Close: d.close,
		Heads: d.log, Quarantined: d.log.Quarantined, Space: d.space, Compact: d.compact, Count: d.count,
	}
}

func open(dir string, o Options) (*directory, error) {
	if o.ReserveBytes == 0 {
		o.ReserveBytes = defaultReserve
	}
	d := &directory{dir: dir, options: o, reserve: uint64(max(o.ReserveBytes, 0))}
	for _, step := range steps {
		if step.writes && o.ReadOnly {
			continue
		}
		if err := step.do(d); err != nil {
			return nil, openError(dir, step.name, errors.Join(err, d.close()))
		}
	}
	return d, nil
}

// opening is the room that opening needs.
func (d *directory) opening() uint64 { return min(d.reserve/2, openingBytes) }

func (d *directory) takeLock() (err error) {
	d.lock, err = lockDir(d.dir, d.options.ReadOnly)
	return err
}

func (d *directory) makeDir() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	closeToOthers(d.dir, d.options.Logger)
	return nil
}

// closeToOthers makes sure that only its owner can enter the journal's directory, whatever mode it was created or
// copied with. Badger makes its files readable for everybody, so the directory protects them.
func closeToOthers(dir string, logger *slog.Logger) {
	info, err := os.Stat(dir)
	if err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&0o077 == 0 { // there these bits mean nothing
		return
	}
	if err = os.Chmod(dir, 0o700); logger == nil {
		return
	}
	logger = logger.With("dir", dir, "mode", info.Mode().Perm().String())
	if err != nil {
		logger.Warn("others may enter the journal's directory, and that could not be changed", "error", err)
	} else {
		logger.Warn("others could enter the journal's directory; now only its owner can")
	}
}

func (d *directory) openLog() (err error) {
	d.log, err = badgerlog.Open(d.dir, d.logOptions())
	return err
}

func (d *directory) logOptions() badgerlog.Options {
	return badgerlog.Options{
		Logger:         d.options.Logger,
		ReadOnly:       d.options.ReadOnly,
		ValueFileBytes: d.options.ValueFileBytes,
		MaxFiles:       d.options.MaxFiles,
		Deep:           d.deep,
		LineageCopy:    d.indexDir(),
		// The space of deleted events must be reclaimed while the disk is full, so a part of the reserve is for that.
		Room:      func(bytes int64) error { return checkSpace(d.dir, d.opening()/2+uint64(bytes)) },
		Abandoned: d.memory.loseLog,
	}
}

// close releases everything. Later calls do nothing and return the same error.
func (d *directory) close() error {
	d.closeOnce.Do(func() {
		var err error
		if d.index != nil {
			err = d.index.Close()
		}
		if d.log != nil {
			err = errors.Join(err, d.log.Close())
		}
		d.memory.end()
		if d.begun && err == nil {
			err = d.end()
		}
		if d.lock != nil {
			err = errors.Join(err, d.lock.Close())
		}
		d.closeErr = badgerlog.Classify("close", err)
	})
	return d.closeErr
}

func (d *directory) compact(ctx context.Context) error {
	return errors.Join(d.log.Compact(ctx), d.index.Compact(ctx))
}

func (d *directory) count() journal.StorageStats {
	index := d.index.Stats()
	return journal.StorageStats{
		LogBytes: d.log.Bytes(), IndexBytes: index.Bytes, Written: d.log.Written() + index.Written,
		IndexCacheBytes: index.Cached, IndexCacheHits: index.Hits, IndexCacheMisses: index.Misses,
		Answers: index.Counted, IndexAbandoned: index.Abandoned,
	}
}

var errLocked = errors.New("the directory is locked")

func openError(dir, step string, err error) error {
	if errors.Is(err, errLocked) {
		return &journal.Error{Op: "open", Kind: journal.KindLocked,
			Detail: fmt.Sprintf("another process has the journal in %s open", dir), Err: err}
	}
	var ours *journal.Error
	if errors.As(err, &ours) {
		return err
	}
	return badgerlog.Classify("open", fmt.Errorf("%s: %w", step, err))
}

func (d *directory) indexDir() string { return filepath.Join(d.dir, "index") }
