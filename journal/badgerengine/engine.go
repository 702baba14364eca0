// Package badgerengine keeps a journal in Badger. It is the only package that
// knows Badger.
//
// There are two databases under one directory, as Badger's SyncWrites holds for a
// whole database: log/ syncs every write, index/ none, as the index can be made
// from the log again. The directory is locked for one process. Values never go to
// Badger's value logs (see value.go), so there is no garbage of theirs to collect.
package badgerengine

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Options are the choices of an engine. A zero field means its default.
type Options struct {
	// Logger gets Badger's own messages. Default: none.
	Logger *slog.Logger
	// ReadOnly opens the journal for reading only. Default: false.
	ReadOnly bool
	// MemTableBytes is the size of a table in memory of the log; one of the index has twice
	// as much. Default 32 MiB, least 8 MiB.
	MemTableBytes int64
	// BlockCacheBytes is the size of the cache of blocks of the index. Default 64 MiB.
	BlockCacheBytes int64
	// ReserveBytes is the room on the disk below which the engine says that it is
	// full; see space.go. Negative is none. Default 32 times MemTableBytes, which is what both
	// databases write when they merge level 0 into the first level at the same time, each
	// as soon as that is due, if nothing shrinks: 5 tables and 8 MemTableBytes each.
	ReserveBytes int64
}

// Engine is an open engine.
type Engine struct {
	dir        string
	reserve    uint64
	log, index *database
	doubts     []string   // files of the log that stand aside
	lock       *os.File   // held while open
	begun      bool       // and counted as such; see deaths.go
	compacting sync.Mutex // held by Compact
	closeOnce  sync.Once
	closeErr   error
}

var _ journal.Engine = (*Engine)(nil)

// Open opens or makes the journal's databases in dir. If another process has them
// open, the error's kind is journal.KindLocked.
func Open(dir string, o Options) (*Engine, error) {
	if o.MemTableBytes <= 0 {
		o.MemTableBytes = 32 << 20
	}
	o.MemTableBytes = max(o.MemTableBytes, 8<<20)
	if o.BlockCacheBytes <= 0 {
		o.BlockCacheBytes = 64 << 20
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 32 * o.MemTableBytes
	}
	if !o.ReadOnly {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, classify("open", err)
		}
	}
	lock, err := lockDir(dir, o.ReadOnly)
	if err != nil {
		return nil, openError(dir, err)
	}
	e := &Engine{dir: dir, reserve: uint64(max(o.ReserveBytes, 0)), lock: lock}
	if !o.ReadOnly {
		// Opening writes what a crash left in tables in memory: up to four of each database.
		err = errors.Join(removeUnborn(dir), checkSpace(dir, min(e.reserve/2, uint64(12*o.MemTableBytes))))
	}
	deep := false
	if err == nil && !o.ReadOnly {
		deep, err = e.begin()
	}
	if err == nil {
		e.log, err = openLog(logOptions(dir, o), deep)
	}
	if err == nil {
		e.index, err = openIndex(indexOptions(dir, o), e.log.lineage, deep, o.Logger)
	}
	if err == nil {
		e.doubts, err = doubts(filepath.Join(dir, "log"))
	}
	if err != nil {
		return nil, openError(dir, errors.Join(err, e.Close()))
	}
	return e, nil
}

