package journaltest

import (
	"context"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Lagging is an engine whose index can be held up.
type Lagging struct {
	journal.Engine

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

// Index implements journal.Engine.
func (l *Lagging) Index() journal.IndexStore { return laggingIndex{l.Engine.Index(), &l.mu} }

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
