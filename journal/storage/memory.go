package storage

import (
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal/badgerlog"
	"github.com/bulkhead-wasm/bulkhead/journal/pebbleindex"
)

// Memory is where a storage takes the memory of its stores from. Its methods may be called concurrently.
type Memory interface {
	// Take takes so many bytes for the log and so many for the index, or nothing, and then says why.
	Take(log, index int64) error
	// Give gives back so many of the bytes that were taken.
	Give(bytes int64)
}

// lease is what a storage holds of the memory. The memory of a store that could not be closed is never given back: it
// is in use until the process ends.
type lease struct {
	from       Memory
	log, index int64 // bytes that each store may take

	mu        sync.Mutex // guards what follows
	held      int64
	lostLog   bool
	lostIndex bool // the one that was opened last
}

// takeMemory takes the memory of log and index at once, so that an error says all that is needed.
func (d *directory) takeMemory() error {
	l := &d.memory
	l.log = badgerlog.MemoryOf(d.dir, d.logOptions())
	l.index = pebbleindex.MemoryOf(d.indexOptions())
	if l.from = d.options.Memory; l.from == nil {
		l.from = endless{}
	}
	if err := l.from.Take(l.log, l.index); err != nil {
		return err
	}
	l.held = l.log + l.index
	return nil
}

// again takes memory for an index that is opened after one whose memory is lost.
func (l *lease) again() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lostIndex {
		return nil
	}
	if err := l.from.Take(0, l.index); err != nil {
		return err
	}
	l.held += l.index
	l.lostIndex = false
	return nil
}

// loseLog notes that the log could not be closed.
func (l *lease) loseLog() { l.lose(&l.lostLog, l.log) }

// loseIndex notes that a database of the index could not be closed.
func (l *lease) loseIndex() { l.lose(&l.lostIndex, l.index) }

func (l *lease) lose(lost *bool, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !*lost {
		*lost = true
		l.held -= bytes
	}
}

// end gives back what is not lost.
func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held > 0 {
		l.from.Give(l.held)
		l.held = 0
	}
}

// endless is the memory of a storage that nobody bounds.
type endless struct{}

// Take implements [Memory].
func (endless) Take(_, _ int64) error { return nil }

// Give implements [Memory].
func (endless) Give(int64) {}
