// Package badgerengine keeps a journal's log in Badger, and its index beside it in a store of
// package lsm. It is the only package that knows Badger.
//
// Both are under one directory: log/, of which every write is synced, and index/, which can be made
// from the log again. The directory is locked for one process.
package badgerengine

import (
	"cmp"
	"context"
	"errors"
	"expvar"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/lsm"
)

// Options are the choices of an engine. A zero field means its default.
type Options struct {
	// Logger gets Badger's own messages. Default: none.
	Logger *slog.Logger
	// ReadOnly opens the journal for reading only. Default: false.
	ReadOnly bool
	// MemTableBytes is what the index gathers in memory before it writes it, and the size of a table in
	// memory of the log where values stand in tables; see values.go. Default 32 MiB, least 8 MiB.
	MemTableBytes int64
	// ReserveBytes is the room on the disk below which the engine says that it is
	// full; see space.go. Negative is none. Default 32 times MemTableBytes: 13 for the log's
	// database, which writes as much when it merges level 0 into the first level as soon as that is
	// due, 2 for what the index has in memory, and as much again.
	ReserveBytes int64
	// IndexCacheBytes bounds the memory for blocks of the index that were looked into. Negative is none. Default
	// 32 MiB.
	IndexCacheBytes int64

	// MaxFiles bounds the descriptors that the engine may use; see files.go. When few are
	// left it says that it is full. Default: no bound.
	MaxFiles int

	// For tests:
	valuesInTables bool  // as where files can have no holes
	valueFileBytes int64 // see values.go; at least 4 MiB
	pointersTable  int64 // likewise
}

// Engine is an open engine.
type Engine struct {
	dir        string
	reserve    uint64
	maxFiles   int
	log        *database
	index      *lsm.Store
	heads      *heads
	doubts     []string   // files of the log that stand aside
	lock       *os.File   // held while open
	begun      bool       // and counted as such; see deaths.go
	compacting sync.Mutex // held by Compact; guards lowest

	lowest map[uint32]map[journal.LogName]uint64 // what files of values have of each log, where known; see reclaim.go

	closeOnce sync.Once
	closeErr  error
}

var _ journal.Engine = (*Engine)(nil)

// Open opens or makes the journal's databases in dir. If another process has them
// open, the error's kind is journal.KindLocked.
func Open(dir string, o Options) (*Engine, error) {
	if o.MemTableBytes <= 0 {
		o.MemTableBytes = 32 << 20
	}
	o.MemTableBytes = max(o.MemTableBytes, 8<<20)
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 32 * o.MemTableBytes
	}
	if !o.ReadOnly {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, classify("open", err)
		}
		closeToOthers(dir, o.Logger)
	}
	lock, err := lockDir(dir, o.ReadOnly)
	if err != nil {
		return nil, openError(dir, err)
	}
	e := &Engine{dir: dir, reserve: uint64(max(o.ReserveBytes, 0)), maxFiles: o.MaxFiles, lock: lock}
	if !o.ReadOnly {
		// Opening writes what a crash left in tables in memory: up to four of the log, and as much
		// of the index as is made again.
		err = errors.Join(removeUnborn(filepath.Join(dir, "log")), checkSpace(dir, min(e.reserve/2, uint64(8*o.MemTableBytes))))
	}
	deep := false
	if err == nil && !o.ReadOnly {
		deep, err = e.begin()
	}
	var (
		marked mark
		files  []valueFile
	)
	if err == nil {
		e.log, marked, files, err = openLog(logOptions(dir, o), deep)
	}
	if err == nil {
		e.heads, err = openHeads(dir, e.log.lineage, o.ReadOnly, o.Logger)
	}
	if err == nil {
		e.doubts, err = doubts(filepath.Join(dir, "log"))
	}
	if err == nil && !o.ReadOnly {
		err = e.log.recover(marked, files, len(e.doubts) > 0, e.heads.last)
	}
	if err == nil {
		e.index, err = openIndex(filepath.Join(dir, "index"), e.indexOptions(o), e.log.lineage, deep)
	}
	if err != nil {
		return nil, openError(dir, errors.Join(err, e.Close()))
	}
	return e, nil
}

