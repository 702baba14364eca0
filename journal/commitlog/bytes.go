package commitlog

import (
	"context"
	"errors"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// logBytes counts the bytes of a log's batches on disk, as packed. The index stores the count, so opening a journal
// reads only what was written after the entry. If no entry fits (a new index, an interrupted retention), the log is
// counted in the background. Guarded by overlay.mu.
type logBytes struct {
	known   bool
	bytes   int64 // if known: of the batches from the cut on; else of those written since counting began
	writing int64 // encoded size, before packing, of commits handed in and not on disk
	changed bool  // by a retention, so the entry in the index has to be written again
}

// storedCount is a log's entry; a log before its first batch has the zero entry. ok is false if the entry is missing or
// damaged.
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

// LogBytes is how many bytes a log has on disk, as packed, plus the bytes of commits that are being written. If the
// count was lost, known is false until the log has been counted again; until then the result is too low.
func (j *Journal) LogBytes(log journal.LogName) (bytes int64, known bool) {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	s := j.overlay.logs[log]
	if s == nil {
		return 0, true
	}
	return s.size.bytes + s.size.writing, s.size.known
}

// count returns the log's current entry. The caller holds mu.
func (s *logState) count() format.CountEntry {
	return format.CountEntry{Cut: s.trimmed.Sequence, Last: s.batches, Next: s.head + 1, Bytes: s.size.bytes}
}

// findCounts takes the counts of all logs from the index, where they fit. Open calls it before the journal is shared.
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

// uncounted reports whether a log still has to be counted.
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

// countLoop counts the logs that have no count, and leaves half of the time to others. It ends when all are counted, or
// with ctx. A log that cannot be read stays uncounted; its readers get the error.
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

// countLog counts one log; again says that a retention changed the log meanwhile.
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

// counter completes the count of a log while its index is being completed.
type counter struct {
	entry format.CountEntry
	known bool
}

// newCounter begins with the entry of the index, if all batches after it will be seen.
func newCounter(ctx context.Context, index journal.IndexStore, log journal.LogName, indexed uint64) (counter, error) {
	c, ok, err := storedCount(ctx, index, log)
	if !ok && indexed == 0 {
		return counter{known: true}, err // all will be seen
	}
	return counter{entry: c, known: ok && c.Last >= indexed}, err
}

func (c *counter) add(b journal.Block, next journal.Position) {
	if b.Sequence > c.entry.Last {
		if c.entry.Last == 0 {
			c.entry.Cut = b.Sequence // of the first batch; settle checks whether that is the cut
		}
		c.entry.Last, c.entry.Next = b.Sequence, next
		c.entry.Bytes += int64(len(b.Data))
	}
}

// settle writes the entry if it is right for a log that begins at the cut.
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
