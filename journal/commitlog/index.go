package commitlog

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// indexBlock appends the index entries of one block to pairs and counts its events in types; for from see
// typeCounter.count. The Checkpoint comes last, so a split update never claims more than it did. next is the position
// of the log's next event.
func indexBlock(
	pairs []journal.Pair, block journal.Block, types *typeCounter, from uint64,
) (_ []journal.Pair, next journal.Position, err error) {
	next = block.First
	x := entries{pairs: pairs}
	types.block = types.block[:0]
	var kept format.KeptTypes
	err = format.EachRecord(block, func(h *format.BatchHeader, ordinal int, first journal.Position,
		c *format.DecodedCommit) error {
		if x.room == nil {
			x.expect(h.Records)
		}
		for i := range c.Events {
			e := c.Event(h, first, i)
			x.event(&e)
			types.block = append(types.block, e.Type)
		}
		x.answer(h.Log, c.Command.ID, format.Place{First: h.First, Sequence: h.Sequence, Ordinal: uint64(ordinal),
			Time: h.Time})
		next = first + journal.Position(len(c.Events))
		return nil
	}, func(h *format.BatchHeader, r format.BaseRecord) error {
		switch {
		case r.Base != nil:
			x.pairs = append(x.pairs, journal.Pair{Key: format.FloorKey(h.Log, r.Base.Key, h.Sequence),
				Value: format.SealFloor(r.Base)})
		case r.Kept != nil:
			x.pairs = append(x.pairs, journal.Pair{Key: format.KeptKey(r.Kept, h.Sequence),
				Value: format.EncodeIndexEvent(r.Kept)})
			kept.Add(r.Kept)
		default:
			x.pairs = append(x.pairs, journal.Pair{Key: format.TrimKey(h.Log), Value: format.SealTrim(r.Cut)})
		}
		return nil
	})
	if err == nil {
		x.pairs = kept.Pairs(x.pairs, block)
	}
	if err == nil {
		err = types.countBlock(block, from)
	}
	if err == nil {
		x.checkpoint(block.Log, format.Checkpoint{Sequence: block.Sequence, Next: next})
	}
	return x.pairs, next, err
}

// indexGroup does the same for what the committer has just written, from the commits in memory: nothing is read,
// checked or unpacked again.
func indexGroup(pairs []journal.Pair, g *group, types *typeCounter) (_ []journal.Pair, err error) {
	const room = 256 << 10 // bytes of records for which room is made at a time
	x := entries{pairs: pairs}
	var work yield.Work
	left, expected := g.bytes, 0
	for _, p := range g.commits {
		size := p.size
		if expected < size {
			expected = max(size, min(left, room))
			x.expect(expected)
		}
		for i := range p.commit.Events {
			e := p.event(i)
			x.event(&e)
			if err := types.count(e.Log, p.log.counted, e.Type, e.Position); err != nil {
				return x.pairs, err
			}
		}
		x.answer(p.log.name, p.commit.Command.ID, p.place)
		expected -= size
		left -= size
		work.Did(size)
	}
	for i, b := range g.blocks[:len(g.ends)] {
		x.checkpoint(b.Log, format.Checkpoint{Sequence: b.Sequence, Next: g.ends[i]})
	}
	for _, b := range g.blocks[len(g.ends):] {
		if x.pairs, _, err = indexBlock(x.pairs, b, types, 0); err != nil { // a base batch: it has no events
			break
		}
	}
	return x.pairs, err
}

// entries collects a log's index entries. Keys and values are in large pieces of memory; room is the last piece.
type entries struct {
	pairs []journal.Pair
	room  []byte
}

// expect makes room for the entries of records of so many bytes.
func (x *entries) expect(records int) { x.room = yield.Uncleared(records + records/4) }

// fit makes room for an entry of so many bytes, plus its numbers and lengths, if the guess was too low.
func (x *entries) fit(bytes int) {
	const numbers, least = 128, 4 << 10
	if cap(x.room)-len(x.room) < bytes+numbers {
		x.room = yield.Uncleared(max(bytes+numbers, least))
	}
}

// event adds the entry of an event.
func (x *entries) event(e *journal.Event) {
	x.fit(len(e.Log) + len(e.Key) + len(e.Type) + len(e.ContentType) + len(e.CommandID) + len(e.CommandType) +
		len(e.Metadata) + len(e.Data))
	start := len(x.room)
	x.room = binary.BigEndian.AppendUint64(format.AppendEntityPrefix(x.room, e.Log, e.Key), uint64(e.Version))
	end := len(x.room)
	x.room = format.AppendIndexEvent(x.room, e)
	x.pair(start, end)
}

// answer adds the entry from a command's id to the place of its commit.
func (x *entries) answer(log journal.LogName, id journal.CommandID, at format.Place) {
	x.fit(len(log) + len(id))
	start := len(x.room)
	x.room = format.AppendAnswerKey(x.room, log, id, at.Time)
	end := len(x.room)
	x.room = format.AppendPlace(x.room, at)
	x.pair(start, end)
}

