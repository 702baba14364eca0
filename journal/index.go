package journal

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// Keys of the index. Everything in it is derived from the log, so its layout may
// change between releases; a changed layout means a new indexLayout, and Open makes
// the index anew.
//
//	'e' log key u64 version   an event of an entity: position, times, stamp, fields
//	'a' u32 day log command id
//	                          where the command's commit stands; see answers.go
//	'a' u32 day u16 0         for how long the answers of the day were promised. It may be missing
//	'c' log                   checkpoint: how far the log is indexed
//	's' log key               the latest snapshot of an entity; see snapshot.go
//	'f' log key u64 sequence  what a base batch keeps of an entity; see base.go
//	'k' log key u64 sequence u64 version
//	                          an event that a base batch keeps of an entity; see kept.go
//	'z' log type u64 sequence events of a type that a base batch keeps
//	't' log                   the latest retention's cut
//	'y' log type              events of a type that the log has; see catalogue.go
//	'b' log                   bytes of the log's batches; see bytes.go. It may be missing
//	'v'                       layout
//
// log and key carry a u16 length, big-endian like all numbers in keys, so that
// byte order is the order of versions and no name is a prefix of another. Values
// start with a CRC-32C of the rest.
const indexLayout = 6

func indexPrefix(kind byte, log LogName) []byte {
	return appendIndexPrefix(make([]byte, 0, 32+len(log)), kind, log)
}

func appendIndexPrefix(b []byte, kind byte, log LogName) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(log)))
	return append(b, log...)
}

func entityPrefix(log LogName, key string) []byte {
	return appendEntityPrefix(make([]byte, 0, 32+len(log)+len(key)), log, key)
}

func appendEntityPrefix(b []byte, log LogName, key string) []byte {
	b = appendIndexPrefix(b, 'e', log)
	b = binary.BigEndian.AppendUint16(b, uint16(len(key)))
	return append(b, key...)
}

func entityKey(prefix []byte, v Version) []byte {
	return binary.BigEndian.AppendUint64(prefix[:len(prefix):len(prefix)], uint64(v))
}

func entityVersion(prefix, key []byte) (Version, bool) {
	if len(key) != len(prefix)+8 {
		return 0, false
	}
	return Version(binary.BigEndian.Uint64(key[len(prefix):])), true
}

// IndexGroup is the length of the beginning of a key, or of a prefix of a scan, of the index that all
// entries have in common which are read together: the events of an entity, and what retentions
// left of it. It is 0 if there is no such beginning. A store that knows which groups are where has
// less to look into. It is total.
func IndexGroup(key []byte) int {
	if len(key) < 3 || key[0] != 'e' && key[0] != 'f' {
		return 0
	}
	at := 3 + int(binary.BigEndian.Uint16(key[1:]))
	if len(key) < at+2 {
		return 0
	}
	if at += 2 + int(binary.BigEndian.Uint16(key[at:])); len(key) < at {
		return 0
	}
	return at
}

func checkpointKey(log LogName) []byte { return indexPrefix('c', log) }

// checkpointLog is the log of a checkpoint's key, empty if the key is not one.
func checkpointLog(key []byte) LogName {
	if len(key) < 3 || key[0] != 'c' || int(binary.BigEndian.Uint16(key[1:])) != len(key)-3 {
		return ""
	}
	return LogName(key[3:])
}

var layoutKey = []byte{'v'}

// sealValue puts the checksum in front of a value built behind four free bytes.
func sealValue(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

func openValue(b []byte) (reader, bool) {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return reader{}, false
	}
	return reader{b: b[4:]}, true
}

func encodeIndexEvent(e *Event) []byte { return appendIndexEvent(nil, e) }

func appendIndexEvent(b []byte, e *Event) []byte {
	out := appendEventValue(append(b, 0, 0, 0, 0), e)
	sealValue(out[len(b):])
	return out
}

// appendEventValue encodes an event without log, key and version, as it stands in records of kept events, too.
func appendEventValue(b []byte, e *Event) []byte {
	w := writer{b}
	w.u64(uint64(e.Position))
	w.u64(uint64(e.Time))
	w.u64(uint64(e.CommandTime))
	w.b = append(w.b, e.Stamp[:]...)
	w.uint(e.CommandFuel)
	w.str(e.Type)
	w.str(e.ContentType)
	w.str(string(e.CommandID))
	w.str(e.CommandType)
	w.bytes(e.Metadata)
	w.bytes(e.Data)
	return w.b
}

// decodeIndexEvent fills in what the value says; the slices are views.
func decodeIndexEvent(b []byte, e *Event, t *texts) bool {
	r, ok := openValue(b)
	return ok && readEventValue(&r, e, t) && len(r.b) == 0
}

