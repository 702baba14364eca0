package journaltest

import (
	"context"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Lagging holds up updates of an index on demand.
type Lagging struct {
	mu   sync.RWMutex // held for writing, it holds up updates
	held bool         // of the one who calls Hold
}

// Hold holds the index up, or lets it go on. One goroutine at a time calls it. A journal
// cannot be closed while its index is held up.
func (l *Lagging) Hold(held bool) {
	if held && !l.held {
		l.mu.Lock()
	} else if !held && l.held {
		l.mu.Unlock()
	}
	l.held = held
}

// Wrap returns a storage whose index is held up when l is told so.
func (l *Lagging) Wrap(s journal.Storage) journal.Storage {
	s.Index = laggingIndex{s.Index, &l.mu}
	return s
}

type laggingIndex struct {
	journal.IndexStore
	mu *sync.RWMutex
}

// Update implements journal.IndexStore.
func (l laggingIndex) Update(ctx context.Context, pairs []journal.Pair) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.IndexStore.Update(ctx, pairs)
}
