package lsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

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
	stop := sync.OnceFunc(func() { close(done); all.Wait() })
	defer stop()
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
	stop()
	for i := range keys {
		if v, _, err := s.Get(ctx, []byte(key(i))); err != nil || string(v) != fmt.Sprintf("%s %d %0200d", key(i), rounds, i) {
			t.Fatalf("%s is %.40q, %v", key(i), v, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// cached is a store with a table whose blocks are in its cache, all of them, and the keys.
func cached(t *testing.T, dir string, o Options) (s *Store, keys [][]byte) {
	t.Helper()
	ctx := context.Background()
	s = openTest(t, dir, o)
	fillTest(t, s, 5000, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, o)
	err := s.Scan(ctx, []byte("g"), nil, func(k, _ []byte) error {
		keys = append(keys, bytes.Clone(k))
		return nil
	})
	if err != nil || len(keys) != 5000 {
		t.Fatal(len(keys), err)
	}
	for _, k := range keys {
		if _, ok, err := s.Get(ctx, k); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	return s, keys
}

// roomy is a store that merges only when it is told to, and whose cache holds all that tests write.
func roomy() Options { return Options{Group: testGroup, quiet: time.Hour} }

// What a caller appends to what a scan yields does not get into blocks that others see.
func TestAppendingToWhatAScanYields(t *testing.T) {
	ctx := context.Background()
	s, keys := cached(t, t.TempDir(), roomy())
	defer s.Close()
	hits := s.Stats().Hits
	err := s.Scan(ctx, keys[0][:4], nil, func(k, v []byte) error {
		_, _ = append(k, "xxxxxxxx"...), append(v, "xxxxxxxx"...)
		return nil
	})
	if err != nil || s.Stats().Hits == hits {
		t.Fatal("no block was in the cache", err)
	}
	for i, k := range keys {
		if v, ok, err := s.Get(ctx, k); err != nil || !ok || !bytes.HasPrefix(v, []byte("value ")) {
			t.Fatalf("key %d: %q, %v, %v", i, v, ok, err)
		}
	}
}

// Blocks of tables that were merged, or cleared away, do not stay.
func TestTheCacheForgetsTablesThatAreGone(t *testing.T) {
	ctx := context.Background()
	s, keys := cached(t, t.TempDir(), roomy())
	defer s.Close()
	if s.Stats().Cached == 0 {
		t.Fatal("nothing is kept")
	}
	fillTest(t, s, 100, 1)
	if err := s.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats(); n.Cached != 0 || len(s.cache.blocks) != 0 {
		t.Errorf("%d blocks of %d bytes are left of tables that were merged", len(s.cache.blocks), n.Cached)
	}
	if _, ok, err := s.Get(ctx, keys[0]); err != nil || !ok || s.Stats().Cached == 0 {
		t.Fatal(ok, err)
	}
	if err := s.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats(); n.Cached != 0 {
		t.Errorf("%d bytes are left of what was cleared", n.Cached)
	}
}

// A check reads what is on the disk, also where the cache has the block from before it was damaged.
func TestCheckReadsTheDisk(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s, keys := cached(t, dir, roomy())
	tables, err := filepath.Glob(filepath.Join(dir, "*"+tableExt))
	if err != nil || len(tables) != 1 {
		t.Fatal(tables, err)
	}
	f, err := os.OpenFile(tables[0], os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("damage"), 10)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Get(ctx, keys[0]); err != nil || !ok {
		t.Errorf("the block is in memory: %v, %v", ok, err)
	}
	if err := s.Check(ctx); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("check: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(dir, roomy()); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("it is opened again: %v", err)
	}
}

// However large a cache may become, it takes memory as it is used.
func TestALargeCacheBeginsSmall(t *testing.T) {
	c := newCache(1 << 62)
	for range 2 {
		b := blockOf(new(block), 1, 1000)
		c.put(blockID{1, 1}, b)
		b.release()
	}
	if c.bytes > 2000 || c.asked != nil {
		t.Errorf("%d bytes for a block, %d places for what is asked for", c.bytes, len(c.asked))
	}
	c.again(blockID{1, 2})
	if n := len(c.asked); n != askedMost {
		t.Errorf("%d blocks are known as asked for", n)
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
