package pebbleindex

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Store is an open index. It implements [journal.IndexStore]; its methods may be called concurrently.
//
// Its directory has a directory with a number for its database. Clear begins the next one and removes the one before.
type Store struct {
	dir      string
	opt      Options
	cache    *pebble.Cache // of all of its databases, so that together they take no more than one
	counts   counts
	closings sync.WaitGroup // of databases that were cleared

	writing sync.Mutex // held by who writes; guards next
	next    uint64     // number of the next database

	mu     sync.Mutex // guards what follows
	now    *instance
	closed bool
}

var _ journal.IndexStore = (*Store)(nil)

// Open opens or makes a store in dir. If its files are not what was written, the error's kind is
// journal.KindCorrupt. One process may have it open at a time; the caller sees to that.
func Open(dir string, o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{dir: dir, opt: o, cache: pebble.NewCache(o.MemoryBytes),
		counts: counts{of: o.Counted, n: map[uint32]int64{}}}
	if err := s.open(); err != nil {
		s.cache.Unref()
		return nil, openError(dir, err)
	}
	return s, nil
}

func (s *Store) open() error {
	if !s.opt.ReadOnly {
		if err := s.opt.fs.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		if err := s.dropAside(); err != nil { // it is of no use to the store
			s.opt.Logger.Warn("the files of an index that was set aside long ago cannot be removed", "error", err)
		}
	}
	numbers, err := s.databases()
	if err != nil {
		return err
	}
	if len(numbers) == 0 && s.opt.ReadOnly { // as if there were an empty one
		s.opt.fs, s.opt.ReadOnly = vfs.NewMem(), false
		defer func() { s.opt.ReadOnly = true }()
	}
	if len(numbers) == 0 {
		numbers = []uint64{1}
	}
	last := numbers[len(numbers)-1]
	s.next = last + 1
	if err := s.undamaged(last); err != nil {
		return err
	}
	if s.now, err = openInstance(s.path(last), &s.opt, s.cache); err != nil {
		return err
	}
	if err = s.counts.load(s.now.db, s.now.hasPrefix); err != nil {
		s.now.retire()
		<-s.now.closed
		return err
	}
	for _, n := range numbers[:len(numbers)-1] {
		if s.opt.ReadOnly {
			break
		}
		if err := s.opt.fs.RemoveAll(s.path(n)); err != nil { // the next Open tries again
			s.opt.Logger.Warn("the files of an index that was cleared cannot be removed", "error", err)
		}
	}
	return s.syncDirs()
}

func (s *Store) path(number uint64) string {
	return s.opt.fs.PathJoin(s.dir, fmt.Sprintf("%08d", number))
}

// databases are the numbers of those that there are, in order.
func (s *Store) databases() (numbers []uint64, err error) {
	names, err := s.opt.fs.List(s.dir)
	if err != nil {
		if s.opt.ReadOnly && errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	for _, name := range names {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil && n > 0 && s.opt.fs.PathBase(s.path(n)) == name {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// undamaged says whether damage was found in a database before, or files of it are missing that Pebble would not miss.
func (s *Store) undamaged(number uint64) error {
	dir := s.path(number)
	names, err := s.opt.fs.List(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	tables, manifest := false, false
	for _, name := range names {
		switch {
		case name == damageFile:
			return damaged("open", dir, errors.New("damage was found when it was read"))
		case strings.HasSuffix(name, ".sst"):
			tables = true
		case strings.HasPrefix(name, "marker.manifest."):
			manifest = true
		}
	}
	if tables && !manifest {
		return damaged("open", dir, errors.New("there are tables, and nothing that says which of them count"))
	}
	return nil
}

// syncDirs makes the names in the store's directory, and its own, survive a loss of power.
func (s *Store) syncDirs() error {
	if s.opt.ReadOnly {
		return nil
	}
	for _, dir := range []string{s.dir, s.opt.fs.PathDir(s.dir)} {
		d, err := s.opt.fs.OpenDir(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// use returns the present database, which stays open until it is left.
func (s *Store) use() (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	return s.now, s.now.use()
}

// writable returns the present database for who writes. It may have failed.
func (s *Store) writable() (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, errClosed
	case s.opt.ReadOnly:
		return nil, errReadOnly
	}
	return s.now, nil
}

// Close writes what is in memory, waits for all that goes on, and closes the files. If the store has failed, the error
// says why.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	in, was := s.now, s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	var err error
	if !s.opt.ReadOnly {
		err = in.do((*pebble.DB).Flush)
	}
	in.retire()
	<-in.closed
	s.closings.Wait()
	s.cache.Unref()
	return classify("close", errors.Join(err, in.closeErr))
}

// Stats are sizes of a store, and counts since it was opened.
type Stats struct {
	Bytes     int64  // of tables on disk
	Memory    int64  // of what is not in tables yet
	Cached    int64  // of blocks in memory
	Hits      uint64 // blocks that were found there
	Misses    uint64 // blocks that were read from a file
	Written   uint64 // bytes of tables
	Levels    int    // tables and runs of tables that a read may have to look into
	Counted   int64  // keys; see Counted
	Abandoned int64  // databases of this process that could not be closed, and whose memory is lost
}

// Stats returns the sizes now.
func (s *Store) Stats() (n Stats) {
	n.Abandoned = abandoned.Load()
	in, err := s.use()
	if err != nil {
		return n
	}
	defer in.leave()
	m := in.db.Metrics()
	n.Bytes, n.Memory = int64(m.DiskSpaceUsage()), int64(m.MemTable.Size)
	n.Cached, n.Hits, n.Misses = m.BlockCache.Size, uint64(m.BlockCache.Hits), uint64(m.BlockCache.Misses)
	n.Levels = m.ReadAmp()
	n.Counted = s.counts.sum()
	for _, l := range m.Levels {
		n.Written += l.TableBytesFlushed + l.TableBytesCompacted
	}
	return n
}

// Settle waits until there has been nothing to compact for a while, for benchmarks and tests. What is in memory stays
// there.
func (s *Store) Settle(ctx context.Context) error {
	const every, quietFor = 10 * time.Millisecond, 300 * time.Millisecond // Pebble looks each 100 ms
	look := time.NewTicker(every)
	defer look.Stop()
	for since, seen := time.Now(), int64(-1); time.Since(since) < quietFor; {
		in, err := s.use()
		if err != nil {
			return err
		}
		m := in.db.Metrics()
		in.leave()
		done := m.Compact.Count + m.Flush.Count
		if m.Compact.NumInProgress > 0 || m.Flush.NumInProgress > 0 || done != seen {
			since, seen = time.Now(), done
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return classify("settle", ctx.Err())
		}
	}
	return nil
}