func (x *entries) pair(key, end int) {
	x.pairs = append(x.pairs, journal.Pair{Key: x.room[key:end:end], Value: x.room[end:len(x.room):len(x.room)]})
}

func (x *entries) checkpoint(log journal.LogName, c format.Checkpoint) {
	x.pairs = append(x.pairs, journal.Pair{Key: format.CheckpointKey(log), Value: format.EncodeCheckpoint(c)})
}

// sortPairs sorts the events, answers and counts of types by key; a tree takes sorted entries in a fraction of the
// time. Checkpoints and snapshots rest on these, so they come after them, in unchanged order. Of several uses of a
// command id only the last is kept; no other key occurs twice.
func sortPairs(pairs []journal.Pair) []journal.Pair {
	entry := func(p *journal.Pair) bool { return p.Key[0] == 'e' || p.Key[0] == 'a' || p.Key[0] == 'y' }
	entries := pairs[:0]
	var rest []journal.Pair
	for i := range pairs {
		if entry(&pairs[i]) {
			entries = append(entries, pairs[i])
		} else {
			rest = append(rest, pairs[i])
		}
	}
	twice := false
	slices.SortFunc(entries, func(a, b journal.Pair) int {
		order := bytes.Compare(a.Key, b.Key)
		if order == 0 && a.Key[0] == 'a' {
			twice = true
			order = laterPlace(a.Value, b.Value)
		}
		return order
	})
	if twice {
		entries = slices.CompactFunc(entries, func(a, b journal.Pair) bool { return bytes.Equal(a.Key, b.Key) })
	}
	return append(entries, rest...)
}

// laterPlace compares two places; the later one sorts first.
func laterPlace(a, b []byte) int {
	x, _ := format.DecodePlace(a)
	y, _ := format.DecodePlace(b)
	return cmp.Or(cmp.Compare(y.Sequence, x.Sequence), cmp.Compare(y.Ordinal, x.Ordinal))
}

// pairsAtOnce is about how many entries go into one update of the index.
const pairsAtOnce = 8192

// completeIndex indexes what the log has beyond the index's checkpoints. progress,
// if not nil, is told how many blocks are done.
//
// The index is only ever written after the log. So if it has a batch that the log lacks, the log has lost acknowledged
// batches, or was replaced by an older copy. That is damage, and nothing may be written to that log until an operator
// has decided (and, if so, called Rebuild). Damage of logs is recorded in damaged, and the other logs are completed.
//
// Damage of the index is an error, a [format.IndexDamage].
func completeIndex(ctx context.Context, storage journal.Storage, progress func(blocks uint64), damaged damages) error {
	storage = watched(storage)
	if err := checkLayout(ctx, storage.Index); err != nil {
		return err
	}
	c := tailIndexer{storage: storage, progress: progress, heads: storage.KnownHeads(),
		types: newTypeCounter(ctx, storage.Index)}
	logs, err := storage.Log.Logs(ctx)
	if err != nil {
		return err
	}
	for _, log := range logs {
		if err := damaged.add(log, c.log(ctx, log)); err != nil {
			return err
		}
	}
	prefix := []byte{'c'}
	err = storage.Index.Scan(ctx, prefix, prefix, func(key, value []byte) error {
		if log := format.CheckpointLog(key); log != "" && !slices.Contains(logs, log) {
			at, whole := format.DecodeCheckpoint(value)
			if !whole {
				return format.DamagedIndex(log, "the checkpoint is damaged")
			}
			return damaged.add(log, lostTail(log, at.Sequence, at.Next-1, 0))
		}
		return nil
	})
	for log, head := range c.heads {
		if err == nil && !slices.Contains(logs, log) {
			err = damaged.add(log, lostTail(log, head.Sequence, head.First, 0))
		}
	}
	return err
}

// checkLayout clears an index of another layout.
func checkLayout(ctx context.Context, index journal.IndexStore) error {
	layout, ok, err := index.Get(ctx, format.LayoutKey)
	if err != nil || ok && len(layout) == 1 && layout[0] == format.IndexLayout {
		return err
	}
	if err := index.Clear(ctx); err != nil {
		return err
	}
	return index.Update(ctx, []journal.Pair{{Key: format.LayoutKey, Value: []byte{format.IndexLayout}}})
}

// tailIndexer completes the index, one log after the other.
type tailIndexer struct {
	storage  journal.Storage
	progress func(blocks uint64)
	heads    map[journal.LogName]journal.Head
	blocks   uint64
	pairs    []journal.Pair
	types    *typeCounter
}

