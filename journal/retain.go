package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Retention says which of a log's first events may go, and what has to hold for that.
type Retention struct {
	// Before lets batches go all of whose events stand before this position; 0 sets no
	// bound by position.
	Before Position
	// OlderThan lets batches go that were written before this time; 0 sets no bound by
	// time. One of both must be set.
	OlderThan UnixNano
	// Through lets no batch go that is behind the one with this sequence; 0 sets no such
	// bound. It is for who has kept what was there when Retain was asked before.
	Through uint64
	// Schema is the state schema of the service's module: only snapshots of it count.
	Schema uint32
	// Module, if not zero, is the service's module: another one's snapshot does not count, as it
	// may have another form under the same schema.
	Module Digest
	// Cover, if not nil, is asked to have a snapshot put for an entity that needs one, of
	// the version or a later one.
	Cover func(ctx context.Context, key string, version Version) error
	// Archive, if not nil, is called with the batches that are about to be deleted; if
	// it fails, nothing is.
	Archive func(ctx context.Context, r BatchRange) error
	// Hold, if not nil, is called when it is known what may go, and kept events alone are written, which mean nothing
	// yet. It makes sure
	// that Schema and Module are still those of the service, and that they stay so until release is
	// called, which is when the cut is in force or will not be. Its error ends it all, with nothing deleted.
	Hold func() (release func(), err error)
	// MaxKept bounds the events of entities without snapshots that are kept apart, in bytes of their records:
	// their batches go, and the events stay readable by entity until a retention finds a snapshot. Beyond it
	// batches with such events stay, and all behind them. What an earlier retention has kept counts, and stays in any
	// case. Each retention writes all of it again, and what the one before wrote stays in log and index until its
	// batches go, too. 0 is [DefaultMaxKept], a negative value lets nothing be kept that is not already.
	MaxKept int64
	// Force deletes events that no snapshot covers, also those that were kept, and so the states of these entities,
	// and batches whose answers to command ids are still promised.
	Force bool
	// DryRun does all but what changes the log: it makes sure of snapshots, and says what
	// would be deleted.
	DryRun bool
	// Pace, if not nil, is called before each batch, or entity without a snapshot, that is looked at, and may wait; its
	// error ends it all, with nothing deleted.
	Pace func() error
	// Progress, if not nil, is told now and then how far a stage has come.
	Progress func(stage string, done, total uint64)
}

// DefaultMaxKept is the bound of [Retention.MaxKept] unless it says another one.
const DefaultMaxKept = 64 << 20

func maxKept(o *Retention) int64 {
	if o.MaxKept == 0 {
		return DefaultMaxKept
	}
	return max(o.MaxKept, 0)
}

// Retained is what a retention did.
type Retained struct {
	First     Position `json:"first"`     // of the first event that is there now
	Through   uint64   `json:"through"`   // sequence of the last batch that was deleted now; 0 if none was
	Batches   uint64   `json:"batches"`   // deleted now
	Events    uint64   `json:"events"`    // of these, also those that were kept apart
	Bytes     uint64   `json:"bytes"`     // of the batches, packed as they are
	Entities  int      `json:"entities"`  // that have lost events by now
	Uncovered int      `json:"uncovered"` // of them, whose state is lost; only with Force
	// Kept says of how many entities events were kept apart, as no snapshot covers them and none could be had:
	// so many events, of so many bytes. KeptOf names some of the entities.
	Kept       int      `json:"kept,omitempty"`
	KeptOf     []string `json:"kept_of,omitempty"`
	KeptEvents uint64   `json:"kept_events,omitempty"`
	KeptBytes  uint64   `json:"kept_bytes,omitempty"`
	// Held says how many entities kept it from deleting more: no snapshot covers their events,
	// none could be had, and there was no room to keep them apart. HeldBy names some.
	Held   int      `json:"held,omitempty"`
	HeldBy []string `json:"held_by,omitempty"`
	// Promised says that there were more to go, but for the answers to their command ids,
	// which are promised for a while.
	Promised bool `json:"promised"`
}

