package journal

import (
	"context"
	"errors"
	"time"
)

// logBytes counts the bytes of a log's batches on disk, packed as they are. The index
// keeps the count, so that opening a journal need not read the log: it reads what was
// written after the entry. Where there is no entry that fits (a new index, a retention
// that was interrupted), the log is counted in the background. Guarded by Journal.mu.
type logBytes struct {
	known   bool
	bytes   int64 // if known: of the batches from the cut on; else of those written since the count began
	writing int64 // encoded size of commits handed in that are not on disk, before they are packed
	changed bool  // by a retention, so that the entry in the index has to be written again
}

// countEntry is a log's entry in the index: the batches from the one with the sequence
// cut (0: from the first) up to the one with the sequence last have so many bytes. next
// is where the first event after them stands.
type countEntry struct {
	cut, last uint64
	next      Position
	bytes     int64
}

func countKey(log LogName) []byte { return indexPrefix('b', log) }

func encodeCount(c countEntry) []byte {
	w := writer{make([]byte, 4, 36)}
	w.u64(c.cut)
	w.u64(c.last)
	w.u64(uint64(c.next))
	w.u64(uint64(c.bytes))
	return sealValue(w.b)
}

// decodeCount is total.
func decodeCount(b []byte) (c countEntry, ok bool) {
	r, ok := openValue(b)
	if !ok {
		return countEntry{}, false
	}
	c = countEntry{cut: r.u64(), last: r.u64(), next: Position(r.u64()), bytes: int64(r.u64())}
	return c, !r.bad && len(r.b) == 0 && c.bytes >= 0
}

// storedCount is a log's entry; the zero one is right for a log before its first batch.
// ok is false if there is none, or it is damaged.
func storedCount(ctx context.Context, index IndexStore, log LogName) (c countEntry, ok bool, err error) {
	value, ok, err := index.Get(ctx, countKey(log))
	if err != nil || !ok {
		return countEntry{}, false, err
	}
	c, ok = decodeCount(value)
	return c, ok, nil
}

// LogBytes is how many bytes a log has on disk, packed as they are, and those of the
// commits that are on their way there. known is false while a log whose count was lost
// is being counted; then it is less than there is.
func (j *Journal) LogBytes(log LogName) (bytes int64, known bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.logs[log]
	if s == nil {
		return 0, true
	}
	return s.size.bytes + s.size.writing, s.size.known
}

// takeCounts appends the entries of the logs that groups or retentions have changed.
func (j *Journal) takeCounts(pairs []Pair, groups []*group) []Pair {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, g := range groups {
		for _, b := range g.blocks {
			j.logs[b.Log].size.changed = true
		}
	}
	take := func(s *logState) {
		if s.size.changed && s.size.known {
			pairs = append(pairs, Pair{countKey(s.name), encodeCount(s.count())})
			s.size.changed = false
		}
	}
	for _, g := range groups {
		for _, b := range g.blocks {
			take(j.logs[b.Log])
		}
	}
	for _, s := range j.recount {
		take(s)
	}
	j.recount = nil
	return pairs
}

// count is the log's entry as it is now. The caller holds mu.
func (s *logState) count() countEntry {
	return countEntry{cut: s.trimmed.sequence, last: s.batches, next: s.head + 1, bytes: s.size.bytes}
}

// cutBytes takes what a retention has cut off out of the count. The caller holds mu.
func (j *Journal) cutBytes(s *logState, bytes uint64) {
	if !s.size.known {
		return // who counts finds that the cut has moved
	}
	s.size.bytes -= int64(bytes)
	j.noteCount(s)
}

// noteCount has the indexer write a log's entry. The caller holds mu.
func (j *Journal) noteCount(s *logState) {
	s.size.changed = true
	j.recount = append(j.recount, s)
	j.wakeIndexer()
}

// findCounts takes the counts of all logs from the index, where these fit. Open calls
// it, before anybody else has the journal.
func (j *Journal) findCounts(ctx context.Context, index IndexStore) error {
	for name, s := range j.logs {
		if j.damaged[name] != nil {
			continue
		}
		c, ok, err := storedCount(ctx, index, name)
		if err != nil {
			return err
		}
		if ok && c == (countEntry{s.trimmed.sequence, s.batches, s.head + 1, c.bytes}) {
			s.size.known, s.size.bytes = true, c.bytes
		}
	}
	return nil
}

// uncounted reports whether there is a log to count.
func (j *Journal) uncounted() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for name, s := range j.logs {
		if !s.size.known && j.damaged[name] == nil {
			return true
		}
	}
	return false
}

// countLoop counts the logs that have no count, with half of the time left to others.
// It ends when all are counted, or with ctx. What cannot be read stays uncounted: who
// reads it is told why.
func (j *Journal) countLoop(ctx context.Context) {
	defer j.stopped.Done()
	j.mu.Lock()
	var left []*logState
	for name, s := range j.logs {
		if !s.size.known && j.damaged[name] == nil {
			left = append(left, s)
		}
	}
	j.mu.Unlock()
	for _, s := range left {
		for again := true; again; {
			var err error
			if again, err = j.countLog(ctx, s); err != nil {
				break
			}
		}
	}
}

// countLog counts one log; again says that a retention has changed it meanwhile.
func (j *Journal) countLog(ctx context.Context, s *logState) (again bool, err error) {
	j.mu.Lock()
	cut, upTo := s.trimmed.sequence, s.batches
	s.size.bytes = 0
	j.mu.Unlock()
	var bytes int64
	pause, begin := int64(0), time.Now()
	err = j.Batches(ctx, s.name, BatchRange{UpTo: upTo}, func(b Block) error {
		bytes += int64(len(b.Data))
		if bytes-pause < batchesAtOnce {
			return nil
		}
		timer := time.NewTimer(time.Since(begin))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		pause, begin = bytes, time.Now()
		return nil
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	if s.trimmed.sequence != cut {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	s.size.known = true
	s.size.bytes += bytes
	j.noteCount(s)
	return false, nil
}

// counter finishes the count of a log whose index is being completed.
type counter struct {
	entry countEntry
	known bool
}

// newCounter begins with the entry of the index, if the batches after it will all be seen.
func newCounter(ctx context.Context, index IndexStore, log LogName, indexed uint64) (counter, error) {
	c, ok, err := storedCount(ctx, index, log)
	if !ok && indexed == 0 {
		return counter{known: true}, err // all will be seen
	}
	return counter{entry: c, known: ok && c.last >= indexed}, err
}

// add counts a batch.
func (c *counter) add(b Block, next Position) {
	if b.Sequence > c.entry.last {
		if c.entry.last == 0 {
			c.entry.cut = b.Sequence // of the first one; settle says whether that is the cut
		}
		c.entry.last, c.entry.next = b.Sequence, next
		c.entry.bytes += int64(len(b.Data))
	}
}

// settle writes the entry, if it is right for a log that begins at a cut.
func (c *counter) settle(ctx context.Context, index IndexStore, log LogName, cut uint64) error {
	if c.entry.cut == 1 && cut == 0 {
		c.entry.cut = 0
	}
	if !c.known || c.entry.last == 0 || c.entry.cut != cut {
		return nil
	}
	was, ok, err := storedCount(ctx, index, log)
	if err != nil || ok && was == c.entry {
		return err
	}
	err = index.Update(ctx, []Pair{{countKey(log), encodeCount(c.entry)}})
	if errors.Is(err, context.Canceled) {
		return nil // it is counted later
	}
	return err
}
