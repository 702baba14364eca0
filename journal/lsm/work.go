package lsm

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

const (
	// tierRuns is how many runs of a tier become one of the next.
	tierRuns = 4
	// restRatio is how many times as much an older run has as all newer ones together, when there was
	// time to merge those that have less.
	restRatio = 4
)

// compaction is a call of Compact.
type compaction struct {
	ctx   context.Context
	begun bool       // guarded by the store's mu; if not, the caller may still call it off
	done  chan error // of capacity 1
}

// errStopped ends a merge: the store was closed or has failed, or a Clear has removed what was merged.
var errStopped = errors.New("the merge was stopped")

// work is the worker: it alone writes tables.
func (s *Store) work() {
	defer close(s.stopped)
	for {
		s.mu.Lock()
		s.idle = false
		v, failed, closing, wanted := s.now, s.err != nil, s.closing, s.compact != nil
		frozen, updates := len(v.frozen), s.updates
		s.mu.Unlock()
		switch {
		case failed:
			s.refuse()
			if closing {
				return
			}
			<-s.wake
		case frozen > 0:
			s.flush()
		case closing:
			s.refuse()
			return
		case wanted:
			s.compactNow()
		case len(due(v.runs)) > 0:
			s.tryMerge(due(v.runs))
		default:
			s.rest(updates)
		}
	}
}

// rest waits for something to do, or merges what is not due if there were no updates for a while.
func (s *Store) rest(updates uint64) {
	s.mu.Lock()
	runs := atRest(s.now.runs)
	if s.idle = len(runs) == 0; s.idle {
		s.tell()
	}
	s.mu.Unlock()
	if len(runs) == 0 {
		<-s.wake
		return
	}
	quiet := time.NewTimer(s.opt.quiet)
	defer quiet.Stop()
	select {
	case <-s.wake:
		return
	case <-quiet.C:
	}
	s.mu.Lock()
	same := s.updates == updates
	s.mu.Unlock()
	if same {
		s.tryMerge(runs)
	}
}

// due are the runs that have to become one: all of the lowest tier of which there are enough.
func due(runs []*run) []*run {
	for from := 0; from < len(runs); {
		to := from
		for to < len(runs) && runs[to].tier == runs[from].tier {
			to++
		}
		if to-from >= tierRuns {
			return runs[from:to]
		}
		from = to
	}
	return nil
}

// atRest are the newest runs that become one when there is time: as many as possible of which each
// but the newest has less than restRatio times as much as all newer ones together.
func atRest(runs []*run) []*run {
	newer := int64(0)
	best := 0
	for i, r := range runs {
		if i > 0 && r.size() < restRatio*newer {
			best = i + 1
		}
		newer += r.size()
	}
	return runs[:best]
}

// refuse tells a caller of Compact that there will be none.
func (s *Store) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.compact != nil {
		s.compact.done <- s.end()
		s.compact = nil
		s.tell()
	}
}

// end is why nothing is written any more. The caller holds mu.
func (s *Store) end() error {
	if s.err != nil {
		return s.err
	}
	return errClosed
}

// compactNow does what somebody waits for.
func (s *Store) compactNow() {
	s.mu.Lock()
	c, runs := s.compact, s.now.runs
	if c != nil {
		c.begun = true
	}
	s.mu.Unlock()
	if c == nil {
		return // it was called off
	}
	var err error
	if len(runs) > 1 || len(runs) == 1 && runs[0].deleted() > 0 {
		err = s.merge(runs, c.ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, errStopped) {
		err = nil // after a Clear there is nothing to compact
		if s.closing || s.err != nil {
			err = s.end()
		}
	}
	s.compact = nil
	s.tell()
	c.done <- err
}

func (r *run) deleted() (n uint64) {
	for _, t := range r.tables {
		n += t.deleted
	}
	return n
}

// Compact implements journal.Compactor: what is on the disk becomes one run, without what was
// deleted or replaced.
func (s *Store) Compact(ctx context.Context) error {
	s.writing.Lock()
	err := s.writable()
	if err == nil {
		err = s.handOn(ctx)
	}
	s.writing.Unlock()
	if err != nil {
		return err
	}
	c := &compaction{ctx: ctx, done: make(chan error, 1)}
	err = s.await(ctx, func() (bool, error) {
		if s.closing || s.err != nil {
			return false, s.end()
		}
		free := s.compact == nil
		if free {
			s.compact = c
		}
		return free, nil
	})
	if err != nil {
		return err
	}
	s.signal()
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
	}
	s.mu.Lock()
	waits := s.compact == c && !c.begun // for another merge, perhaps a long one
	if waits {
		s.compact = nil
		s.tell()
	}
	s.mu.Unlock()
	if waits {
		return classify("compact", ctx.Err())
	}
	return <-c.done // soon: the merge looks at ctx
}