// closeToOthers sees to it that only its owner can enter the journal's directory, also if it was copied there by
// something that gave it another mode. Badger makes its files readable for all, so it is the directory that protects them.
func closeToOthers(dir string, logger *slog.Logger) {
	info, err := os.Stat(dir)
	if err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&0o077 == 0 { // there these bits mean nothing
		return
	}
	if err = os.Chmod(dir, 0o700); logger == nil {
		return
	}
	if err != nil {
		logger.Warn("others may enter the journal's directory, and that could not be changed", "dir", dir, "mode", info.Mode().Perm().String(), "error", err)
	} else {
		logger.Warn("others could enter the journal's directory; now only its owner can", "dir", dir, "mode", info.Mode().Perm().String())
	}
}

// removeUnborn removes the empty files that Badger leaves when it is killed after
// it has made a log file and before it has given it a size. Nothing was ever in
// them, and Badger refuses to open a directory that has one. The caller has the lock.
func removeUnborn(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); ext != ".mem" && ext != ".vlog" {
			continue
		}
		info, err := f.Info()
		if err == nil && info.Mode().IsRegular() && info.Size() == 0 {
			err = os.Remove(filepath.Join(dir, f.Name()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func logOptions(dir string, o Options) badger.Options {
	log := badger.DefaultOptions(filepath.Join(dir, "log")).
		WithLogger(logger{o.Logger}).
		WithReadOnly(o.ReadOnly).
		WithSyncWrites(true).
		WithCompression(options.None).
		WithMemTableSize(o.MemTableBytes).
		WithNumMemtables(3).
		WithNumCompactors(2).
		WithBaseLevelSize(8 * o.MemTableBytes). // a larger one, and the reserve would not be enough for merging it
		// Keys come in order, so merging is nothing but copying, once a level: two levels
		// up to 4 GiB.
		WithLevelSizeMultiplier(16).
		WithBlockCacheSize(0).
		WithValueThreshold(1 << 20).    // the greatest there is: nothing goes to the value log
		WithValueLogFileSize(16 << 20). // which is mapped, and synced, all the same
		WithVerifyValueChecksum(true).  // before Badger believes what the entry says of its length
		WithMetricsEnabled(true).       // for Count
		WithDetectConflicts(false)      // there is one writer
	if !o.ReadOnly && !o.valuesInTables && canPunch(dir) {
		log = apart(log, cmp.Or(o.valueFileBytes, valueFileBytes), valueFilesFor(o.MaxFiles), cmp.Or(o.pointersTable, pointersTable))
	}
	return log
}

func (e *Engine) indexOptions(o Options) lsm.Options {
	return lsm.Options{
		ReadOnly:    o.ReadOnly,
		MemoryBytes: int(o.MemTableBytes),
		CacheBytes:  o.IndexCacheBytes,
		Group:       journal.IndexGroup,
		// The reserve is the log's. A merge that would eat into it is not worth it.
		Room:   func(bytes int64) error { return checkSpace(e.dir, e.reserve+uint64(bytes)) },
		Logger: o.Logger,
	}
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
		err = errors.Join(err, e.heads.close())
		if e.begun && err == nil {
			err = e.end()
		}
		e.closeErr = classify("close", errors.Join(err, e.lock.Close()))
	})
	return e.closeErr
}

// Log implements journal.Engine.
func (e *Engine) Log() journal.LogStore { return guardedLog{logStore{e.log, e.heads}} }

// Index implements journal.Engine.
func (e *Engine) Index() journal.IndexStore { return e.index }

// Count implements journal.Counter. What Badger wrote it counts for a whole process
// only, so with several engines in one each has the sum of all.
func (e *Engine) Count() journal.EngineStats {
	index := e.index.Stats()
	s := journal.EngineStats{IndexBytes: index.Bytes, IndexCacheBytes: index.Cached, IndexCacheHits: index.Hits, IndexCacheMisses: index.Misses, Written: index.Written}
	for _, l := range e.log.Levels() {
		s.LogBytes += l.Size
	}
	if files, err := listValues(e.log.Opts().Dir); err == nil {
		for _, f := range files {
			s.LogBytes += f.disk
		}
	}
	if n, ok := expvar.Get("badger_write_bytes_user").(*expvar.Int); ok {
		s.Written += 2 * uint64(n.Value()) // once to the log of the table in memory, once with that table
	}
	if n, ok := expvar.Get("badger_write_bytes_vlog").(*expvar.Int); ok {
		s.Written += uint64(n.Value())
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
