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
	asked  []blockID                 // once of late, each at the place that its hash says
	hits,
	misses uint64
}

// blockID is a block of a table. A store never gives a table the number of another one.
type blockID struct {
	table  uint64
	number int
}

type kept struct {
	id    blockID
	block *block
}

const (
	keptCost  = 250 // bytes, about, beside the block's own, and for what is asked for once
	keptShare = 16  // a block that would take this part of the whole is not kept

	askedShare = 4 // so many blocks are known as asked for once for each that there may be
)

// newCache returns nil if it may keep nothing.
func newCache(most int64) *cache {
	if most <= 0 {
		return nil
	}
	return &cache{most: most, blocks: map[blockID]*list.Element{}, asked: make([]blockID, 1+most/blockCut*askedShare)}
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
	b.fit()
	cost := b.size() + keptCost
	if cost > c.most/keptShare {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blocks[id] != nil { // somebody was faster
		return
	}
	if c.bytes+cost > c.most && !c.again(id) {
		return
	}
	b.users.Store(2) // its reader and the cache
	c.blocks[id] = c.recent.PushFront(&kept{id, b})
	c.bytes += cost
	for c.bytes > c.most {
		last := c.recent.Remove(c.recent.Back()).(*kept)
		delete(c.blocks, last.id)
		c.bytes -= last.block.size() + keptCost
		last.block.release()
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