// Retain deletes the first events of a log. What they left behind is written into the
// log before, synced: for each entity that loses events a snapshot from which, with the
// events behind it, it can be hydrated. Of an entity without one, also after Cover was asked, the events
// themselves are, up to a bound for all; see Retention.MaxKept. Beyond it they stay in the log, and all
// that are behind the first of them; see Retained.Held. If that leaves nothing to delete, the error
// is of kind KindInvalid and names some.
//
// Batches go whole and in order, so that a few events may stay that could go. Whatever
// interrupts Retain, the log is as it was or as it should be, and what is left to remove is
// removed when the journal is next opened.
func (j *Journal) Retain(ctx context.Context, log LogName, o Retention) (Retained, error) {
	if o.Before == 0 && o.OlderThan == 0 {
		return Retained{}, errorf(KindInvalid, "retain", log, "neither a position nor a time bounds what shall be "+
			"deleted")
	}
	j.mu.Lock()
	s := j.logs[log]
	var err error
	switch {
	case s == nil || s.batches == 0:
		err = errorf(KindInvalid, "retain", log, "there is no such log")
	case s.retaining:
		err = errorf(KindInvalid, "retain", log, "another retention of it goes on")
	default:
		err = j.refusal(log)
	}
	if err != nil {
		j.mu.Unlock()
		return Retained{}, err
	}
	s.retaining = true
	j.mu.Unlock()
	defer func() {
		j.mu.Lock()
		s.retaining = false
		j.mu.Unlock()
	}()
	r := retention{Journal: j, ctx: ctx, s: s, log: log, o: o}
	if err := r.run(); err != nil {
		return r.result, readError("retain", log, err)
	}
	return r.result, nil
}

// retention is one run of Retain.
type retention struct {
	*Journal
	ctx    context.Context
	s      *logState
	log    LogName
	o      Retention
	cut    cut
	old    map[string]bool    // entities that had lost events before
	floors map[string]floored // of all entities that have lost events then
	kept   map[string]Version // of those whose events are kept: of the first of these
	types  typeCut
	looked uint64 // up to this batch at least the index had come when firsts looked
	// records are those of the base batch that is being made.
	records baseRecords
	result  Retained
}

// floored is an entity that loses events, or has lost some.
type floored struct {
	at    Version
	kept  Version // of the last event that is kept already; 0 if none is
	first uint64  // sequence of the first batch with events that it loses now; 0 if it loses none
}

func (r *retention) run() error {
	r.result.First = r.First(r.log)
	keys, err := r.plan()
	if err != nil || r.cut.sequence == 0 {
		return err
	}
	if r.o.DryRun {
		r.result.First, r.result.Through = r.cut.position, r.cut.sequence-1
		return nil
	}
	if r.o.Archive != nil {
		r.tell("archiving", 0, 0)
		if err := r.o.Archive(r.ctx, BatchRange{UpTo: r.cut.sequence - 1}); err != nil {
			return err
		}
	}
	if err := r.firsts(); err != nil {
		return err
	}
	if err := r.keep(); err != nil {
		return err
	}
	if err := r.enforce(keys); err != nil {
		return err
	}
	r.result.First, r.result.Through = r.cut.position, r.cut.sequence-1
	if err := r.cutTypes(); err != nil {
		return err
	}
	return r.remove()
}

// enforce writes the cut, with what is kept of entities, and puts it in force.
func (r *retention) enforce(keys []string) error {
	if r.o.Hold != nil {
		release, err := r.o.Hold()
		if err != nil {
			return err
		}
		defer release()
	}
	if err := r.write(keys); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.trimmed = r.cut
	r.cutBytes(r.s, r.result.Bytes)
	return nil
}