// flush writes the oldest pieces that wait to a table.
func (s *Store) flush() {
	s.mu.Lock()
	v := s.now
	s.mu.Unlock()
	if len(v.frozen) == 0 {
		return // there was a Clear
	}
	pieces := v.frozen[0]
	w := &writer{store: s, bottom: len(v.runs) == 0}
	err := w.all(newMerge(pieceSources(pieces)), func() error { return nil })
	if err == nil {
		err = s.list(w, func(v *version) bool {
			if len(v.frozen) == 0 || &v.frozen[0][0] != &pieces[0] {
				return false
			}
			v.frozen = append([][]*piece(nil), v.frozen[1:]...) // so that the first is not kept
			if len(w.tables) > 0 {
				v.runs = append([]*run{{tables: w.tables}}, v.runs...)
			}
			return true
		}, func() { s.flushed++ })
	}
	if err != nil {
		w.discard()
	}
	if err != nil && !errors.Is(err, errStopped) {
		s.fail(classify("index", err))
	}
}

// tryMerge merges, and if there is no room for that, waits for something else to do: nothing is lost
// but the time of reads.
func (s *Store) tryMerge(runs []*run) {
	if err := s.merge(runs, nil); journal.KindOf(err) != journal.KindFull {
		return
	}
	s.mu.Lock()
	news := len(s.now.frozen) > 0 || s.closing || s.err != nil || s.compact != nil
	s.idle = true
	s.tell()
	s.mu.Unlock()
	if !news {
		<-s.wake
	}
}

// merge makes one run of several that follow on each other. ctx, if not nil, is that of who asked for
// it. An error is errStopped, of kind journal.KindFull, or ctx's; any other ends the store, and is
// returned as it is.
func (s *Store) merge(runs []*run, ctx context.Context) error {
	err := s.mergeRuns(runs, ctx)
	switch {
	case err == nil || errors.Is(err, errStopped):
		return err
	case ctx != nil && ctx.Err() != nil:
		return classify("compact", ctx.Err())
	case errors.Is(err, errDamaged):
		return s.failDamaged(runs, err)
	default:
		err = classify("index", err)
	}
	if journal.KindOf(err) == journal.KindFull {
		s.opt.Logger.Warn("tables of the index are not merged", "error", err)
	} else {
		s.fail(err)
	}
	return err
}

// failDamaged ends the store, as a merge of runs has met damage, unless everything was removed meanwhile.
func (s *Store) failDamaged(runs []*run, err error) error {
	s.listing.Lock()
	defer s.listing.Unlock()
	s.mu.Lock()
	gone := slices.Index(s.now.runs, runs[0]) < 0
	s.mu.Unlock()
	if gone {
		return errStopped
	}
	err = s.readError(err)
	s.fail(err)
	return err
}

func (s *Store) mergeRuns(runs []*run, ctx context.Context) error {
	v, err := s.acquire() // so that their files stay
	if err != nil {
		return err
	}
	defer s.release(v)
	if slices.Index(v.runs, runs[0]) < 0 {
		return errStopped // there was a Clear
	}
	tier, size := 0, int64(0)
	sources := make([]*source, len(runs))
	for i, r := range runs {
		tier = max(tier, r.tier)
		size += r.size()
		sources[i] = &source{run: r}
	}
	if all := len(runs) >= tierRuns; all && runs[0].tier == tier {
		tier++
	}
	if err := s.opt.Room(size); err != nil {
		return err
	}
	w := &writer{store: s, bottom: runs[len(runs)-1] == v.runs[len(v.runs)-1], atOnce: s.opt.table}
	m := newMerge(sources)
	defer m.close()
	nested := true // smaller merges are made meanwhile
	err = w.all(m, func() error { return s.giveWay(runs[0], &nested, ctx) })
	if err == nil {
		err = s.list(w, func(v *version) bool {
			at := slices.Index(v.runs, runs[0])
			if at < 0 {
				return false
			}
			made := slices.Clone(v.runs[:at])
			if len(w.tables) > 0 {
				made = append(made, &run{tier: tier, tables: w.tables})
			}
			v.runs = append(made, v.runs[at+len(runs):]...)
			return true
		}, func() { obsolete(runs) })
	}
	if err != nil {
		w.discard()
	}
	return err
}

