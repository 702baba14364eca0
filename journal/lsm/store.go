package lsm

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Options are the choices of a store. A zero field means its default.
type Options struct {
	// ReadOnly opens the store for reading only. Default: false.
	ReadOnly bool
	// MemoryBytes is how much gathers in memory before it is written to a table. As much
	// again may wait to be written. Default 64 MiB.
	MemoryBytes int
	// CacheBytes bounds the memory for blocks of tables that were looked into, unpacked. Negative is
	// none. Default 32 MiB.
	CacheBytes int64
	// Group is the length of the beginning of a key that it shares with those it is read together
	// with, or 0 if key has no such beginning. It is asked for keys and for prefixes of scans,
	// and must say the same for all of them. Default: 0.
	Group func(key []byte) int
	// Room says whether a merge may write so many bytes; an error puts it off. Default: it may.
	Room func(bytes int64) error
	// Logger gets what happens in the background. Default: none.
	Logger *slog.Logger

	fault func(op string) error // for tests: an error instead of an operation on files
	quiet time.Duration         // without updates, until what is not due is merged too
	table int64                 // bytes from which on a merge begins another table
}

// Store is an open store. It implements [journal.IndexStore]; its methods may be called
// concurrently.
type Store struct {
	dir   string
	opt   Options
	cache *cache

	writing sync.Mutex // held by who changes what is in memory
	listing sync.Mutex // held by who changes the list of runs; taken before mu
	next    uint64     // number of the next table; guarded by listing

	mu      sync.Mutex // guards the fields below and the users of versions and tables
	now     *version
	err     error         // what ended the store
	closing bool          // no updates any more, and nothing is merged
	changed chan struct{} // closed and replaced when any of these changes, or something was flushed
	updates uint64        // so far
	frozen  uint64        // groups of pieces that were handed to the worker, so far
	flushed uint64        // of these
	idle    bool          // the worker has nothing to do
	compact *compaction   // what Compact waits for
	written uint64        // bytes

	wake    chan struct{} // of capacity 1, for the worker
	stopped chan struct{} // closed when the worker has ended
}

// version is what there is at one time. It is never changed.
type version struct {
	users  int        // guarded by the store's mu
	active []*piece   // oldest first
	frozen [][]*piece // on their way to a table; oldest first, as are the pieces of each
	runs   []*run     // newest first
}

const (
	defaultMemory = 64 << 20
	defaultCache  = 32 << 20
	defaultTable  = 64 << 20
	defaultQuiet  = time.Second
)

var _ journal.IndexStore = (*Store)(nil)