func readEventValue(r *reader, e *Event, t *texts) bool {
	e.Position, e.Time, e.CommandTime = Position(r.u64()), UnixNano(r.u64()), UnixNano(r.u64())
	r.fill(e.Stamp[:])
	e.CommandFuel = r.uint()
	e.Type, e.ContentType = t.types.str(r.bytes()), t.types.str(r.bytes())
	e.CommandID, e.CommandType = t.id(r.bytes()), t.types.str(r.bytes())
	e.Metadata, e.Data = r.bytes(), r.bytes()
	return !r.bad
}

// place is where a commit stands in its log.
type place struct {
	first    Position // of the batch
	sequence uint64   // of the batch
	ordinal  uint64   // of the commit in the batch
	time     UnixNano // of the batch
}

func encodePlace(p place) []byte { return appendPlace(nil, p) }

func appendPlace(b []byte, p place) []byte {
	w := writer{append(b, 0, 0, 0, 0)}
	w.u64(uint64(p.first))
	w.u64(p.sequence)
	w.uint(p.ordinal)
	w.u64(uint64(p.time))
	sealValue(w.b[len(b):])
	return w.b
}

func decodePlace(b []byte) (p place, ok bool) {
	r, ok := openValue(b)
	if !ok {
		return place{}, false
	}
	p = place{first: Position(r.u64()), sequence: r.u64(), ordinal: r.uint(), time: UnixNano(r.u64())}
	return p, !r.bad && len(r.b) == 0
}

// checkpoint says that all batches of a log up to sequence are in the index. next
// is where the first event after them stands.
type checkpoint struct {
	sequence uint64
	next     Position
}

func encodeCheckpoint(c checkpoint) []byte {
	w := writer{make([]byte, 4, 20)}
	w.u64(c.sequence)
	w.u64(uint64(c.next))
	return sealValue(w.b)
}

func decodeCheckpoint(b []byte) (c checkpoint, ok bool) {
	r, ok := openValue(b)
	if !ok {
		return checkpoint{}, false
	}
	c = checkpoint{sequence: r.u64(), next: Position(r.u64())}
	return c, !r.bad && len(r.b) == 0
}

// indexBlock appends to pairs what one block contributes to the index, its
// checkpoint last, so that a split update never claims more than it did, and counts its
// events in types; see typeCounter.count for from. next is where the next event of the log stands.
func indexBlock(pairs []Pair, block Block, types *typeCounter, from uint64) (_ []Pair, next Position, err error) {
	next = block.First
	x := entries{pairs: pairs}
	types.block = types.block[:0]
	var kept keptTypes
	err = eachRecord(block, func(h *batchHeader, ordinal int, first Position, c *decodedCommit) error {
		if x.room == nil {
			x.expect(h.records)
		}
		for i := range c.events {
			e := c.event(h, first, i)
			x.event(&e)
			types.block = append(types.block, e.Type)
		}
		x.answer(h.log, c.command.ID, place{h.first, h.sequence, uint64(ordinal), h.time})
		next = first + Position(len(c.events))
		return nil
	}, func(h *batchHeader, r baseRecord) error {
		switch {
		case r.base != nil:
			x.pairs = append(x.pairs, Pair{floorKey(h.log, r.base.key, h.sequence), sealFloor(r.base)})
		case r.kept != nil:
			x.pairs = append(x.pairs, Pair{keptKey(r.kept, h.sequence), encodeIndexEvent(r.kept)})
			kept.add(r.kept)
		default:
			x.pairs = append(x.pairs, Pair{trimKey(h.log), sealTrim(r.cut)})
		}
		return nil
	})
	if err == nil {
		x.pairs = kept.pairs(x.pairs, block)
	}
	if err == nil {
		err = types.countBlock(block, from)
	}
	if err == nil {
		x.checkpoint(block.Log, checkpoint{block.Sequence, next})
	}
	return x.pairs, next, err
}

// indexGroup does the same for what the committer has just written, from the commits in memory:
// nothing is read, checked and unpacked to learn what is known.
func indexGroup(pairs []Pair, g *group, types *typeCounter) (_ []Pair, err error) {
	const room = 256 << 10 // of records for which there is room at once
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
		x.checkpoint(b.Log, checkpoint{b.Sequence, g.ends[i]})
	}
	for _, b := range g.blocks[len(g.ends):] {
		if x.pairs, _, err = indexBlock(x.pairs, b, types, 0); err != nil { // it has no events
			break
		}
	}
	return x.pairs, err
}

// entries are what the log brings to the index. Keys and values stand in large pieces of memory,
// of which room is the last.
type entries struct {
	pairs []Pair
	room  []byte
}

// expect makes room for the entries of so many bytes of records.
func (x *entries) expect(records int) { x.room = yield.Uncleared(records + records/4) }

