package journal

import (
	"context"
	"errors"
	"maps"
	"slices"
)

// The event catalogue says which types of events a log holds. It is an entry of the index for
// each log and type, derived from the log like all others, and counts what can be read: a
// retention takes off what it deletes. The indexer alone writes it.
//
// An entry is written before the checkpoint that covers its events. So it may be ahead of
// that after a crash; events up to its last position are not counted again.

// EventType is what a log holds of one type of events.
type EventType struct {
	Type  string   `json:"type"`
	Count uint64   `json:"count"`
	First Position `json:"first"`
	Last  Position `json:"last"`
}

// typeEntry is an entry of the catalogue.
type typeEntry struct {
	// from is the sequence of the batch from which on events are counted: that of the log's
	// cut, 0 if there is none. One of an earlier cut is stale: a retention was interrupted
	// before it could take off what it deleted.
	from        uint64
	count       uint64
	first, last Position
}

func typePrefix(log LogName) []byte { return indexPrefix('y', log) }

func typeKey(log LogName, name string) []byte { return append(typePrefix(log), name...) }

func encodeTypeEntry(e *typeEntry) []byte {
	w := writer{make([]byte, 4, 40)}
	w.u64(e.from)
	w.uint(e.count)
	w.u64(uint64(e.first))
	w.u64(uint64(e.last))
	return sealValue(w.b)
}

// decodeTypeEntry is total.
func decodeTypeEntry(b []byte) (e typeEntry, ok bool) {
	r, ok := openValue(b)
	if !ok {
		return typeEntry{}, false
	}
	e = typeEntry{from: r.u64(), count: r.uint(), first: Position(r.u64()), last: Position(r.u64())}
	return e, !r.bad && len(r.b) == 0 && e.count > 0 && e.first > 0 && e.first <= e.last &&
		e.count-1 <= uint64(e.last-e.first)
}

// add counts an event that stands behind all that were counted.
func (e *typeEntry) add(at Position) {
	if e.count == 0 {
		e.first = at
	}
	e.count++
	e.last = at
}

// eachTypeEntry yields a log's entries in the order of the types' names.
func eachTypeEntry(
	ctx context.Context, index IndexStore, log LogName, yield func(name string, e typeEntry) error,
) error {
	prefix := typePrefix(log)
	return index.Scan(ctx, prefix, prefix, func(key, value []byte) error {
		e, ok := decodeTypeEntry(value)
		if !ok {
			return damagedTypes(log, "an entry of the event catalogue is damaged")
		}
		return yield(string(key[len(prefix):]), e)
	})
}

func damagedTypes(log LogName, detail string) error {
	return &indexDamage{errorf(KindCorrupt, "event types", log, "%s; rebuild the index", detail)}
}

func storedTypes(ctx context.Context, index IndexStore, log LogName) (map[string]typeEntry, error) {
	all := map[string]typeEntry{}
	err := eachTypeEntry(ctx, index, log, func(name string, e typeEntry) error {
		all[name] = e
		return nil
	})
	return all, err
}

// EventTypes is the event catalogue of a log: all types of its events that can be read, by
// name, with those that a retention has kept apart; while one goes on, it may have these twice. It has the events of
// all commits that were handed in before it was called, and waits until they are indexed: [KindFailed] if nobody knows
// what became of them. Of a damaged log it has what stands before the damage.
func (j *Journal) EventTypes(ctx context.Context, log LogName) ([]EventType, error) {
	if err := j.awaitIndex(ctx, log); err != nil {
		return nil, err
	}
	if err := j.reads.enter("event types", log); err != nil {
		return nil, err
	}
	defer j.reads.leave()
	var types map[string]typeEntry
	var err error
	for again := true; again && err == nil; {
		c := j.cutOf(log)
		if types, err = storedTypes(ctx, j.storage.Index, log); err == nil {
			err = addKeptTypes(ctx, j.storage.Index, log, c, types)
		}
		again = j.cutOf(log) != c // a retention has begun meanwhile, and may have taken away what the one before kept
	}
	var all []EventType
	for _, name := range slices.Sorted(maps.Keys(types)) {
		e := types[name]
		all = append(all, EventType{name, e.count, e.first, e.last})
	}
	return all, readError("event types", log, err)
}