// Open opens or makes a store in dir. If its files are not what was written, the error's kind is
// journal.KindCorrupt. One process may have it open at a time; the caller sees to that.
func Open(dir string, o Options) (*Store, error) {
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = defaultMemory
	}
	if o.Group == nil {
		o.Group = func([]byte) int { return 0 }
	}
	if o.Room == nil {
		o.Room = func(int64) error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.fault == nil {
		o.fault = func(string) error { return nil }
	}
	if o.quiet == 0 {
		o.quiet = defaultQuiet
	}
	if o.table == 0 {
		o.table = defaultTable
	}
	s := &Store{dir: dir, opt: o, cache: newCache(cmp.Or(o.CacheBytes, defaultCache)), now: &version{users: 1}, changed: make(chan struct{}),
		wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	if err := s.open(); err != nil {
		return nil, classify("open", errors.Join(err, s.now.close()))
	}
	if o.ReadOnly {
		close(s.stopped)
	} else {
		go s.work()
	}
	return s, nil
}

func (s *Store) open() error {
	if !s.opt.ReadOnly {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
		if err := dropAside(s.dir); err != nil { // it is of no use to the store
			s.opt.Logger.Warn("the files of an index that was set aside long ago cannot be removed", "error", err)
		}
	}
	if found, err := os.ReadFile(filepath.Join(s.dir, badFile)); err == nil {
		return damaged(s.dir, "damage was found when it was read: %.500s", found)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, begun, err := readRuns(s.dir)
	if err != nil {
		return err
	}
	if !s.opt.ReadOnly {
		if !begun { // from now on tables without a list are damage
			err = writeRuns(s.dir, encodeRuns(l.next, nil), s.opt.fault)
		}
		if err = errors.Join(err, removeLeftovers(s.dir, l)); err != nil {
			return err
		}
	}
	s.next = l.next
	for _, r := range l.runs {
		opened := &run{tier: r.tier}
		s.now.runs = append(s.now.runs, opened)
		for _, a := range r.tables {
			t, err := openTable(tablePath(s.dir, a.id), a)
			if err != nil {
				return err
			}
			t.users = 1
			opened.tables = append(opened.tables, t)
		}
	}
	return nil
}

// close closes the files of a version.
func (v *version) close() (err error) {
	for _, r := range v.runs {
		for _, t := range r.tables {
			err = errors.Join(err, t.file.Close())
		}
	}
	return err
}

// Check reads all there is in tables. An error of kind journal.KindCorrupt says what is damaged.
func (s *Store) Check(ctx context.Context) error {
	v, err := s.acquire()
	if err != nil {
		return err
	}
	defer s.release(v)
	read := new(block)
	for _, r := range v.runs {
		for _, t := range r.tables {
			m, err := t.meta()
			for i := 0; err == nil && i < m.blocks(); i++ {
				if err = ctx.Err(); err == nil {
					err = t.read(i, read)
				}
			}
			if err != nil {
				return s.readError(err)
			}
		}
	}
	return nil
}

// Stats are sizes of a store.
type Stats struct {
	Bytes   int64  // of tables on disk
	Memory  int64  // of what is not in tables yet
	Runs    int    // a read looks into so many tables, or is told by a filter that it need not
	Written uint64 // bytes of tables, since Open
	Cached  int64  // bytes of blocks in memory
	Hits    uint64 // blocks that look-ups, and scans at their begin, found there, since Open
	Misses  uint64 // and that they read from a file
}

// Stats returns the sizes now.
func (s *Store) Stats() (n Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.Written = s.written
	if s.now == nil {
		return n
	}
	s.cache.count(&n)
	for _, r := range s.now.runs {
		n.Bytes += r.size()
	}
	for p := range s.now.pieces() {
		n.Memory += int64(p.bytes())
	}
	n.Runs = len(s.now.runs)
	return n
}

// acquire returns the current version, whose files stay until it is released.
func (s *Store) acquire() (*version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return nil, errClosed
	}
	s.now.users++
	return s.now, nil
}

var errClosed = &journal.Error{Op: "index", Kind: journal.KindClosed, Detail: "the index was closed"}

func (s *Store) release(v *version) {
	s.mu.Lock()
	gone := s.drop(v)
	s.mu.Unlock()
	s.remove(gone)
}

// drop gives up one use of a version and returns tables that nobody uses any more. The caller
// holds mu.
func (s *Store) drop(v *version) (gone []*table) {
	if v.users--; v.users > 0 {
		return nil
	}
	for _, r := range v.runs {
		for _, t := range r.tables {
			if t.users--; t.users == 0 {
				gone = append(gone, t)
			}
		}
	}
	return gone
}

// remove closes tables that nobody uses, and removes those that are not listed any more.
func (s *Store) remove(gone []*table) {
	for _, t := range gone {
		s.cache.forget(t)
		err := t.file.Close()
		if t.obsolete {
			err = errors.Join(err, os.Remove(t.path))
		}
		if err != nil { // the next Open removes it
			s.opt.Logger.Warn("a table of the index was not removed", "error", err)
		}
	}
}

// install replaces the current version by one that change makes of a copy. The caller does not
// hold mu.
func (s *Store) install(change func(v *version)) {
	s.mu.Lock()
	old := s.now
	v := &version{users: 1, active: old.active, frozen: old.frozen, runs: old.runs}
	change(v)
	for _, r := range v.runs {
		for _, t := range r.tables {
			t.users++
		}
	}
	s.now = v
	gone := s.drop(old)
	s.tell()
	s.mu.Unlock()
	s.remove(gone)
}

// tell wakes who waits for a change. The caller holds mu.
func (s *Store) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until done says so. done is called with mu held.
func (s *Store) await(ctx context.Context, done func() (bool, error)) error {
	for {
		s.mu.Lock()
		ok, err := done()
		changed := s.changed
		s.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return classify("index", ctx.Err())
		}
	}
}

// fail ends the store: nothing is written any more. What is there can be read.
func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.tell()
}

// readError gives an error of a read its kind. Damage is noted on the disk, too, so that the next
// Open refuses the store, and whoever opens it makes a new one.
func (s *Store) readError(err error) error {
	if errors.Is(err, errDamaged) && !s.opt.ReadOnly {
		if noted := os.WriteFile(filepath.Join(s.dir, badFile), []byte(err.Error()+"\n"), 0o600); noted != nil {
			s.opt.Logger.Warn("damage of the index could not be noted", "damage", err, "error", noted)
		}
	}
	return classify("index", err)
}

// classify gives errors their kind.
func classify(op string, err error) error {
	var ours *journal.Error
	if err == nil || errors.As(err, &ours) {
		return err
	}
	kind := journal.KindInternal
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		kind = journal.KindCanceled
	case errors.Is(err, os.ErrClosed):
		kind = journal.KindClosed
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EFBIG) || errors.Is(err, syscall.EDQUOT):
		kind = journal.KindFull
	case errors.Is(err, errDamaged) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR): // or a directory in the place of a file
		kind = journal.KindCorrupt
	}
	return &journal.Error{Op: op, Kind: kind, Err: err}
}