// removeUnborn removes the empty files that Badger leaves when it is killed after
// it has made a log file and before it has given it a size. Nothing was ever in
// them, and Badger refuses to open a directory that has one. The caller has the lock.
func removeUnborn(dir string) error {
	for _, database := range []string{"log", "index"} {
		files, err := os.ReadDir(filepath.Join(dir, database))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, f := range files {
			if ext := filepath.Ext(f.Name()); ext != ".mem" && ext != ".vlog" {
				continue
			}
			info, err := f.Info()
			if err == nil && info.Mode().IsRegular() && info.Size() == 0 {
				err = os.Remove(filepath.Join(dir, database, f.Name()))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func common(dir string, o Options) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(logger{o.Logger}).
		WithReadOnly(o.ReadOnly).
		WithCompression(options.None).
		WithMemTableSize(o.MemTableBytes).
		WithNumMemtables(3).
		WithNumCompactors(2).
		WithBaseLevelSize(8 * o.MemTableBytes). // a larger one, and the reserve would not be enough for merging it
		WithValueThreshold(1 << 20).            // the greatest there is: nothing goes to the value log
		WithValueLogFileSize(16 << 20).         // which is mapped, and synced, all the same
		WithMetricsEnabled(true).               // for Count
		WithDetectConflicts(false)              // there is one writer
}

func logOptions(dir string, o Options) badger.Options {
	return common(filepath.Join(dir, "log"), o).
		WithSyncWrites(true).
		// Keys come in order, so merging is nothing but copying, once a level: two levels
		// up to 4 GiB.
		WithLevelSizeMultiplier(16).
		WithBlockCacheSize(0)
}

func indexOptions(dir string, o Options) badger.Options {
	return common(filepath.Join(dir, "index"), o).
		WithSyncWrites(false).
		// The index has each event a second time, beside others of its entity: it shrinks
		// to a third, and moving a third costs less than compressing it does.
		WithCompression(options.Snappy).
		// Keys come in no order, so the first level is merged as a whole again and again: the
		// more comes into it at once, the less often.
		WithMemTableSize(2 * o.MemTableBytes).
		WithBlockCacheSize(o.BlockCacheBytes)
}

// Close implements journal.Engine.
func (e *Engine) Close() error {
	e.closeOnce.Do(func() {
		var err error
		if e.index != nil {
			err = e.index.Close()
		}
		if e.log != nil {
			err = errors.Join(err, e.log.Close())
		}
		if e.begun && err == nil {
			err = e.end()
		}
		e.closeErr = classify("close", errors.Join(err, e.lock.Close()))
	})
	return e.closeErr
}

// Log implements journal.Engine.
func (e *Engine) Log() journal.LogStore { return guardedLog{logStore{e.log}} }

// Index implements journal.Engine.
func (e *Engine) Index() journal.IndexStore { return guardedIndex{indexStore{e.index}} }

// Count implements journal.Counter. What Badger wrote it counts for a whole process
// only, so with several engines in one each has the sum of all.
func (e *Engine) Count() journal.EngineStats {
	size := func(db *database) (n int64) {
		for _, l := range db.Levels() {
			n += l.Size
		}
		return n
	}
	s := journal.EngineStats{LogBytes: size(e.log), IndexBytes: size(e.index)}
	if n, ok := expvar.Get("badger_write_bytes_user").(*expvar.Int); ok {
		s.Written = 2 * uint64(n.Value()) // once to the log of the table in memory, once with that table
	}
	if m, ok := expvar.Get("badger_write_bytes_compaction").(*expvar.Map); ok {
		m.Do(func(level expvar.KeyValue) {
			if n, ok := level.Value.(*expvar.Int); ok {
				s.Written += uint64(n.Value())
			}
		})
	}
	return s
}

var _ journal.Counter = (*Engine)(nil)

var errLocked = errors.New("the directory is locked")

// openError tells the lock of another process from all else. Badger says it in
// text only.
func openError(dir string, err error) error {
	if errors.Is(err, errLocked) || strings.Contains(err.Error(), "Cannot acquire directory lock") {
		return &journal.Error{Op: "open", Kind: journal.KindLocked,
			Detail: fmt.Sprintf("another process has the journal in %s open", dir), Err: err}
	}
	return classify("open", err)
}

// classify gives Badger's errors their kind, once, here. Badger wraps with %+v in
// places, so text is looked at too.
func classify(op string, err error) error {
	if err == nil {
		return nil
	}
	var ours *journal.Error
	if errors.As(err, &ours) {
		return err
	}
	kind := journal.KindInternal
	text := err.Error()
	has := func(target syscall.Errno) bool {
		return errors.Is(err, target) || strings.Contains(text, target.Error())
	}
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		kind = journal.KindCanceled
	case has(syscall.ENOSPC) || has(syscall.EDQUOT) || has(syscall.EFBIG):
		kind = journal.KindFull
	case errors.Is(err, badger.ErrDBClosed) || errors.Is(err, badger.ErrBlockedWrites):
		kind = journal.KindClosed
	case errors.Is(err, badger.ErrKeyNotFound): // of a key that was just seen
		kind = journal.KindCorrupt
	case errors.Is(err, errDamaged) || errors.Is(err, badger.ErrTruncateNeeded) || strings.Contains(text, "checksum mismatch"):
		kind = journal.KindCorrupt
	}
	return &journal.Error{Op: op, Kind: kind, Err: err}
}

// logger hands Badger's messages on, its information as debugging.
type logger struct{ to *slog.Logger }

func (l logger) log(level slog.Level, format string, args []any) {
	if l.to != nil {
		l.to.Log(context.Background(), level, "badger: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}
func (l logger) Errorf(f string, a ...any)   { l.log(slog.LevelError, f, a) }
func (l logger) Warningf(f string, a ...any) { l.log(slog.LevelWarn, f, a) }
func (l logger) Infof(f string, a ...any)    { l.log(slog.LevelDebug, f, a) }
func (l logger) Debugf(f string, a ...any)   { l.log(slog.LevelDebug, f, a) }