// awaitIndex waits until the index has all commits of a log that were handed in, but for
// those that are void. Meanwhile the index does not wait for others to come along.
func (j *Journal) awaitIndex(ctx context.Context, log LogName) error {
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
		var err *Error
		select {
		case <-room: // which every update of the index makes
		case <-j.failed:
			err = &Error{Op: "index", Log: log, Kind: KindFailed, Err: j.Err()}
		case <-ctx.Done():
			err = &Error{Op: "index", Log: log, Kind: KindCanceled, Err: ctx.Err()}
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
	index   IndexStore
	held    map[typeID]*heldType // lately used, and all that changed
	changed []*heldType
	latest  *heldType // the last one that was counted, as many are of the same type
	block   []string  // the types of a block's events, which count once it is whole
}

type typeID struct {
	log  LogName
	name string
}

// heldType is an entry in memory.
type heldType struct {
	typeEntry
	id      typeID
	changed bool // it is not in the index as it is here
}

// typesHeld bounds the entries that a typeCounter keeps from one update to the next.
const typesHeld = 4096

func newTypeCounter(ctx context.Context, index IndexStore) *typeCounter {
	return &typeCounter{ctx: ctx, index: index, held: map[typeID]*heldType{}}
}

// count counts an event. The first one of its type makes an entry from the batch from on.
func (t *typeCounter) count(log LogName, from uint64, name string, at Position) error {
	h := t.latest
	if h == nil || h.id.name != name || h.id.log != log {
		var err error
		if h, err = t.get(typeID{log, name}, from); err != nil {
			return err
		}
		t.latest = h
	}
	if at <= h.last {
		return nil // an update before a crash has counted it
	}
	h.add(at)
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
	h := &heldType{id: id, typeEntry: typeEntry{from: from}}
	value, ok, err := t.index.Get(t.ctx, typeKey(id.log, id.name))
	if err != nil {
		return nil, err
	}
	if ok {
		if h.typeEntry, ok = decodeTypeEntry(value); !ok {
			return nil, damagedTypes(id.log, "an entry of the event catalogue is damaged")
		}
	}
	t.held[id] = h
	return h, nil
}

// countBlock counts the events of a block, whose types are in t.block.
func (t *typeCounter) countBlock(b Block, from uint64) error {
	for i, name := range t.block {
		if err := t.count(b.Log, from, name, b.First+Position(i)); err != nil {
			return err
		}
	}
	return nil
}

// take appends the entries that changed, which go into one update with what was counted, or
// an earlier one.
func (t *typeCounter) take(pairs []Pair) []Pair {
	for _, h := range t.changed {
		pairs = append(pairs, Pair{typeKey(h.id.log, h.id.name), encodeTypeEntry(&h.typeEntry)})
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
func settleTypes(ctx context.Context, storage Storage, log LogName, c cut, through uint64) error {
	stale := false
	err := eachTypeEntry(ctx, storage.Index, log, func(_ string, t typeEntry) error {
		stale = stale || t.from != c.sequence
		return nil
	})
	if err != nil || !stale {
		return err
	}
	there, err := storedTypes(ctx, storage.Index, log)
	if err != nil {
		return err
	}
	now := map[string]*typeEntry{}
	err = storage.Log.Blocks(ctx, log, c.position, func(b Block) error {
		switch {
		case b.Sequence < c.sequence:
			return nil
		case b.Sequence > through:
			return errStop
		}
		return eachCommit(b, func(_ *batchHeader, _ int, first Position, d *decodedCommit) error {
			for i := range d.events {
				t := now[d.events[i].Type]
				if t == nil {
					t = &typeEntry{from: c.sequence}
					now[d.events[i].Type] = t
				}
				t.add(first + Position(i))
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	var pairs []Pair
	for name, t := range now {
		pairs = append(pairs, Pair{typeKey(log, name), encodeTypeEntry(t)})
	}
	var gone [][]byte
	for name := range there {
		if now[name] == nil {
			gone = append(gone, typeKey(log, name))
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
	cut  cut
	gone map[string]uint64 // events of each type that are deleted
	// firsts are the first events behind the cut of those types that lose some and have
	// others.
	firsts map[string]Position
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
func (c *typeCut) after(name string, e typeEntry) (_ typeEntry, known bool, err error) {
	gone := c.gone[name]
	if gone > e.count || gone > 0 && e.first >= c.cut.position {
		return e, false, damagedTypes(c.log.name, "the event catalogue has other events than the log")
	}
	e.from, e.count = c.cut.sequence, e.count-gone
	if gone == 0 || e.count == 0 {
		return e, true, nil
	}
	if e.count == 1 {
		e.first = e.last
		return e, true, nil
	}
	e.first, known = c.firsts[name]
	return e, known, nil
}

// cutTypes does what a retention asks for. The indexer calls it, between two updates.
func (j *Journal) cutTypes(t *typeCounter, c *typeCut) (wanted []string, err error) {
	var pairs []Pair
	var gone [][]byte
	index := j.storage.Index
	err = eachTypeEntry(t.ctx, index, c.log.name, func(name string, e typeEntry) error {
		e, known, err := c.after(name, e)
		switch {
		case err != nil:
			return err
		case !known:
			wanted = append(wanted, name)
		case e.count == 0:
			gone = append(gone, typeKey(c.log.name, name))
		default:
			pairs = append(pairs, Pair{typeKey(c.log.name, name), encodeTypeEntry(&e)})
		}
		return nil
	})
	if err != nil || len(wanted) > 0 {
		return wanted, err
	}
	t.forget()
	c.log.counted = c.cut.sequence
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
		if err != nil && KindOf(err) != KindCorrupt {
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

func errClosedIndex(log LogName) error {
	return errorf(KindClosed, "retain", log, "the journal was closed; the event catalogue is completed when it is "+
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
		return nil, &Error{Op: "retain", Log: c.log.name, Kind: KindFailed, Err: j.Err()}
	}
}
