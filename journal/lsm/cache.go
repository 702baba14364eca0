package lsm

import (
	"container/list"
	"sync"
)

// cache keeps blocks that keys were looked up in, up to so many bytes. When it is full, those give way that were not asked
// for the longest, but only to what is asked for more than once. What is asked for once, as most is where there are
// many more blocks than fit in, is read into memory that was used just before, which the processor has at hand.
//
// It is for look-ups, and for where a scan begins: what else a scan reads, and all that a merge does, would only
// push out what is asked for again. A nil cache keeps nothing. Its methods may be called concurrently.
type cache struct {
	most int64

	mu     sync.Mutex
	bytes  int64
	blocks map[blockID]*list.Element // of kept
	recent list.List                 // of kept, the latest first
	asked  []blockID                 // once of late, each at the place that its hash says; nil until the cache is full
	hits,
	misses uint64
}

// blockID is a block of a table. While a store is open, no table of it gets the number of another one.
type blockID struct {
	table  uint64
	number int
}

type kept struct {
	id    blockID
	block *block
}

const (
	keptCost  = 200 // bytes, about, beside the block's own
	keptShare = 16  // a block that would take this part of the whole is not kept

	// So many blocks are known as asked for once: of blocks of the least size four for each that there may be, which takes a hundredth
	// of the whole, and 16 MiB at most.
	askedShare = 4
	askedMost  = 1 << 20
)

// newCache returns nil if it may keep nothing.
func newCache(most int64) *cache {
	if most <= 0 {
		return nil
	}
	return &cache{most: most, blocks: map[blockID]*list.Element{}}
}

// read returns a block, which the caller must not change and has to release.
func (c *cache) read(t *table, number int) (*block, error) {
	id := blockID{t.id, number}
	if b := c.get(id); b != nil {
		return b, nil
	}
	b := blocks.Get().(*block)
	if err := t.read(number, b); err != nil {
		b.release()
		return nil, err
	}
	c.put(id, b)
	return b, nil
}

func (c *cache) get(id blockID) *block {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.blocks[id]
	if e == nil {
		c.misses++
		return nil
	}
	c.hits++
	c.recent.MoveToFront(e)
	b := e.Value.(*kept).block
	b.users.Add(1)
	return b
}

// again reports whether a block was asked for before, as far as that is known, and notes that it is now. The caller holds mu.
func (c *cache) again(id blockID) bool {
	if c.asked == nil {
		c.asked = make([]blockID, min(1+c.most/blockCut*askedShare, askedMost))
	}
	at := &c.asked[fold(id.table^hashKey, uint64(id.number)^hashStep)%uint64(len(c.asked))]
	was := *at
	*at = id
	return was == id
}

// put keeps a block that its only user has just read and has no views of yet, if that is worth it.
func (c *cache) put(id blockID, b *block) {
	if c == nil {
		return
	}
	least := b.least() + keptCost
	if least > c.most/keptShare {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blocks[id] != nil { // somebody was faster
		return
	}
	if c.bytes+least > c.most && !c.again(id) {
		return
	}
	b.fit()
	b.users.Store(2) // its reader and the cache
	c.blocks[id] = c.recent.PushFront(&kept{id, b})
	c.bytes += b.size() + keptCost
	for c.bytes > c.most {
		c.drop(c.recent.Back())
	}
}

// drop gives a block up. The caller holds mu.
func (c *cache) drop(e *list.Element) {
	k := c.recent.Remove(e).(*kept)
	delete(c.blocks, k.id)
	c.bytes -= k.block.size() + keptCost
	k.block.release()
}

// forget gives the blocks of a table up that nobody can ask for any more.
func (c *cache) forget(t *table) {
	m := t.loaded.Load()
	if c == nil || m == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range m.places {
		if e := c.blocks[blockID{t.id, i}]; e != nil {
			c.drop(e)
		}
	}
}

// count adds what the cache has and did.
func (c *cache) count(n *Stats) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n.Cached, n.Hits, n.Misses = c.bytes, c.hits, c.misses
}
