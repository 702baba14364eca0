package badgerengine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Badger's own collection of its value log writes what is still needed again, trusts syncs whose failure it
// only logs, and removes the old file. Here nothing is ever moved: where entries stand that nobody points to
// any more, a hole is made, which takes no room on disk. A file of nothing but a hole is
// removed at the next opening.

// pageBytes is what holes are made of. Smaller ones give nothing back.
const pageBytes = 4 << 10

// reclaim gives the room back of what was removed. Files are left alone into which pointers may be missing, and all of them
// while something of the log stands aside: what has no pointer may be wanted then.
func (e *Engine) reclaim(ctx context.Context) error {
	d := e.log
	d.writing.Lock()
	end, settled := d.marked, d.settled && d.failed == nil
	d.writing.Unlock()
	if d.values == nil || !settled || len(e.doubts) > 0 {
		return nil
	}
	dir := d.Opts().Dir
	files, err := listValues(dir)
	if err != nil {
		return err
	}
	first := map[journal.LogName]uint64{}
	if e.lowest == nil {
		e.lowest = map[uint32]map[journal.LogName]uint64{}
	}
	for _, f := range files {
		if f.id >= end || f.disk <= pageBytes {
			continue
		}
		if same, err := d.unmoved(e.lowest[f.id], first); err != nil || same {
			if err != nil {
				return err
			}
			continue
		}
		err := withValues(dir, f.id, func(content []byte, file *os.File) error {
			holes, lowest, err := d.holes(ctx, content, file, first)
			if err != nil {
				return err
			}
			if len(holes) == 0 {
				e.lowest[f.id] = lowest
				return nil
			}
			// What is not there any more must not come back, and whoever began to read before may still read it.
			if err := errors.Join(syncPointers(dir), d.readers.wait(ctx)); err != nil {
				return err
			}
			for _, h := range holes {
				if err := punch(file, int64(h.from), int64(h.to-h.from)); err != nil {
					return err
				}
			}
			e.lowest[f.id] = lowest
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hole is a part of a file that nobody needs.
type hole struct{ from, to int }

// lowestMost bounds the logs of which it is known where a file begins to need them.
const lowestMost = 256

// unmoved says whether nothing of a file can have been removed since its holes were made: no log begins behind what it has of it.
func (d *database) unmoved(lowest, first map[journal.LogName]uint64) (bool, error) {
	if lowest == nil {
		return false, nil
	}
	for log, sequence := range lowest {
		begins, err := d.begins(log, first)
		if err != nil || begins > sequence {
			return false, err
		}
	}
	return true, nil
}

// begins is firstSequence, of which first has those that are known.
func (d *database) begins(log journal.LogName, first map[journal.LogName]uint64) (uint64, error) {
	if begins, ok := first[log]; ok {
		return begins, nil
	}
	begins, err := d.firstSequence(log)
	if err == nil {
		first[log] = begins
	}
	return begins, err
}

// holes are where a file has nothing but what was removed, or written again elsewhere, and lowest is what it has of each log,
// nil if these are too many. first has the first sequences of logs.
func (d *database) holes(ctx context.Context, content []byte, f *os.File, first map[journal.LogName]uint64) (holes []hole, lowest map[journal.LogName]uint64, err error) {
	lowest = map[journal.LogName]uint64{}
	from, to := logHeaderSize, logHeaderSize // of what may become a hole, or is one in part
	end := func() {
		if to-from >= pageBytes {
			holes = append(holes, hole{from, to})
		}
	}
	err = eachValue(content, f, func(at int, e storedValue) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		needed, err := d.needed(e, first)
		if err == nil && needed {
			end()
			from = at + e.size
			if log, sequence, ok := blockOf(e.key); ok && lowest != nil {
				if known, ok := lowest[log]; !ok || sequence < known {
					lowest[log] = sequence
				}
				if len(lowest) > lowestMost {
					lowest = nil
				}
			}
		}
		to = at + e.size
		return err
	})
	end()
	return holes, lowest, err
}

// needed says whether an entry may not become a hole: unless it is known that it was removed, or is elsewhere.
func (d *database) needed(e storedValue, first map[journal.LogName]uint64) (bool, error) {
	if bytes.Equal(e.key, groupKey) {
		return false, nil
	}
	newest, live, err := d.newest(e.key)
	if err != nil || live {
		return newest <= e.version, err
	}
	there, ok, err := d.inLog(e.key, first)
	return there || !ok, err
}

// inLog says whether a block, or one that has the part, does not stand before its log begins. ok is false if the key is
// neither's.
func (d *database) inLog(key []byte, first map[journal.LogName]uint64) (there, ok bool, err error) {
	log, sequence, ok := blockOf(key)
	if !ok {
		return false, false, nil
	}
	begins, err := d.begins(log, first)
	return sequence >= begins, true, err
}

// eachValue yields the entries of a file, with the places where they begin. Behind holes it goes on
// with the next one; where something else stands it ends.
func eachValue(content []byte, f *os.File, yield func(at int, e storedValue) error) error {
	for at := logHeaderSize; at < len(content); {
		e, ok := parseValue(content[at:])
		if ok {
			if err := yield(at, e); err != nil {
				return err
			}
			at += e.size
			continue
		}
		next, err := behindZeros(content, f, at)
		if err != nil {
			return err
		}
		// The first two bytes of an entry may be zero, too.
		start := -1
		for _, back := range []int{2, 1, 0} {
			if next-back < at || next == len(content) {
				continue
			}
			if _, ok := parseValue(content[next-back:]); ok {
				start = next - back
				break
			}
		}
		if start <= at {
			return nil
		}
		at = start
	}
	return nil
}

// behindZeros returns where the first byte stands that is not zero, from a place on, or the length of the content. Without the
// file it looks at every zero.
func behindZeros(content []byte, f *os.File, at int) (int, error) {
	for at < len(content) {
		if f != nil {
			data, err := nextData(f, int64(at), int64(len(content)))
			if err != nil {
				return 0, err
			}
			at = min(int(data), len(content))
		}
		page := content[at:min(at+pageBytes, len(content))]
		for i, b := range page {
			if b != 0 {
				return at + i, nil
			}
		}
		at += len(page)
	}
	return at, nil
}

// readers counts who reads, so that one can wait for all who do at one time. Its zero value is ready.
type readers struct {
	mu      sync.Mutex
	now     *generation   // whom those join who begin now
	earlier []*generation // some of whom may still read
}

// generation are the readers who began between two waits.
type generation struct {
	active int
	closed bool          // nobody joins any more
	gone   chan struct{} // closed when it is closed and none is active
}

func (r *readers) enter() *generation {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		r.now = &generation{gone: make(chan struct{})}
	}
	r.now.active++
	return r.now
}

func (r *readers) leave(g *generation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.active--; g.active == 0 && g.closed {
		close(g.gone)
	}
}

// wait returns when all who read when it was called have ended, or ctx has. One goroutine calls it at a time.
func (r *readers) wait(ctx context.Context) error {
	r.mu.Lock()
	if g := r.now; g != nil {
		r.now = nil
		r.earlier = append(r.earlier, g)
		if g.closed = true; g.active == 0 {
			close(g.gone)
		}
	}
	r.mu.Unlock()
	for len(r.earlier) > 0 {
		select {
		case <-r.earlier[0].gone:
			r.earlier = r.earlier[1:]
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// View is as Badger's own. Who reads for long keeps holes from being made.
func (d *database) View(read func(*badger.Txn) error) error {
	g := d.readers.enter()
	defer d.readers.leave(g)
	return d.DB.View(read)
}