func (c *tailIndexer) log(ctx context.Context, log journal.LogName) error {
	var at format.Checkpoint // how far the log is indexed; zero is the beginning
	value, ok, err := c.storage.Index.Get(ctx, format.CheckpointKey(log))
	if err != nil {
		return err
	}
	if ok {
		if at, ok = format.DecodeCheckpoint(value); !ok {
			return format.DamagedIndex(log, "the checkpoint is damaged")
		}
	}
	was := at
	trimmed, err := stored.TrimOf(ctx, c.storage.Index, log)
	if err != nil {
		return err
	}
	from := trimmed.Sequence // for new entries of the event catalogue
	count, err := newCounter(ctx, c.storage.Index, log, at.Sequence)
	if err != nil {
		return err
	}
	var last, missing uint64 // missing: how many batches are missing at the beginning
	err = c.storage.Log.Blocks(ctx, log, at.Next, func(b journal.Block) error {
		last = b.Sequence
		if b.Sequence <= at.Sequence {
			return nil
		}
		if b.Sequence > at.Sequence+1 {
			// A retention may have deleted what comes before the log's first batch; a later batch says so.
			first, err := stored.FirstSequence(ctx, c.storage.Log, log)
			if err != nil {
				return err
			}
			if first == b.Sequence {
				missing, at, from = b.Sequence-1, format.Checkpoint{Sequence: b.Sequence - 1, Next: b.First}, b.Sequence
			}
		}
		if b.Sequence != at.Sequence+1 || at.Sequence > 0 && b.First != at.Next {
			return journal.Errorf(journal.KindCorrupt, "open", log, "batch %d at position %d follows on batch %d, "+
				"which ends before position %d: a part of the log is missing",
				b.Sequence, b.First, at.Sequence, at.Next)
		}
		whole := len(c.pairs)
		var err error
		if c.pairs, at.Next, err = indexBlock(c.pairs, b, c.types, from); err != nil {
			c.pairs = c.pairs[:whole]
			return err
		}
		at.Sequence = b.Sequence
		count.add(b, at.Next)
		c.blocks++
		if c.progress != nil {
			c.progress(c.blocks)
		}
		if len(c.pairs) >= pairsAtOnce {
			return c.flush(ctx)
		}
		return nil
	})
	// What comes before the damage is indexed all the same.
	if flushed := c.flush(ctx); flushed != nil {
		return flushed
	}
	if head := c.heads[log]; err == nil && last < head.Sequence {
		err = lostTail(log, head.Sequence, head.First, last)
	}
	if err == nil && last < was.Sequence {
		err = lostTail(log, was.Sequence, was.Next-1, last)
	}
	if err != nil {
		return err
	}
	if trimmed, err = stored.TrimOf(ctx, c.storage.Index, log); err != nil {
		return err
	}
	if missing >= max(trimmed.Sequence, 1) {
		return lostStart(log, missing)
	}
	if err := settleTypes(ctx, c.storage, log, trimmed, at.Sequence); err != nil {
		return err
	}
	if err := trim(ctx, c.storage, log, trimmed, func(f func() error) error { return f() }); err != nil {
		return err
	}
	return count.settle(ctx, c.storage.Index, log, trimmed.Sequence)
}

func lostStart(log journal.LogName, missing uint64) error {
	return journal.Errorf(journal.KindCorrupt, "open", log, "the first %d batches are missing, and no retention has "+
		"deleted them",
		missing)
}

func lostTail(log journal.LogName, known uint64, position journal.Position, last uint64) error {
	return journal.Errorf(journal.KindCorrupt, "open", log, "there was a batch %d, at position %d, but the log ends "+
		"with batch %d: "+
		"it lost its end, or an older copy is in its place; rebuilding the index accepts the log as it is",
		known, position, last)
}

func (c *tailIndexer) flush(ctx context.Context) error {
	c.pairs = c.types.take(c.pairs)
	if len(c.pairs) == 0 {
		return nil
	}
	c.pairs = sortPairs(c.pairs)
	err := c.storage.Index.Update(ctx, c.pairs)
	clear(c.pairs)
	c.pairs = c.pairs[:0]
	return err
}

// Reset clears the index and makes the storage forget how far logs had come: what they have now counts as complete. No
// journal may be open on the storage. The next Open does the rest of the work of Rebuild.
func Reset(ctx context.Context, storage journal.Storage) error {
	err := storage.Index.Clear(ctx)
	if err == nil && storage.Heads != nil {
		err = storage.Heads.ForgetHeads()
	}
	if err != nil {
		return &journal.Error{Op: "rebuild", Kind: stored.StorageKind(err), Err: err}
	}
	return nil
}

// Rebuild builds the index again from the log alone. No journal may be open on the storage. progress, if not nil, is
// told how many batches are done.
//
// The result is identical byte for byte, except for snapshots: only modules can create those, so they are dropped,
// entities are hydrated from their events, and new snapshots are taken.
func Rebuild(ctx context.Context, storage journal.Storage, progress func(batches uint64)) error {
	if err := Reset(ctx, storage); err != nil {
		return err
	}
	damaged := damages{}
	if err := completeIndex(ctx, storage, progress, damaged); err != nil {
		return &journal.Error{Op: "rebuild", Kind: stored.StorageKind(err), Err: err}
	}
	for _, log := range slices.Sorted(maps.Keys(damaged)) {
		return &journal.Error{Op: "rebuild", Log: log, Kind: journal.KindCorrupt, Err: damaged[log]}
	}
	return nil
}
