package commitlog

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// typeCounter adds events to the catalogue, update by update. One goroutine uses it.
type typeCounter struct {
	ctx     context.Context
	index   journal.IndexStore
	held    map[typeID]*heldType // lately used, and all that changed
	changed []*heldType
	latest  *heldType // the last one that was counted, as many are of the same type
	block   []string  // the types of a block's events, which count once it is whole
}

type typeID struct {
	log  journal.LogName
	name string
}

// heldType is an entry in memory.
type heldType struct {
	format.TypeEntry
	id      typeID
	changed bool // it is not in the index as it is here
}

// typesHeld bounds the entries that a typeCounter keeps from one update to the next.
const typesHeld = 4096

func newTypeCounter(ctx context.Context, index journal.IndexStore) *typeCounter {
	return &typeCounter{ctx: ctx, index: index, held: map[typeID]*heldType{}}
}

// count counts an event. The first one of its type makes an entry from the batch from on.
func (t *typeCounter) count(log journal.LogName, from uint64, name string, at journal.Position) error {
	h := t.latest
	if h == nil || h.id.name != name || h.id.log != log {
		var err error
		if h, err = t.get(typeID{log, name}, from); err != nil {
			return err
		}
		t.latest = h
	}
	if at <= h.Last {
		return nil // an update before a crash has counted it
	}
	h.Add(at)
	if !h.changed {
		h.changed = true
		t.changed = append(t.changed, h)
	}
	return nil
}

func (t *typeCounter) get(id typeID, from uint64) (*heldType, error) {
	if h := t.held[id]; h != nil {
		return h, nil
	}
	h := &heldType{id: id, TypeEntry: format.TypeEntry{From: from}}
	value, ok, err := t.index.Get(t.ctx, format.TypeKey(id.log, id.name))
	if err != nil {
		return nil, err
	}
	if ok {
		if h.TypeEntry, ok = format.DecodeTypeEntry(value); !ok {
			return nil, damagedTypes(id.log, "an entry of the event catalogue is damaged")
		}
	}
	t.held[id] = h
	return h, nil
}

// countBlock counts the events of a block, whose types are in t.block.
func (t *typeCounter) countBlock(b journal.Block, from uint64) error {
	for i, name := range t.block {
		if err := t.count(b.Log, from, name, b.First+journal.Position(i)); err != nil {
			return err
		}
	}
	return nil
}

// take appends the entries that changed, which go into one update with what was counted, or
// an earlier one.
func (t *typeCounter) take(pairs []journal.Pair) []journal.Pair {
	for _, h := range t.changed {
		pairs = append(pairs, journal.Pair{Key: format.TypeKey(h.id.log, h.id.name),
			Value: format.EncodeTypeEntry(&h.TypeEntry)})
		h.changed = false
	}
	clear(t.changed)
	t.changed = t.changed[:0]
	if len(t.held) > typesHeld {
		t.forget()
	}
	return pairs
}

// forget gives up what the index has as well.
func (t *typeCounter) forget() {
	clear(t.held)
	t.latest = nil
}
