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

// Storage is an open storage.
type Storage struct {
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

var (
	_ journal.Engine     = (*Storage)(nil)
	_ journal.Doubter    = (*Storage)(nil)
	_ journal.Rememberer = (*Storage)(nil)
	_ journal.Compactor  = (*Storage)(nil)
	_ journal.Counter    = (*Storage)(nil)
	_ journal.Spacer     = (*Storage)(nil)
)

// step is a step of opening. Some are left out if the journal is opened for reading only, as they write.
type step struct {
	name   string
	writes bool
	do     func(*Storage) error
}

// steps are those of opening, in order. The first that fails ends it.
var steps = []step{
	{"make the directory", true, (*Storage).makeDir},
	{"lock the directory", false, (*Storage).takeLock},
	// Opening writes what a crash left in tables in memory of the log, and as much of the index as is made again.
	{"look for room", true, func(s *Storage) error { return checkSpace(s.dir, s.opening()) }},
	{"take memory", false, (*Storage).takeMemory},
	{"count the opening", true, (*Storage).begin},
	{"open the log", false, (*Storage).openLog},
	{"open the index", false, (*Storage).openIndex},
}

// Open opens or makes the journal in dir. If another process has it
// open, the error's kind is journal.KindLocked.
func Open(dir string, o Options) (*Storage, error) {
	if o.ReserveBytes == 0 {
		o.ReserveBytes = defaultReserve
	}
	s := &Storage{dir: dir, options: o, reserve: uint64(max(o.ReserveBytes, 0))}
	for _, step := range steps {
		if step.writes && o.ReadOnly {
			continue
		}
		if err := step.do(s); err != nil {
			return nil, openError(dir, step.name, errors.Join(err, s.Close()))
		}
	}
	return s, nil
}

// opening is the room that opening needs.
func (s *Storage) opening() uint64 { return min(s.reserve/2, openingBytes) }

func (s *Storage) takeLock() (err error) {
	s.lock, err = lockDir(s.dir, s.options.ReadOnly)
	return err
}

func (s *Storage) makeDir() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	closeToOthers(s.dir, s.options.Logger)
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

func (s *Storage) openLog() (err error) {
	s.log, err = badgerlog.Open(s.dir, s.logOptions())
	return err
}

func (s *Storage) logOptions() badgerlog.Options {
	return badgerlog.Options{
		Logger:         s.options.Logger,
		ReadOnly:       s.options.ReadOnly,
		ValueFileBytes: s.options.ValueFileBytes,
		MaxFiles:       s.options.MaxFiles,
		Deep:           s.deep,
		LineageCopy:    s.indexDir(),
		// The space of deleted events must be reclaimed while the disk is full, so a part of the reserve is for that.
		Room:      func(bytes int64) error { return checkSpace(s.dir, s.opening()/2+uint64(bytes)) },
		Abandoned: s.memory.loseLog,
	}
}

// Close implements journal.Engine.
func (s *Storage) Close() error {
	s.closeOnce.Do(func() {
		var err error
		if s.index != nil {
			err = s.index.Close()
		}
		if s.log != nil {
			err = errors.Join(err, s.log.Close())
		}
		s.memory.end()
		if s.begun && err == nil {
			err = s.end()
		}
		if s.lock != nil {
			err = errors.Join(err, s.lock.Close())
		}
		s.closeErr = badgerlog.Classify("close", err)
	})
	return s.closeErr
}

// Log implements journal.Engine.
func (s *Storage) Log() journal.LogStore { return s.log }

// Index implements journal.Engine.
func (s *Storage) Index() journal.IndexStore { return s.index }

// Doubts implements journal.Doubter.
func (s *Storage) Doubts() []string { return s.log.Doubts() }

// Heads implements journal.Rememberer.
func (s *Storage) Heads() map[journal.LogName]journal.Head { return s.log.Heads() }

// ForgetHeads implements journal.Rememberer.
func (s *Storage) ForgetHeads() error { return s.log.ForgetHeads() }

// Compact implements journal.Compactor.
func (s *Storage) Compact(ctx context.Context) error {
	return errors.Join(s.log.Compact(ctx), s.index.Compact(ctx))
}

// Count implements journal.Counter.
func (s *Storage) Count() journal.EngineStats {
	index := s.index.Stats()
	return journal.EngineStats{
		LogBytes: s.log.Bytes(), IndexBytes: index.Bytes, Written: s.log.Written() + index.Written,
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

func (s *Storage) indexDir() string { return filepath.Join(s.dir, "index") }
