package commitlog

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// eachTypeEntry yields a log's entries in the order of the types' names.
func eachTypeEntry(
	ctx context.Context, index journal.IndexStore, log journal.LogName,
	yield func(name string, e format.TypeEntry) error,
) error {
	prefix := format.TypePrefix(log)
	return index.Scan(ctx, prefix, prefix, func(key, value []byte) error {
		e, ok := format.DecodeTypeEntry(value)
		if !ok {
			return damagedTypes(log, "an entry of the event catalogue is damaged")
		}
		return yield(string(key[len(prefix):]), e)
	})
}

func damagedTypes(log journal.LogName, detail string) error {
	return &format.IndexDamage{Err: journal.Errorf(journal.KindCorrupt, "event types", log, "%s; rebuild the index",
		detail)}
}

func storedTypes(
	ctx context.Context, index journal.IndexStore, log journal.LogName,
) (map[string]format.TypeEntry, error) {
	all := map[string]format.TypeEntry{}
	err := eachTypeEntry(ctx, index, log, func(name string, e format.TypeEntry) error {
		all[name] = e
		return nil
	})
	return all, err
}

// EventTypes is the event catalogue of a log: all types of its events that can be read, by
// name, with those that a retention has kept apart; while one goes on, it may have these twice. It has the events of
// all commits that were handed in before it was called, and waits until they are indexed: [journal.KindFailed] if
// nobody knows what became of them. Of a damaged log it has what stands before the damage.
func (j *Journal) EventTypes(ctx context.Context, log journal.LogName) ([]journal.EventType, error) {
	if err := j.awaitIndex(ctx, log); err != nil {
		return nil, err
	}
	if err := j.reads.enter("event types", log); err != nil {
		return nil, err
	}
	defer j.reads.leave()
	var types map[string]format.TypeEntry
	var err error
	for again := true; again && err == nil; {
		c := j.cutOf(log)
		if types, err = storedTypes(ctx, j.storage.Index, log); err == nil {
			err = addKeptTypes(ctx, j.storage.Index, log, c, types)
		}
		again = j.cutOf(log) != c // a retention has begun meanwhile, and may have taken away what the one before kept
	}
	var all []journal.EventType
	for _, name := range slices.Sorted(maps.Keys(types)) {
		e := types[name]
		all = append(all, journal.EventType{Type: name, Count: e.Count, First: e.First, Last: e.Last})
	}
	return all, stored.ReadError("event types", log, err)
}

// awaitIndex waits until the index has all commits of a log that were handed in, but for
// those that are void. Meanwhile the index does not wait for others to come along.
func (j *Journal) awaitIndex(ctx context.Context, log journal.LogName) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wanted++
	defer func() { j.wanted-- }()
	s := j.logs[log]
	var entered uint64
	if s != nil {
		entered = s.entered
	}
	for s != nil && s.left < entered {
		room := j.queue.room
		j.mu.Unlock()
		var err *journal.Error
		select {
		case <-room: // which every update of the index makes
		case <-j.failed:
			err = &journal.Error{Op: "index", Log: log, Kind: journal.KindFailed, Err: j.Err()}
		case <-ctx.Done():
			err = &journal.Error{Op: "index", Log: log, Kind: journal.KindCanceled, Err: ctx.Err()}
		}
		if j.mu.Lock(); err != nil {
			return err
		}
	}
	return nil
}

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