// giveWay is called again and again by a merge. Others run, and what waits to be written is, and
// smaller merges are made that are due by that, as long as nested allows it. newest is the newest run of
// the merge.
func (s *Store) giveWay(newest *run, nested *bool, ctx context.Context) error {
	if ctx != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	frozen, stop := len(s.now.frozen), s.closing || s.err != nil
	s.mu.Unlock()
	if stop {
		return errStopped
	}
	if frozen == 0 {
		runtime.Gosched()
		return nil
	}
	s.flush()
	for *nested {
		s.mu.Lock()
		runs, stop := s.now.runs, s.closing || s.err != nil
		s.mu.Unlock()
		at := slices.Index(runs, newest)
		if stop || at < 0 {
			return errStopped
		}
		smaller := due(runs[:at])
		if len(smaller) == 0 {
			return nil
		}
		switch err := s.merge(smaller, nil); {
		case journal.KindOf(err) == journal.KindFull:
			*nested = false // the end of this merge makes room
		case err != nil:
			return errStopped
		}
	}
	return nil
}

// list writes the list of runs as it is after change, and then makes that the current version,
// together with what done does. If change says no, as there was a Clear, nothing happens. change has
// no other effect than that on its argument; both are called with mu held.
func (s *Store) list(w *writer, change func(v *version) bool, done func()) error {
	s.listing.Lock()
	defer s.listing.Unlock()
	s.mu.Lock()
	next := &version{frozen: s.now.frozen, runs: s.now.runs}
	ok := change(next)
	s.mu.Unlock()
	if !ok {
		return errStopped
	}
	if err := writeRuns(s.dir, encodeRuns(s.next, next.runs), s.opt.fault); err != nil {
		// Either list may be there, so all that one of them names has to stay.
		w.listed = true
		s.fail(classify("index", err))
		return err
	}
	s.install(func(v *version) {
		change(v) // it says yes again, as Clear needs listing
		done()
		s.written += w.written
	})
	return nil
}

// writer writes the tables of a run.
type writer struct {
	store    *Store
	bottom   bool  // nothing is older, so what is deleted need not be remembered
	atOnce   int64 // bytes from which on another table is begun; 0 is never
	building *builder
	tables   []*table
	written  uint64
	listed   bool // the list of runs may name the tables
}

// all writes what a merge yields, and calls between after each block, written or left out.
func (w *writer) all(m *merge, between func() error) error {
	const block = 256 // entries
	if err := m.first(); err != nil {
		return err
	}
	since := 0
	for s := m.top(); s != nil; s = m.top() {
		since++
		if !w.bottom || !s.entry.deleted {
			cut, err := w.add(s)
			if err != nil {
				return err
			}
			if cut {
				since = block
			}
		}
		if since >= block {
			since = 0
			if err := between(); err != nil {
				return err
			}
		}
		if err := m.next(); err != nil {
			return err
		}
	}
	return w.finish()
}

func (w *writer) add(s *source) (cut bool, err error) {
	if w.building == nil {
		if err := w.begin(); err != nil {
			return false, err
		}
	}
	cut, err = w.building.add(&s.entry, w.store.opt.Group)
	if err == nil && cut && w.atOnce > 0 && w.building.about.metaAt >= w.atOnce {
		// The entry that was just added begins a block of its own, and stays in this table.
		err = w.finish()
	}
	return cut, err
}

func (w *writer) begin() (err error) {
	s := w.store
	s.listing.Lock()
	id := s.next
	s.next++
	s.listing.Unlock()
	w.building, err = newBuilder(tablePath(s.dir, id), id, s.opt.fault)
	return err
}

func (w *writer) finish() error {
	if w.building == nil {
		return nil
	}
	t, err := w.building.finish()
	w.written += uint64(w.building.written)
	if err != nil {
		return err
	}
	w.tables = append(w.tables, t)
	w.building = nil
	return nil
}

// discard removes what was written.
func (w *writer) discard() {
	var err error
	if w.building != nil {
		err = w.building.discard()
	}
	for _, t := range w.tables {
		t.obsolete = !w.listed
	}
	w.store.remove(w.tables)
	if err != nil {
		w.store.opt.Logger.Warn("a table of the index was not removed", "error", err)
	}
}
