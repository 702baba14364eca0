package lsm

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// blockOf makes a block in b as if it had just been read.
func blockOf(b *block, fill byte, n int) *block {
	b.raw = append(b.raw[:0], bytes.Repeat([]byte{fill}, n)...)
	b.at = append(b.at[:0], 0)
	return b
}

// What was not asked for the longest gives way, to what is asked for twice, and nothing is kept beyond the bound.
func TestCacheKeepsWhatIsAskedFor(t *testing.T) {
	const n, size = 32, 1024
	c := newCache(n * (size + 64 + keptCost))
	fresh := func(i int) *block { return blockOf(new(block), byte(i), size) }
	id := func(i int) blockID { return blockID{1, i} }
	there := func(i int) bool {
		b := c.get(id(i))
		b.release()
		return b != nil
	}
	for i := range n - 1 {
		b := fresh(i)
		c.put(id(i), b)
		b.release()
	}
	if !there(0) || !there(1) { // and are the latest now
		t.Fatal("nothing is kept")
	}
	for i := n; i < 2*n-4; i++ {
		full := c.bytes+fresh(i).size()+keptCost > c.most
		for again := range 2 {
			b := fresh(i)
			c.put(id(i), b)
			b.release()
			if kept := c.blocks[id(i)] != nil; kept != (!full || again == 1) {
				t.Fatalf("block %d is kept: %v; full: %v, asked for before: %d", i, kept, full, again)
			}
			if c.bytes > c.most {
				t.Fatalf("%d bytes, %d are allowed", c.bytes, c.most)
			}
		}
	}
	if !there(0) || !there(1) || there(2) || there(3) || len(c.blocks) != c.recent.Len() {
		t.Errorf("blocks 0 and 1 should be there, 2 and 3 not: %v, %v, %v, %v", there(0), there(1), there(2), there(3))
	}
	large := blockOf(new(block), 1, int(c.most)/keptShare)
	c.put(id(1000), large)
	if large.release(); there(1000) {
		t.Error("a block of a large part of the cache was kept")
	}
	var stats Stats
	if c.count(&stats); stats.Cached != c.bytes || stats.Hits == 0 || stats.Misses == 0 {
		t.Errorf("%+v", stats)
	}
}

// Who has a block keeps it although the cache gives it up, and memory of a large block does not stay
// with a small one.
func TestABlockInUseIsNotUsedAgain(t *testing.T) {
	c := newCache(keptShare * (4096 + keptCost))
	mine := blockOf(new(block), 7, 2000)
	mine.raw = append(make([]byte, 0, 1<<20), mine.raw...)
	c.put(blockID{1, 0}, mine)
	if mine.size() > 3000 {
		t.Errorf("a block of 2,000 bytes takes %d", mine.size())
	}
	for i := range 200 {
		for range 2 {
			b := blockOf(blocks.Get().(*block), byte(100+i), 2000) // which may have been another one's
			c.put(blockID{2, i}, b)
			b.release()
		}
	}
	if c.get(blockID{1, 0}) != nil {
		t.Fatal("the block is still kept")
	}
	if !bytes.Equal(mine.raw, bytes.Repeat([]byte{7}, 2000)) {
		t.Error("a block that is in use was written to")
	}
	if n := mine.users.Load(); n != 1 {
		t.Errorf("it has %d users", n)
	}
	mine.release()
}

// Look-ups and scans of several readers are right while blocks come and go, keys change and tables are
// merged. Values name their key, so that a block in the place of another one shows.
func TestReadersOfASmallCache(t *testing.T) {
	ctx := context.Background()
	o := small()
	s := openTest(t, t.TempDir(), o)
	const keys, rounds, readers = 2000, 5, 3
	key := func(i int) string { return fmt.Sprintf("g%02d/%06d", i%50, i) }
	write := func(round int) {
		var pairs []journal.Pair
		for i := range keys {
			pairs = append(pairs, pair(key(i), fmt.Sprintf("%s %d %0200d", key(i), round, i)))
		}
		if err := s.Update(ctx, pairs); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	check := func(k, v []byte) error {
		var said string
		if _, err := fmt.Sscanf(string(v), "%s", &said); err != nil || said != string(k) {
			return fmt.Errorf("%s has the value %.40q, %v", k, v, err)
		}
		return nil
	}
	done := make(chan struct{})
	var all sync.WaitGroup
	for r := range readers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(r)))
			for {
				select {
				case <-done:
					return
				default:
				}
				k := []byte(key(rng.IntN(keys)))
				v, ok, err := s.Get(ctx, k)
				if err == nil && !ok {
					err = fmt.Errorf("%s is missing", k)
				}
				if err == nil {
					err = check(k, v)
				}
				if err == nil {
					err = s.Scan(ctx, k[:4], k, check)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for round := range rounds {
		write(round + 1)
	}
	if err := s.Compact(ctx); err != nil {
		t.Error(err)
	}
	seen := func() bool { n := s.Stats(); return n.Hits > 100 && n.Misses > 100 && n.Cached <= o.CacheBytes }
	for !seen() && !t.Failed() {
		if _, _, err := s.Get(ctx, []byte(key(int(s.Stats().Hits)%keys))); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	all.Wait()
	for i := range keys {
		if v, _, err := s.Get(ctx, []byte(key(i))); err != nil || string(v) != fmt.Sprintf("%s %d %0200d", key(i), rounds, i) {
			t.Fatalf("%s is %.40q, %v", key(i), v, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Without a cache nothing is kept.
func TestNoCache(t *testing.T) {
	o := small()
	o.CacheBytes = -1
	s := openTest(t, t.TempDir(), o)
	fillTest(t, s, 5000, 0)
	for i := range 100 {
		if _, ok, err := s.Get(context.Background(), fmt.Appendf(nil, "g%02d/%06d", i%50, i)); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	if n := s.Stats(); n.Cached != 0 || n.Hits != 0 || n.Misses != 0 {
		t.Errorf("%+v", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
