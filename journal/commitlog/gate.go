package commitlog

import (
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// gate admits readers until it is closed, and closes only after the last has left: a storage must not be closed during
// a scan. Its zero value is open.
type gate struct {
	mu     sync.Mutex // guards the fields below; nothing is called under it
	inside int
	closed bool
	empty  chan struct{} // made by close, closed when nobody is inside; nil before
}

// enter admits a reader, which has to leave again, or refuses with KindClosed. A reader inside may enter again.
func (g *gate) enter(op string, log journal.LogName) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return journal.Errorf(journal.KindClosed, op, log, "the journal was closed")
	}
	g.inside++
	return nil
}

// check refuses like enter, but admits nobody.
func (g *gate) check(op string, log journal.LogName) error {
	if err := g.enter(op, log); err != nil {
		return err
	}
	g.leave()
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.closed {
		close(g.empty)
	}
}

// close refuses all later readers and waits for those inside. It may be called again.
func (g *gate) close() {
	g.mu.Lock()
	if !g.closed {
		g.closed, g.empty = true, make(chan struct{})
		if g.inside == 0 {
			close(g.empty)
		}
	}
	empty := g.empty
	g.mu.Unlock()
	<-empty
}
