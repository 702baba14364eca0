package pebbleindex

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// counts has how many keys there are of each number; see [Counted]. Each table has those of its own keys as a
// property, so that opening a store reads no more than that. A key that is written a second time is counted twice
// until both are compacted and the store is opened again.
type counts struct {
	of Counted

	mu sync.Mutex
	n  map[uint32]int64
}

// update counts pairs that were written.
func (c *counts) update(pairs []journal.Pair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range pairs {
		if number, ok := c.of.Of(pairs[i].Key); ok {
			c.n[number]++
		}
	}
}

// removed counts keys that were there and are deleted.
func (c *counts) removed(keys [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		if number, ok := c.of.Of(key); ok {
			c.n[number]--
		}
	}
}

// removedRange takes out all numbers whose keys are all in a range.
func (c *counts) removedRange(from, to []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.n, func(number uint32, _ int64) bool {
		prefix := c.of.Prefix(number)
		end := behind(prefix)
		return bytes.Compare(from, prefix) <= 0 && end != nil && bytes.Compare(end, to) <= 0
	})
}

func (c *counts) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n = map[uint32]int64{}
}

func (c *counts) sum() (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.n {
		n += max(k, 0)
	}
	return n
}

// load takes the counts from the tables of an instance. has says whether there is a key with a prefix: keys that a
// range was deleted of are still in their tables.
func (c *counts) load(db *pebble.DB, has func(prefix []byte) (bool, error)) error {
	if c.of.Prefix == nil {
		return nil // nothing is counted
	}
	levels, err := db.SSTables(pebble.WithProperties())
	if err != nil {
		return err
	}
	n := map[uint32]int64{}
	for _, level := range levels {
		for _, t := range level {
			if t.Properties == nil {
				continue
			}
			if value := t.Properties.UserProperties[collectorName]; len(value) > 1 && !addCounts(n, []byte(value[1:])) {
				return damaged("open", "the count of a table", errors.New(t.FileNum.String()))
			}
		}
	}
	for number := range n {
		there, err := has(c.of.Prefix(number))
		if err != nil {
			return err
		}
		if !there {
			delete(n, number)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n = n
	return nil
}

// addCounts adds what a property says: pairs of a number and a count, as uvarint and varint. It is total.
func addCounts(n map[uint32]int64, b []byte) bool {
	for len(b) > 0 {
		number, a := binary.Uvarint(b)
		if a <= 0 || number > 1<<32-1 {
			return false
		}
		count, k := binary.Varint(b[a:])
		if k <= 0 {
			return false
		}
		n[uint32(number)] += count
		b = b[a+k:]
	}
	return true
}

// collectorName is in the files.
const collectorName = "bulkhead.counts"

// collector counts the keys of a table that is written. Pebble calls it on the goroutine of a flush or a compaction,
// which has no other place to yield the processor. Without that, commands wait behind it for up to ten milliseconds.
type collector struct {
	of   func(key []byte) (uint32, bool)
	n    map[uint32]int64
	work yield.Work
}

var _ pebble.BlockPropertyCollector = (*collector)(nil)

func (c *collector) Name() string { return collectorName }

func (c *collector) AddPointKey(key sstable.InternalKey, value []byte) error {
	// A byte of a table costs more than a byte that is copied, so steps are an eighth of yield.Step.
	c.work.Did(8 * (len(key.UserKey) + len(value)))
	number, ok := c.of(key.UserKey)
	if !ok {
		return nil
	}
	if c.n == nil {
		c.n = map[uint32]int64{}
	}
	switch key.Kind() {
	case pebble.InternalKeyKindDelete, pebble.InternalKeyKindSingleDelete, pebble.InternalKeyKindDeleteSized:
		c.n[number]--
	case pebble.InternalKeyKindSet, pebble.InternalKeyKindSetWithDelete:
		c.n[number]++
	}
	return nil
}

func (c *collector) AddRangeKeys(sstable.Span) error { return nil }

func (c *collector) AddCollectedWithSuffixReplacement([]byte, []byte, []byte) error {
	return errors.New("suffixes are not replaced")
}

func (c *collector) SupportsSuffixReplacement() bool { return false }

// The property is one of tables and not of blocks.

func (c *collector) FinishDataBlock(b []byte) ([]byte, error)  { return b, nil }
func (c *collector) AddPrevDataBlockToIndexBlock()             {}
func (c *collector) FinishIndexBlock(b []byte) ([]byte, error) { return b, nil }

func (c *collector) FinishTable(b []byte) ([]byte, error) {
	for _, number := range slices.Sorted(maps.Keys(c.n)) {
		b = binary.AppendVarint(binary.AppendUvarint(b, uint64(number)), c.n[number])
	}
	return b, nil
}