// settleTypes makes a log's entries right for its latest cut, if a retention was interrupted
// before it had done so: then what the log has up to the batch through is counted again.
func settleTypes(
	ctx context.Context, storage journal.Storage, log journal.LogName, c format.Cut, through uint64,
) error {
	stale := false
	err := eachTypeEntry(ctx, storage.Index, log, func(_ string, t format.TypeEntry) error {
		stale = stale || t.From != c.Sequence
		return nil
	})
	if err != nil || !stale {
		return err
	}
	there, err := storedTypes(ctx, storage.Index, log)
	if err != nil {
		return err
	}
	now := map[string]*format.TypeEntry{}
	err = storage.Log.Blocks(ctx, log, c.Position, func(b journal.Block) error {
		switch {
		case b.Sequence < c.Sequence:
			return nil
		case b.Sequence > through:
			return stored.ErrStop
		}
		return format.EachCommit(b, func(_ *format.BatchHeader, _ int, first journal.Position,
			d *format.DecodedCommit) error {
			for i := range d.Events {
				t := now[d.Events[i].Type]
				if t == nil {
					t = &format.TypeEntry{From: c.Sequence}
					now[d.Events[i].Type] = t
				}
				t.Add(first + journal.Position(i))
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, stored.ErrStop) {
		return err
	}
	var pairs []journal.Pair
	for name, t := range now {
		pairs = append(pairs, journal.Pair{Key: format.TypeKey(log, name), Value: format.EncodeTypeEntry(t)})
	}
	var gone [][]byte
	for name := range there {
		if now[name] == nil {
			gone = append(gone, format.TypeKey(log, name))
		}
	}
	if err := storage.Index.Update(ctx, pairs); err != nil {
		return err
	}
	return storage.Index.Delete(ctx, gone)
}

// typeCut is what a retention asks the indexer to take out of a log's catalogue. It is
// done all at once, or not at all.
type typeCut struct {
	log  *logState
	cut  format.Cut
	gone map[string]uint64 // events of each type that are deleted
	// firsts are the first events behind the cut of those types that lose some and have
	// others.
	firsts map[string]journal.Position
	done   chan typesCut // of capacity 1
}

// typesCut is the answer. wanted are the types that lack their first event: some
// events of them stand behind those that were looked at.
type typesCut struct {
	wanted []string
	err    error
}

// after is what the cut makes of the entry of a type; a count of 0 says that nothing is left
// of it. known is false if the first event that is kept is not.
func (c *typeCut) after(name string, e format.TypeEntry) (_ format.TypeEntry, known bool, err error) {
	gone := c.gone[name]
	if gone > e.Count || gone > 0 && e.First >= c.cut.Position {
		return e, false, damagedTypes(c.log.name, "the event catalogue has other events than the log")
	}
	e.From, e.Count = c.cut.Sequence, e.Count-gone
	if gone == 0 || e.Count == 0 {
		return e, true, nil
	}
	if e.Count == 1 {
		e.First = e.Last
		return e, true, nil
	}
	e.First, known = c.firsts[name]
	return e, known, nil
}

// cutTypes does what a retention asks for. The indexer calls it, between two updates.
func (j *Journal) cutTypes(t *typeCounter, c *typeCut) (wanted []string, err error) {
	var pairs []journal.Pair
	var gone [][]byte
	index := j.storage.Index
	err = eachTypeEntry(t.ctx, index, c.log.name, func(name string, e format.TypeEntry) error {
		e, known, err := c.after(name, e)
		switch {
		case err != nil:
			return err
		case !known:
			wanted = append(wanted, name)
		case e.Count == 0:
			gone = append(gone, format.TypeKey(c.log.name, name))
		default:
			pairs = append(pairs, journal.Pair{Key: format.TypeKey(c.log.name, name),
				Value: format.EncodeTypeEntry(&e)})
		}
		return nil
	})
	if err != nil || len(wanted) > 0 {
		return wanted, err
	}
	t.forget()
	c.log.counted = c.cut.Sequence
	if err := index.Update(t.ctx, pairs); err != nil {
		return nil, err
	}
	return nil, index.Delete(t.ctx, gone)
}

// takeTypeCuts answers the retentions that have asked. An error is one of writing the index.
func (j *Journal) takeTypeCuts(t *typeCounter) (failed error) {
	j.mu.Lock()
	asked := j.typeCuts
	j.typeCuts = nil
	j.mu.Unlock()
	for _, c := range asked {
		wanted, err := j.cutTypes(t, c)
		c.done <- typesCut{wanted, err}
		if err != nil && journal.KindOf(err) != journal.KindCorrupt {
			failed = err
		}
	}
	return failed
}

// endTypeCuts refuses those that ask too late.
func (j *Journal) endTypeCuts() {
	j.mu.Lock()
	asked := j.typeCuts
	j.typeCuts, j.typesEnded = nil, true
	j.mu.Unlock()
	for _, c := range asked {
		c.done <- typesCut{err: errClosedIndex(c.log.name)}
	}
}

func errClosedIndex(log journal.LogName) error {
	return journal.Errorf(journal.KindClosed, "retain", log, "the journal was closed; the event catalogue is "+
		"completed when it is "+
		"next opened")
}

// askTypeCut has the indexer do c, and waits for the answer.
func (j *Journal) askTypeCut(c *typeCut) ([]string, error) {
	c.done = make(chan typesCut, 1)
	j.mu.Lock()
	if j.typesEnded {
		j.mu.Unlock()
		return nil, errClosedIndex(c.log.name)
	}
	j.typeCuts = append(j.typeCuts, c)
	j.mu.Unlock()
	j.wakeIndexer()
	select {
	case a := <-c.done:
		return a.wanted, a.err
	case <-j.failed:
		return nil, &journal.Error{Op: "retain", Log: c.log.name, Kind: journal.KindFailed, Err: j.Err()}
	}
}
