package commitlog

import "github.com/bulkhead-wasm/bulkhead/journal"

// completer tells the senders of groups the outcomes of their commits, in order.
type completer struct {
	overlay *overlay
	in      <-chan *group
	out     chan<- *group
}

// run returns when in is closed and empty.
func (c *completer) run() {
	defer close(c.out)
	for g := range c.in {
		for _, p := range g.commits {
			if g.err != nil {
				err := &journal.Error{Op: "append", Log: p.commit.Log, Kind: journal.KindFailed,
					Detail: "nobody knows whether the commit is on disk", Err: g.err}
				p.done(journal.Receipt{}, err)
				for _, w := range p.waiters {
					w(p, err)
				}
				continue
			}
			p.done(p.receipt(), nil)
			for _, w := range p.waiters {
				w(p, nil)
			}
		}
		c.overlay.told(g)
		c.out <- g // even if it is void: the indexer may be waiting for it
	}
}