// fit makes room for an entry of so many bytes, beside its numbers and lengths, if the guess was too low.
func (x *entries) fit(bytes int) {
	const numbers, least = 128, 4 << 10
	if cap(x.room)-len(x.room) < bytes+numbers {
		x.room = yield.Uncleared(max(bytes+numbers, least))
	}
}

// event adds the entry of an event.
func (x *entries) event(e *Event) {
	x.fit(len(e.Log) + len(e.Key) + len(e.Type) + len(e.ContentType) + len(e.CommandID) + len(e.CommandType) +
		len(e.Metadata) + len(e.Data))
	start := len(x.room)
	x.room = binary.BigEndian.AppendUint64(appendEntityPrefix(x.room, e.Log, e.Key), uint64(e.Version))
	end := len(x.room)
	x.room = appendIndexEvent(x.room, e)
	x.pair(start, end)
}

// answer adds the entry that leads from a command's id to its commit.
func (x *entries) answer(log LogName, id CommandID, at place) {
	x.fit(len(log) + len(id))
	start := len(x.room)
	x.room = appendAnswerKey(x.room, log, id, at.time)
	end := len(x.room)
	x.room = appendPlace(x.room, at)
	x.pair(start, end)
}

func (x *entries) pair(key, end int) {
	x.pairs = append(x.pairs, Pair{x.room[key:end:end], x.room[end:len(x.room):len(x.room)]})
}

func (x *entries) checkpoint(log LogName, c checkpoint) {
	x.pairs = append(x.pairs, Pair{checkpointKey(log), encodeCheckpoint(c)})
}

// sortPairs puts the events, answers and counts of types in the order
// of their keys, in which a tree takes them up in a fraction of the time. What rests on
// them, checkpoints and snapshots, comes behind them and stays as it was. Of the uses of
// a command id only the last is kept; nothing else is there twice.
func sortPairs(pairs []Pair) []Pair {
	entry := func(p *Pair) bool { return p.Key[0] == 'e' || p.Key[0] == 'a' || p.Key[0] == 'y' }
	entries := pairs[:0]
	var rest []Pair
	for i := range pairs {
		if entry(&pairs[i]) {
			entries = append(entries, pairs[i])
		} else {
			rest = append(rest, pairs[i])
		}
	}
	twice := false
	slices.SortFunc(entries, func(a, b Pair) int {
		order := bytes.Compare(a.Key, b.Key)
		if order == 0 && a.Key[0] == 'a' {
			twice = true
			order = laterPlace(a.Value, b.Value)
		}
		return order
	})
	if twice {
		entries = slices.CompactFunc(entries, func(a, b Pair) bool { return bytes.Equal(a.Key, b.Key) })
	}
	return append(entries, rest...)
}

// laterPlace compares two places, the later one being less.
func laterPlace(a, b []byte) int {
	x, _ := decodePlace(a)
	y, _ := decodePlace(b)
	return cmp.Or(cmp.Compare(y.sequence, x.sequence), cmp.Compare(y.ordinal, x.ordinal))
}

// pairsAtOnce is about how many entries go into one update of the index.
const pairsAtOnce = 8192

