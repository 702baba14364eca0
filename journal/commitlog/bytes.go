package commitlog

import (
	"context"
	"errors"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// logBytes counts the bytes of a log's batches on disk, packed as they are. The index
// keeps the count, so that opening a journal need not read the log: it reads what was
// written after the entry. Where there is no entry that fits (a new index, a retention
// that was interrupted), the log is counted in the background. Guarded by overlay.mu.
type logBytes struct {
	known   bool
	bytes   int64 // if known: of the batches from the cut on; else of those written since the count began
	writing int64 // encoded size of commits handed in that are not on disk, before they are packed
	changed bool  // by a retention, so that the entry in the index has to be written again
}

// storedCount is a log's entry; the zero one is right for a log before its first batch.
// ok is false if there is none, or it is damaged.
func storedCount(
	ctx context.Context, index journal.IndexStore, log journal.LogName,
) (c format.CountEntry, ok bool, err error) {
	value, ok, err := index.Get(ctx, format.CountKey(log))
	if err != nil || !ok {
		return format.CountEntry{}, false, err
	}
	c, ok = format.DecodeCount(value)
	return c, ok, nil
}

// LogBytes is how many bytes a log has on disk, packed as they are, and those of the
// commits that are on their way there. known is false while a log whose count was lost
// is being counted; then it is less than there is.
func (j *Journal) LogBytes(log journal.LogName) (bytes int64, known bool) {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	s := j.overlay.logs[log]
	if s == nil {
		return 0, true
	}
	return s.size.bytes + s.size.writing, s.size.known
}

// count is the log's entry as it is now. The caller holds mu.
func (s *logState) count() format.CountEntry {
	return format.CountEntry{Cut: s.trimmed.Sequence, Last: s.batches, Next: s.head + 1, Bytes: s.size.bytes}
}

// findCounts takes the counts of all logs from the index, where these fit. Open calls
// it, before anybody else has the journal.
func (j *Journal) findCounts(ctx context.Context, index journal.IndexStore) error {
	for name, s := range j.overlay.logs {
		if j.overlay.damaged[name] != nil {
			continue
		}
		c, ok, err := storedCount(ctx, index, name)
		if err != nil {
			return err
		}
		if ok && c == (format.CountEntry{Cut: s.trimmed.Sequence, Last: s.batches, Next: s.head + 1, Bytes: c.Bytes}) {
			s.size.known, s.size.bytes = true, c.Bytes
		}
	}
	return nil
}

// uncounted reports whether there is a log to count.
func (j *Journal) uncounted() bool {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	for name, s := range j.overlay.logs {
		if !s.size.known && j.overlay.damaged[name] == nil {
			return true
		}
	}
	return false
}

// countLoop counts the logs that have no count, with half of the time left to others.
// It ends when all are counted, or with ctx. What cannot be read stays uncounted: who
// reads it is told why.
func (j *Journal) countLoop(ctx context.Context) {
	j.overlay.mu.Lock()
	var left []*logState
	for name, s := range j.overlay.logs {
		if !s.size.known && j.overlay.damaged[name] == nil {
			left = append(left, s)
		}
	}
	j.overlay.mu.Unlock()
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
	j.overlay.mu.Lock()
	cut, upTo := s.trimmed.Sequence, s.batches
	s.size.bytes = 0
	j.overlay.mu.Unlock()
	var bytes int64
	pause, begin := int64(0), time.Now()
	err = j.Batches(ctx, s.name, journal.BatchRange{UpTo: upTo}, func(b journal.Block) error {
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
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	if s.trimmed.Sequence != cut {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	s.size.known = true
	s.size.bytes += bytes
	j.overlay.noteCount(s)
	return false, nil
}

// counter finishes the count of a log whose index is being completed.
type counter struct {
	entry format.CountEntry
	known bool
}

// newCounter begins with the entry of the index, if the batches after it will all be seen.
func newCounter(ctx context.Context, index journal.IndexStore, log journal.LogName, indexed uint64) (counter, error) {
	c, ok, err := storedCount(ctx, index, log)
	if !ok && indexed == 0 {
		return counter{known: true}, err // all will be seen
	}
	return counter{entry: c, known: ok && c.Last >= indexed}, err
}

// add counts a batch.
func (c *counter) add(b journal.Block, next journal.Position) {
	if b.Sequence > c.entry.Last {
		if c.entry.Last == 0 {
			c.entry.Cut = b.Sequence // of the first one; settle says whether that is the cut
		}
		c.entry.Last, c.entry.Next = b.Sequence, next
		c.entry.Bytes += int64(len(b.Data))
	}
}

// settle writes the entry, if it is right for a log that begins at a cut.
func (c *counter) settle(ctx context.Context, index journal.IndexStore, log journal.LogName, cut uint64) error {
	if c.entry.Cut == 1 && cut == 0 {
		c.entry.Cut = 0
	}
	if !c.known || c.entry.Last == 0 || c.entry.Cut != cut {
		return nil
	}
	was, ok, err := storedCount(ctx, index, log)
	if err != nil || ok && was == c.entry {
		return err
	}
	err = index.Update(ctx, []journal.Pair{{Key: format.CountKey(log), Value: format.EncodeCount(c.entry)}})
	if errors.Is(err, context.Canceled) {
		return nil // it is counted later
	}
	return err
}