// Close writes what is in memory to a table, waits for all that goes on, and closes the files.
// No read may be under way.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	if s.now == nil {
		s.mu.Unlock()
		return nil
	}
	s.closing = true
	s.mu.Unlock()
	if !s.opt.ReadOnly {
		s.freeze() // which wakes the worker, too
	}
	<-s.stopped
	s.mu.Lock()
	v, err := s.now, s.err
	s.now = nil
	s.tell()
	s.mu.Unlock()
	return classify("close", errors.Join(err, v.close()))
}

func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func piecesSize(pieces []*piece) (n int) {
	for _, p := range pieces {
		n += p.bytes()
	}
	return n
}

// Clear implements [journal.IndexStore].
func (s *Store) Clear(context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	s.listing.Lock()
	defer s.listing.Unlock()
	return s.clear()
}

// clear removes everything. The caller holds writing and listing.
func (s *Store) clear() error {
	err := writeRuns(s.dir, encodeRuns(s.next, nil), s.opt.fault)
	if err == nil {
		err = os.Remove(filepath.Join(s.dir, badFile)) // what was damaged is gone
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return classify("clear", err)
	}
	s.install(func(v *version) {
		obsolete(v.runs)
		s.flushed += uint64(len(v.frozen))
		v.active, v.frozen, v.runs = nil, nil, nil
	})
	return nil
}

// obsolete marks the tables of runs as not listed any more. The caller holds mu.
func obsolete(runs []*run) {
	for _, r := range runs {
		for _, t := range r.tables {
			t.obsolete = true
		}
	}
}

func (s *Store) writable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.opt.ReadOnly:
		return &journal.Error{Op: "index", Kind: journal.KindInvalid, Detail: "the index is open for reading only"}
	case s.closing || s.now == nil:
		return errClosed
	}
	return s.err
}

// Update implements [journal.IndexStore]. It waits while what was handed in before waits to be
// written. A crash leaves the beginning of all updates, each whole or not at all.
func (s *Store) Update(ctx context.Context, pairs []journal.Pair) error {
	if len(pairs) == 0 {
		return nil
	}
	p, err := newPiece(pairs, false, s.opt.Group)
	if err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	return s.add(ctx, p)
}

// waiting is how many groups of pieces may wait to be written before updates wait too.
const waiting = 1

// add adds a piece to what is in memory, and hands that on if it is enough. The caller holds writing.
func (s *Store) add(ctx context.Context, p *piece) error {
	// Room is made before, so that an update that fails has not happened.
	s.mu.Lock()
	full := piecesSize(s.now.active) >= s.opt.MemoryBytes
	pieces := s.now.active
	s.mu.Unlock()
	if full {
		if err := s.handOn(ctx); err != nil {
			return err
		}
		pieces = nil
	}
	pieces = withPiece(pieces, p, s.opt.Group) // nobody else changes them
	s.install(func(v *version) {
		v.active = pieces
		s.updates++
	})
	return nil
}

// handOn freezes when there is room. The caller holds writing.
func (s *Store) handOn(ctx context.Context) error {
	err := s.await(ctx, func() (bool, error) { return len(s.now.frozen) < waiting, s.err })
	if err == nil {
		s.freeze()
	}
	return err
}

// freeze hands what is in memory to the worker. The caller holds writing.
func (s *Store) freeze() {
	s.install(func(v *version) {
		if len(v.active) > 0 {
			v.frozen = append(slices.Clone(v.frozen), v.active)
			v.active = nil
			s.frozen++
		}
		s.idle = false
	})
	s.signal()
}

// Delete implements [journal.IndexStore]. All that is in memory is written to a table.
func (s *Store) Delete(ctx context.Context, keys [][]byte) error {
	if len(keys) == 0 {
		return nil
	}
	pairs := make([]journal.Pair, len(keys))
	for i := range keys {
		pairs[i].Key = keys[i]
	}
	p, err := newPiece(pairs, true, s.opt.Group)
	if err != nil {
		return err
	}
	s.writing.Lock()
	if err = s.writable(); err == nil {
		if err = s.add(ctx, p); err == nil {
			err = s.handOn(ctx)
		}
	}
	mine := s.frozen
	s.writing.Unlock()
	if err != nil {
		return err
	}
	return s.await(ctx, func() (bool, error) { return s.flushed >= mine, s.err })
}

// Settle waits until there is nothing to merge any more, for benchmarks and tests. What is in
// memory stays there.
func (s *Store) Settle(ctx context.Context) error {
	return s.await(ctx, func() (bool, error) {
		if s.closing || s.err != nil {
			return false, s.end()
		}
		return s.idle, nil
	})
}