// completeIndex indexes what the log has beyond the index's checkpoints. progress,
// if not nil, is told how many blocks are done.
//
// The index is only ever written behind the log. So if it knows of a batch that the
// log does not have, the log has lost what it once acknowledged, or an older copy of it
// stands in its place: that is damage, and nothing may be written to that log before
// somebody has decided (and if so, called Rebuild). Damage of logs is put into damaged,
// and the others are completed.
//
// Damage of the index is an error, an [indexDamage].
func completeIndex(ctx context.Context, storage Storage, progress func(blocks uint64), damaged damages) error {
	storage = watched(storage)
	if err := checkLayout(ctx, storage.Index); err != nil {
		return err
	}
	c := tailIndexer{storage: storage, progress: progress, heads: storage.heads(),
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
		if log := checkpointLog(key); log != "" && !slices.Contains(logs, log) {
			at, whole := decodeCheckpoint(value)
			if !whole {
				return damagedIndex(log, "the checkpoint is damaged")
			}
			return damaged.add(log, lostTail(log, at.sequence, at.next-1, 0))
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

// checkLayout empties an index of another layout.
func checkLayout(ctx context.Context, index IndexStore) error {
	layout, ok, err := index.Get(ctx, layoutKey)
	if err != nil || ok && len(layout) == 1 && layout[0] == indexLayout {
		return err
	}
	if err := index.Clear(ctx); err != nil {
		return err
	}
	return index.Update(ctx, []Pair{{layoutKey, []byte{indexLayout}}})
}

// tailIndexer completes the index of one log after the other.
type tailIndexer struct {
	storage  Storage
	progress func(blocks uint64)
	heads    map[LogName]Head
	blocks   uint64
	pairs    []Pair
	types    *typeCounter
}

func (c *tailIndexer) log(ctx context.Context, log LogName) error {
	var at checkpoint // how far the log is indexed; the zero value is the beginning
	value, ok, err := c.storage.Index.Get(ctx, checkpointKey(log))
	if err != nil {
		return err
	}
	if ok {
		if at, ok = decodeCheckpoint(value); !ok {
			return damagedIndex(log, "the checkpoint is damaged")
		}
	}
	was := at
	trimmed, err := trimOf(ctx, c.storage.Index, log)
	if err != nil {
		return err
	}
	from := trimmed.sequence // for new entries of the event catalogue
	count, err := newCounter(ctx, c.storage.Index, log, at.sequence)
	if err != nil {
		return err
	}
	var last, missing uint64 // missing: so many batches at the beginning are not there
	err = c.storage.Log.Blocks(ctx, log, at.next, func(b Block) error {
		last = b.Sequence
		if b.Sequence <= at.sequence {
			return nil
		}
		if b.Sequence > at.sequence+1 {
			// A retention may have deleted what comes before the log's first batch; the log
			// says so further on.
			first, err := firstSequence(ctx, c.storage.Log, log)
			if err != nil {
				return err
			}
			if first == b.Sequence {
				missing, at, from = b.Sequence-1, checkpoint{b.Sequence - 1, b.First}, b.Sequence
			}
		}
		if b.Sequence != at.sequence+1 || at.sequence > 0 && b.First != at.next {
			return errorf(KindCorrupt, "open", log, "batch %d at position %d follows on batch %d, which ends before "+
				"position %d: a part of the log is missing",
				b.Sequence, b.First, at.sequence, at.next)
		}
		whole := len(c.pairs)
		var err error
		if c.pairs, at.next, err = indexBlock(c.pairs, b, c.types, from); err != nil {
			c.pairs = c.pairs[:whole]
			return err
		}
		at.sequence = b.Sequence
		count.add(b, at.next)
		c.blocks++
		if c.progress != nil {
			c.progress(c.blocks)
		}
		if len(c.pairs) >= pairsAtOnce {
			return c.flush(ctx)
		}
		return nil
	})
	// What stands before damage is indexed all the same.
	if flushed := c.flush(ctx); flushed != nil {
		return flushed
	}
	if head := c.heads[log]; err == nil && last < head.Sequence {
		err = lostTail(log, head.Sequence, head.First, last)
	}
	if err == nil && last < was.sequence {
		err = lostTail(log, was.sequence, was.next-1, last)
	}
	if err != nil {
		return err
	}
	if trimmed, err = trimOf(ctx, c.storage.Index, log); err != nil {
		return err
	}
	if missing >= max(trimmed.sequence, 1) {
		return lostStart(log, missing)
	}
	if err := settleTypes(ctx, c.storage, log, trimmed, at.sequence); err != nil {
		return err
	}
	if err := trim(ctx, c.storage, log, trimmed, func(f func() error) error { return f() }); err != nil {
		return err
	}
	return count.settle(ctx, c.storage.Index, log, trimmed.sequence)
}

func lostStart(log LogName, missing uint64) error {
	return errorf(KindCorrupt, "open", log, "the first %d batches are missing, and no retention has deleted them",
		missing)
}

func lostTail(log LogName, known uint64, position Position, last uint64) error {
	return errorf(KindCorrupt, "open", log, "there was a batch %d, at position %d, but the log ends with batch %d: "+
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

// Reset empties the index and makes the storage forget how far logs have come: whatever they have now
// is all there is. No journal may be open on the storage; the next Open does the rest of what Rebuild
// does.
func Reset(ctx context.Context, storage Storage) error {
	err := storage.Index.Clear(ctx)
	if err == nil && storage.Heads != nil {
		err = storage.Heads.ForgetHeads()
	}
	if err != nil {
		return &Error{Op: "rebuild", Kind: storageKind(err), Err: err}
	}
	return nil
}

// Rebuild makes the index anew from the log alone. No journal may be open on the
// storage. progress, if not nil, is told how many batches are done.
//
// What it makes is byte by byte what it was, but for snapshots: only modules can
// make those, so they are dropped, entities are hydrated from their events, and new ones
// are taken.
func Rebuild(ctx context.Context, storage Storage, progress func(batches uint64)) error {
	if err := Reset(ctx, storage); err != nil {
		return err
	}
	damaged := damages{}
	if err := completeIndex(ctx, storage, progress, damaged); err != nil {
		return &Error{Op: "rebuild", Kind: storageKind(err), Err: err}
	}
	for _, log := range slices.Sorted(maps.Keys(damaged)) {
		return &Error{Op: "rebuild", Log: log, Kind: KindCorrupt, Err: damaged[log]}
	}
	return nil
}