// firsts looks for the first events behind the cut of the types that lose some and have
// others. Nothing is written before they are known, as that may take a while.
func (r *retention) firsts() error {
	if err := r.awaitIndex(r.ctx, r.log); err != nil {
		return err
	}
	r.types.cut = r.cut
	var wanted []string
	err := r.inside(func() error {
		// First how far the index has come: it may go on while the entries are read.
		value, _, err := r.storage.Index.Get(r.ctx, checkpointKey(r.log))
		if err != nil {
			return err
		}
		at, _ := decodeCheckpoint(value)
		r.looked = max(at.sequence, r.cut.sequence-1)
		return eachTypeEntry(r.ctx, r.storage.Index, r.log, func(name string, e typeEntry) error {
			e, known, err := r.types.after(name, e)
			switch {
			case err == nil && !known:
				wanted = append(wanted, name)
			case r.types.gone[name] > 0 && e.count > 0: // it has one more, and may soon have others
				r.types.firsts[name] = e.first
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	return r.look(r.ctx, wanted, r.cut.sequence-1, r.o.Pace)
}

// look finds the first events of types in what comes after a batch.
func (r *retention) look(ctx context.Context, types []string, after uint64, pace func() error) error {
	if len(types) == 0 {
		return nil
	}
	left := map[string]bool{}
	for _, name := range types {
		left[name] = true
	}
	err := r.Batches(ctx, r.log, BatchRange{From: r.cut.position, After: after}, func(b Block) error {
		if pace != nil {
			if err := pace(); err != nil {
				return err
			}
		}
		err := eachCommit(b, func(_ *batchHeader, _ int, first Position, c *decodedCommit) error {
			for i := range c.events {
				if name := c.events[i].Type; left[name] {
					delete(left, name)
					r.types.firsts[name] = first + Position(i)
				}
			}
			return nil
		})
		if err == nil && len(left) == 0 {
			err = errStop
		}
		return err
	})
	switch {
	case err == nil:
		return damagedTypes(r.log, "the event catalogue has events that the log does not have")
	case errors.Is(err, errStop):
		return nil
	}
	return err
}

// cutTypes takes what is deleted out of the event catalogue. Events that were indexed
// since firsts had looked may be the first of their types.
func (r *retention) cutTypes() error {
	for {
		wanted, err := r.askTypeCut(&r.types)
		if err != nil || len(wanted) == 0 {
			return err
		}
		// There is little to look at, and the cut stands.
		if err := r.look(context.WithoutCancel(r.ctx), wanted, r.looked, nil); err != nil {
			return err
		}
	}
}

// pace waits before another batch is looked at.
func (r *retention) pace() error {
	if r.o.Pace != nil {
		return r.o.Pace()
	}
	return nil
}

func (r *retention) tell(stage string, done, total uint64) {
	if r.o.Progress != nil {
		r.o.Progress(stage, done, total)
	}
}

// plan finds a cut by which no entity loses its state, and the entities that it concerns.
func (r *retention) plan() (keys []string, err error) {
	for {
		r.cut, r.floors, r.kept = cut{}, map[string]floored{}, map[string]Version{}
		r.types = typeCut{log: r.s, gone: map[string]uint64{}, firsts: map[string]Position{}}
		r.result = Retained{First: r.result.First, Held: r.result.Held, HeldBy: r.result.HeldBy}
		if err := r.find(); err != nil || r.cut.sequence == 0 {
			return nil, err
		}
		keys = slices.Sorted(maps.Keys(r.floors))
		without, err := r.uncovered(keys)
		if err != nil {
			return nil, err
		}
		if r.o.Force {
			r.result.Uncovered = len(without)
			return keys, nil
		}
		held, first, err := r.fit(without)
		if err != nil || len(held) == 0 {
			return keys, err
		}
		if r.result.Held == 0 { // later rounds have fewer of the same
			r.result.Held = len(held)
			r.result.HeldBy = some(held)
		}
		if first <= r.cutOf(r.log).sequence || first <= 1 {
			return nil, errorf(KindInvalid, "retain", r.log, "of %d entities that would lose events, "+
				"%d have no snapshot that covers these, among them %s, "+
				"and no more than %d bytes of such events may be kept apart; nothing was deleted",
				len(keys), len(held), quoted(r.result.HeldBy), maxKept(&r.o))
		}
		// Batches go in order, so what is behind an event that stays has to stay, too.
		r.o.Through = first - 1
	}
}

// namedMost bounds the names in a Retained.
const namedMost = 10

// some are the first few of names, in order.
func some(names []string) []string {
	slices.Sort(names)
	return slices.Clone(names[:min(len(names), namedMost)])
}

func quoted(keys []string) string {
	out := make([]string, len(keys))
	for i, key := range keys {
		out[i] = fmt.Sprintf("%q", key)
	}
	return strings.Join(out, ", ")
}

// find looks for the cut, and which entities lose events by it.
func (r *retention) find() error {
	promised := r.opt.Clock() - UnixNano(r.opt.AnswerWindow)
	r.cut.origin, r.cut.before = r.Origin(r.log), r.cutOf(r.log).before
	err := r.Batches(r.ctx, r.log, BatchRange{}, func(b Block) error {
		if err := r.pace(); err != nil {
			return err
		}
		h, _, reason := decodeBatch(b.Data)
		if reason != "" {
			return errorf(KindCorrupt, "retain", r.log, "batch %d at position %d: %s", b.Sequence, b.First, reason)
		}
		next := h.first + Position(h.events)
		if r.o.Through > 0 && b.Sequence > r.o.Through || r.o.Before > 0 && next > r.o.Before || r.o.OlderThan > 0 &&
			h.time >= r.o.OlderThan {
			return errStop
		}
		if h.time >= promised && !r.o.Force {
			r.result.Promised = true
			return errStop
		}
		r.cut.sequence, r.cut.position = b.Sequence+1, next
		if h.events > 0 {
			r.cut.before = h.stamp()
		}
		r.result.Batches++
		r.result.Events += uint64(h.events)
		r.result.Bytes += uint64(len(b.Data))
		if r.result.Batches%256 == 0 {
			r.tell("looking for what may go", r.result.Batches, 0)
		}
		return eachCommit(b, func(_ *batchHeader, _ int, _ Position, c *decodedCommit) error {
			if len(c.events) > 0 {
				x := r.floors[c.command.Key]
				if x.first == 0 {
					x.first = b.Sequence
				}
				x.at = c.expected + Version(len(c.events))
				r.floors[c.command.Key] = x
			}
			for i := range c.events {
				r.types.gone[c.events[i].Type]++
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	if r.cut.sequence == 0 {
		return nil
	}
	r.old = map[string]bool{}
	last := r.cutOf(r.log)
	err = r.inside(func() error {
		prefix := indexPrefix('f', r.log)
		return r.storage.Index.Scan(r.ctx, prefix, prefix, func(k, value []byte) error {
			key, sequence, ok := parseFloorKey(r.log, k)
			if ok && !last.keeps(sequence) {
				return nil
			}
			var x base
			if !ok || !openFloor(value, &x) {
				return errorf(KindCorrupt, "retain", r.log, "what an earlier retention left is damaged in the index; "+
					"rebuild the index")
			}
			r.old[key] = true
			now := r.floors[key]
			now.at = max(now.at, x.floor)
			if x.kept > 0 {
				now.kept = x.floor
			}
			r.floors[key] = now
			return nil
		})
	})
	r.result.Entities = len(r.floors)
	return err
}

// inside calls f while the storage cannot be closed.
func (r *retention) inside(f func() error) error {
	if err := r.reads.enter("retain", r.log); err != nil {
		return err
	}
	defer r.reads.leave()
	return f()
}

// base is what is to be written of an entity; covered says that it needs no more events than the log has then, or
// than it had before. If it does, and nobody forces the retention, x.kept is the version of the first that is to be
// kept.
func (r *retention) base(key string) (x base, covered bool, err error) {
	x = base{key: key, floor: r.floors[key].at}
	var old base
	if r.old[key] {
		if old, _, err = r.floor(r.ctx, r.log, key); err != nil {
			return x, false, err
		}
	}
	s, ok, err := r.Snapshot(r.ctx, r.log, key)
	if err != nil && KindOf(err) != KindCorrupt {
		return x, false, err
	}
	ok = err == nil && ok && s.Version >= old.gone() && (s.Version <= x.floor || r.onDisk(key, s.Version))
	counts := ok && s.Schema == r.o.Schema && (r.o.Module == Digest{} || r.o.Module == s.Module)
	switch {
	case counts && s.Version >= x.floor:
		x.snapshot = &s
		return x, true, nil
	case r.old[key] && old.kept == 0 && old.floor == x.floor:
		// It loses nothing now. Its state is what it was, also if that is none.
		return old, true, nil
	case r.o.Force:
		if ok && s.Version >= x.floor {
			x.snapshot = &s // one that does not count is better than none
		}
		return x, false, nil
	case counts:
		x.kept, x.snapshot = s.Version+1, &s
	default:
		x.kept, x.snapshot = old.gone()+1, old.snapshot
	}
	return x, false, nil
}

// onDisk reports whether an entity has durably come to a version, and waits for what
// is in flight.
func (r *retention) onDisk(key string, v Version) bool {
	done := make(chan bool, 1)
	r.Settle(r.log, key, func(receipt Receipt, err error) { done <- err == nil && receipt.Version() >= v })
	return <-done
}

// uncovered is an entity whose state no snapshot covers.
type uncovered struct {
	key   string
	from  Version // of the first event that it needs
	first uint64  // as that of floored
}

// uncovered makes sure that the states of entities can be kept, and returns those of which
// that is not so.
func (r *retention) uncovered(keys []string) (without []uncovered, err error) {
	for i, key := range keys {
		if i%256 == 0 {
			r.tell("checking snapshots", uint64(i), uint64(len(keys)))
		}
		x, covered, err := r.base(key)
		if err != nil {
			return nil, err
		}
		if !covered && r.o.Cover != nil {
			if err := r.o.Cover(r.ctx, key, r.floors[key].at); err != nil && r.ctx.Err() != nil {
				return nil, &Error{Op: "retain", Log: r.log, Kind: KindCanceled, Err: r.ctx.Err()}
			}
			if x, covered, err = r.base(key); err != nil {
				return nil, err
			}
		}
		if !covered {
			without = append(without, uncovered{key, x.kept, r.floors[key].first})
		}
	}
	return without, nil
}

// fit decides whose events are kept apart: of those without a snapshot, the ones that would lose events first, as
// many as there is room for beside what is kept already, which stays so. It returns the others, and the sequence of the
// first batch with an event that they would lose. A cut before that batch leaves as much room for the first ones.
func (r *retention) fit(without []uncovered) (held []string, first uint64, err error) {
	slices.SortFunc(without, func(a, b uncovered) int {
		return cmp.Or(cmp.Compare(a.first, b.first), strings.Compare(a.key, b.key))
	})
	left := maxKept(&r.o)
	for _, x := range without {
		n, err := r.keptBytes(x.key, x.from, r.floors[x.key].kept, math.MaxInt64)
		if err != nil {
			return nil, 0, err
		}
		left = max(left-n, 0)
	}
	var names []string
	for i, x := range without {
		at := r.floors[x.key]
		n, err := r.keptBytes(x.key, max(x.from, at.kept+1), at.at, left)
		if err != nil {
			return nil, 0, err
		}
		if n > left {
			for _, x := range without[i:] {
				held = append(held, x.key)
			}
			return held, x.first, nil
		}
		left -= n
		r.kept[x.key] = x.from
		names = append(names, x.key)
	}
	r.result.Kept, r.result.KeptOf = len(names), some(names)
	return nil, 0, nil
}

// baseBytes is about how many bytes of records go into one base batch.
const baseBytes = 256 << 10

// write appends the base records, and then the batch with the cut, when all others are in.
func (r *retention) write(keys []string) error {
	for i, key := range keys {
		x, covered, err := r.base(key)
		if err != nil {
			return err
		}
		from, kept := r.kept[key]
		if !covered && !r.o.Force && (!kept || x.kept < from) {
			return errorf(KindInvalid, "retain", r.log, "the snapshot of entity %q is gone; nothing was deleted", key)
		}
		if kept { // maybe more than it needs by now
			x.kept = from
		}
		if err := r.records.add(r, appendBase(nil, &x)); err != nil {
			return err
		}
		if i%4096 == 0 {
			r.tell("writing what is kept of entities", uint64(i), uint64(len(keys)))
		}
	}
	if err := r.records.flush(r); err != nil {
		return err
	}
	if r.cut.from == 0 { // there are none: those of retentions that did not come to their end stand before it
		r.mu.Lock()
		r.cut.from = r.s.batches + 1
		r.mu.Unlock()
	}
	var err error
	r.cut.at, err = r.append(1, appendCut(nil, &r.cut))
	return err
}

// append hands a base batch in and waits until it is in the index.
func (r *retention) append(records uint32, encoded []byte) (sequence uint64, err error) {
	b := &baseBatch{log: r.s, records: records, encoded: encoded, done: make(chan error, 1)}
	r.mu.Lock()
	if err := r.refusal(r.log); err != nil {
		r.mu.Unlock()
		return 0, err
	}
	r.bases = append(r.bases, b)
	r.mu.Unlock()
	r.signal()
	// Not until ctx ends: what was handed in is written.
	select {
	case err := <-b.done:
		return b.sequence, err
	case <-r.failed:
		return 0, &Error{Op: "retain", Log: r.log, Kind: KindFailed, Err: r.Err()}
	}
}

// remove deletes what stands before the cut, with half of the time left to others. A
// failed write ends the journal, as that of a commit does.
func (r *retention) remove() error {
	done := uint64(0)
	err := trim(r.ctx, r.storage, r.log, r.cut, func(f func() error) error {
		begin := time.Now()
		if err := r.inside(f); err != nil {
			if kind := storageKind(err); kind != KindClosed && kind != KindCanceled {
				r.fail(nil, &Error{Op: "retain", Log: r.log, Kind: failureKind(err), Err: err})
			}
			return err
		}
		done++
		r.tell("deleting", done, 0)
		timer := time.NewTimer(time.Since(begin))
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-r.ctx.Done():
			return &Error{Op: "retain", Log: r.log, Kind: KindCanceled, Detail: "what is left of the deleted events " +
				"is removed when the journal is next opened", Err: r.ctx.Err()}
		case <-r.failed:
			return &Error{Op: "retain", Log: r.log, Kind: KindFailed, Err: r.Err()}
		}
	})
	if err == nil && r.storage.Compact != nil {
		r.tell("compacting", 0, 0)
		err = r.inside(func() error { return r.storage.Compact(r.ctx) })
	}
	return err
}
