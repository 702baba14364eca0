package commitlog

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

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

func maxKept(o *journal.Retention) int64 {
	if o.MaxKept == 0 {
		return journal.DefaultMaxKept
	}
	return max(o.MaxKept, 0)
}

// Retain deletes the first events of a log. Before that it writes what is needed of them into the log, synced: for each
// entity that loses events, a snapshot from which it can be hydrated together with its later events. If there is no
// snapshot, and Cover makes none, the events themselves are written, up to a bound for all; see Retention.MaxKept.
// Beyond the bound they stay in the log, and all events after the first of them; see Retained.Held. If nothing can be
// deleted for that reason, the error is of kind KindInvalid and names some of the entities.
//
// Batches are deleted whole and in order, so a few events may stay that could be deleted. If Retain is interrupted, the
// log is as before or as it should be after, and what is left to remove is removed when the journal is next opened.
func (j *Journal) Retain(ctx context.Context, log journal.LogName, o journal.Retention) (journal.Retained, error) {
	if o.Before == 0 && o.OlderThan == 0 {
		return journal.Retained{}, journal.Errorf(journal.KindInvalid, "retain", log,
			"neither a position nor a time bounds what shall be "+
				"deleted")
	}
	j.overlay.mu.Lock()
	s := j.overlay.logs[log]
	var err error
	switch {
	case s == nil || s.batches == 0:
		err = journal.Errorf(journal.KindInvalid, "retain", log, "there is no such log")
	case s.retaining:
		err = journal.Errorf(journal.KindInvalid, "retain", log, "another retention of it goes on")
	default:
		err = cmp.Or(j.overlay.refusal(log), s.staleTypes("retain"))
	}
	if err != nil {
		j.overlay.mu.Unlock()
		return journal.Retained{}, err
	}
	s.retaining = true
	j.overlay.mu.Unlock()
	defer func() {
		j.overlay.mu.Lock()
		s.retaining = false
		j.overlay.mu.Unlock()
	}()
	r := retention{Journal: j, ctx: ctx, s: s, log: log, o: o}
	if err := r.run(); err != nil {
		return r.result, stored.ReadError("retain", log, err)
	}
	return r.result, nil
}

// retention is one run of Retain.
type retention struct {
	*Journal
	ctx    context.Context
	s      *logState
	log    journal.LogName
	o      journal.Retention
	cut    format.Cut
	old    map[string]bool            // entities that had lost events before
	floors map[string]floored         // of all entities that have lost events then
	kept   map[string]journal.Version // of those whose events are kept: of the first of these
	types  typeCut
	looked uint64 // up to this batch at least the index had come when firsts looked
	// records are those of the base batch that is being made.
	records baseRecords
	result  journal.Retained
}

// floored is an entity that loses events, or has lost some.
type floored struct {
	at    journal.Version
	kept  journal.Version // of the last event that is kept already; 0 if none is
	first uint64          // sequence of the first batch with events that it loses now; 0 if it loses none
}

func (r *retention) run() error {
	r.result.First = r.First(r.log)
	keys, err := r.plan()
	if err != nil || r.cut.Sequence == 0 {
		return err
	}
	if r.o.DryRun {
		r.result.First, r.result.Through = r.cut.Position, r.cut.Sequence-1
		return nil
	}
	if r.o.Archive != nil {
		r.tell("archiving", 0, 0)
		if err := r.o.Archive(r.ctx, journal.BatchRange{UpTo: r.cut.Sequence - 1}); err != nil {
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
	r.result.First, r.result.Through = r.cut.Position, r.cut.Sequence-1
	if err := r.cutTypes(); err != nil {
		return r.leaveTypes(err)
	}
	return r.remove()
}

// enforce writes the cut, with what is kept of entities, and puts it in force.
func (r *retention) enforce(keys []string) error {
	if r.o.Hold != nil {
		release, err := r.o.Hold(r.cut.Position)
		if err != nil {
			return err
		}
		defer release()
	}
	if err := r.write(keys); err != nil {
		return err
	}
	r.overlay.mu.Lock()
	defer r.overlay.mu.Unlock()
	r.s.trimmed = r.cut
	r.overlay.cutBytes(r.s, r.result.Bytes)
	return nil
}

// firsts looks for the first event after the cut of each type that loses events and has others. That may take a while,
// so nothing is written before they are known.
func (r *retention) firsts() error {
	if err := r.overlay.awaitIndex(r.ctx, r.log); err != nil {
		return err
	}
	r.types.cut = r.cut
	var wanted []string
	err := r.inside(func() error {
		// First how far the index has come: it may go on while the entries are read.
		value, _, err := r.storage.Index.Get(r.ctx, format.CheckpointKey(r.log))
		if err != nil {
			return err
		}
		at, _ := format.DecodeCheckpoint(value)
		r.looked = max(at.Sequence, r.cut.Sequence-1)
		return eachTypeEntry(r.ctx, r.storage.Index, r.log, func(name string, e format.TypeEntry) error {
			e, known, err := r.types.after(name, e)
			switch {
			case err == nil && !known:
				wanted = append(wanted, name)
			case r.types.gone[name] > 0 && e.Count > 0: // it has one more, and may soon have others
				r.types.firsts[name] = e.First
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	return r.look(r.ctx, wanted, r.cut.Sequence-1, r.o.Pace)
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
	err := r.Batches(ctx, r.log, journal.BatchRange{From: r.cut.Position, After: after}, func(b journal.Block) error {
		if pace != nil {
			if err := pace(); err != nil {
				return err
			}
		}
		err := format.EachCommit(b, func(_ *format.BatchHeader, _ int, first journal.Position,
			c *format.DecodedCommit) error {
			for i := range c.Events {
				if name := c.Events[i].Type; left[name] {
					delete(left, name)
					r.types.firsts[name] = first + journal.Position(i)
				}
			}
			return nil
		})
		if err == nil && len(left) == 0 {
			err = stored.ErrStop
		}
		return err
	})
	switch {
	case err == nil:
		return damagedTypes(r.log, "the event catalogue has events that the log does not have")
	case errors.Is(err, stored.ErrStop):
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
		// There is little to examine, and the cut is in force.
		if err := r.look(context.WithoutCancel(r.ctx), wanted, r.looked, nil); err != nil {
			return err
		}
	}
}

// leaveTypes notes that the catalogue counts deleted events. It must neither be served nor be what the next retention
// corrects: its entries would then seem to be right. What is to be removed is left to the next Open, too.
func (r *retention) leaveTypes(why error) error {
	r.overlay.mu.Lock()
	defer r.overlay.mu.Unlock()
	r.s.typesStale = why
	return r.s.staleTypes("retain")
}

// staleTypes is the error for whoever needs the event catalogue while it counts deleted events, or nil. The caller
// holds overlay.mu.
func (s *logState) staleTypes(op string) error {
	if s == nil || s.typesStale == nil {
		return nil
	}
	return because(op, s.name, s.typesStale, fmt.Sprintf("a retention has deleted the events before position %d, but "+
		"the event catalogue still counts them; opening the journal again corrects it", s.trimmed.Position))
}

// because is an error with the kind of why. Its detail includes that of why, as clients see the innermost one only.
func because(op string, log journal.LogName, why error, detail string) error {
	own := &journal.Error{Op: op, Log: log, Kind: stored.StorageKind(why), Detail: detail}
	if inner := journal.DetailOf(why); inner != "" {
		own.Detail += " (" + inner + ")"
		return own
	}
	own.Err = why
	return own
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
		r.cut, r.floors, r.kept = format.Cut{}, map[string]floored{}, map[string]journal.Version{}
		r.types = typeCut{log: r.s, gone: map[string]uint64{}, firsts: map[string]journal.Position{}}
		r.result = journal.Retained{First: r.result.First, Held: r.result.Held, HeldBy: r.result.HeldBy}
		if err := r.find(); err != nil || r.cut.Sequence == 0 {
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
		if first <= r.overlay.cutOf(r.log).Sequence || first <= 1 {
			return nil, journal.Errorf(journal.KindInvalid, "retain", r.log, "of %d entities that would lose events, "+
				"%d have no snapshot that covers these, among them %s, "+
				"and no more than %d bytes of such events may be kept apart; nothing was deleted",
				len(keys), len(held), quoted(r.result.HeldBy), maxKept(&r.o))
		}
		// Batches are deleted in order, so all events after one that stays have to stay, too.
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
	promised := r.opt.Clock() - journal.UnixNano(r.opt.AnswerWindow)
	r.cut.Origin, r.cut.Before = r.Origin(r.log), r.overlay.cutOf(r.log).Before
	err := r.Batches(r.ctx, r.log, journal.BatchRange{}, func(b journal.Block) error {
		if err := r.pace(); err != nil {
			return err
		}
		h, _, reason := format.DecodeBatch(b.Data)
		if reason != "" {
			return journal.Errorf(journal.KindCorrupt, "retain", r.log, "batch %d at position %d: %s", b.Sequence,
				b.First, reason)
		}
		next := h.First + journal.Position(h.Events)
		if r.o.Through > 0 && b.Sequence > r.o.Through || r.o.Before > 0 && next > r.o.Before || r.o.OlderThan > 0 &&
			h.Time >= r.o.OlderThan {
			return stored.ErrStop
		}
		if h.Time >= promised && !r.o.Force {
			r.result.Promised = true
			return stored.ErrStop
		}
		r.cut.Sequence, r.cut.Position = b.Sequence+1, next
		if h.Events > 0 {
			r.cut.Before = h.Stamp()
		}
		r.result.Batches++
		r.result.Events += uint64(h.Events)
		r.result.Bytes += uint64(len(b.Data))
		if r.result.Batches%256 == 0 {
			r.tell("looking for what may go", r.result.Batches, 0)
		}
		return format.EachCommit(b, func(_ *format.BatchHeader, _ int, _ journal.Position,
			c *format.DecodedCommit) error {
			if len(c.Events) > 0 {
				x := r.floors[c.Command.Key]
				if x.first == 0 {
					x.first = b.Sequence
				}
				x.at = c.Expected + journal.Version(len(c.Events))
				r.floors[c.Command.Key] = x
			}
			for i := range c.Events {
				r.types.gone[c.Events[i].Type]++
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, stored.ErrStop) {
		return err
	}
	if r.cut.Sequence == 0 {
		return nil
	}
	r.old = map[string]bool{}
	last := r.overlay.cutOf(r.log)
	err = r.inside(func() error {
		prefix := format.IndexPrefix('f', r.log)
		return r.storage.Index.Scan(r.ctx, prefix, prefix, func(k, value []byte) error {
			key, sequence, ok := format.ParseFloorKey(r.log, k)
			if ok && !last.Keeps(sequence) {
				return nil
			}
			var x format.Base
			if !ok || !format.OpenFloor(value, &x) {
				return journal.Errorf(journal.KindCorrupt, "retain", r.log,
					"what an earlier retention left is damaged in the index; "+
						"rebuild the index")
			}
			r.old[key] = true
			now := r.floors[key]
			now.at = max(now.at, x.Floor)
			if x.Kept > 0 {
				now.kept = x.Floor
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
func (r *retention) base(key string) (x format.Base, covered bool, err error) {
	x = format.Base{Key: key, Floor: r.floors[key].at}
	var old format.Base
	if r.old[key] {
		if old, _, err = r.floor(r.ctx, r.log, key); err != nil {
			return x, false, err
		}
	}
	s, ok, err := r.Snapshot(r.ctx, r.log, key)
	if err != nil && journal.KindOf(err) != journal.KindCorrupt {
		return x, false, err
	}
	ok = err == nil && ok && s.Version >= old.Gone() && (s.Version <= x.Floor || r.onDisk(key, s.Version))
	counts := ok && s.Schema == r.o.Schema && (r.o.Module == journal.Digest{} || r.o.Module == s.Module)
	switch {
	case counts && s.Version >= x.Floor:
		x.Snapshot = &s
		return x, true, nil
	case r.old[key] && old.Kept == 0 && old.Floor == x.Floor:
		// It loses nothing now. Its state is what it was, also if that is none.
		return old, true, nil
	case r.o.Force:
		if ok && s.Version >= x.Floor {
			x.Snapshot = &s // one that does not count is better than none
		}
		return x, false, nil
	case counts:
		x.Kept, x.Snapshot = s.Version+1, &s
	default:
		x.Kept, x.Snapshot = old.Gone()+1, old.Snapshot
	}
	return x, false, nil
}

// onDisk reports whether an entity has durably come to a version, and waits for what
// is in flight.
func (r *retention) onDisk(key string, v journal.Version) bool {
	done := make(chan bool, 1)
	r.Settle(r.log, key, func(receipt journal.Receipt, err error) { done <- err == nil && receipt.Version() >= v })
	return <-done
}

// uncovered is an entity whose state no snapshot covers.
type uncovered struct {
	key   string
	from  journal.Version // of the first event that it needs
	first uint64          // as that of floored
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
				return nil, &journal.Error{Op: "retain", Log: r.log, Kind: journal.KindCanceled, Err: r.ctx.Err()}
			}
			if x, covered, err = r.base(key); err != nil {
				return nil, err
			}
		}
		if !covered {
			without = append(without, uncovered{key, x.Kept, r.floors[key].first})
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
		if !covered && !r.o.Force && (!kept || x.Kept < from) {
			return journal.Errorf(journal.KindInvalid, "retain", r.log,
				"the snapshot of entity %q is gone; nothing was deleted", key)
		}
		if kept { // maybe more than it needs by now
			x.Kept = from
		}
		if err := r.records.add(r, format.AppendBase(nil, &x)); err != nil {
			return err
		}
		if i%4096 == 0 {
			r.tell("writing what is kept of entities", uint64(i), uint64(len(keys)))
		}
	}
	if err := r.records.flush(r); err != nil {
		return err
	}
	if r.cut.From == 0 { // there are none: those of retentions that did not come to their end stand before it
		r.overlay.mu.Lock()
		r.cut.From = r.s.batches + 1
		r.overlay.mu.Unlock()
	}
	var err error
	r.cut.At, err = r.append(1, format.AppendCut(nil, &r.cut))
	return err
}

// append hands a base batch in and waits until it is in the index.
func (r *retention) append(records uint32, encoded []byte) (sequence uint64, err error) {
	b := &baseBatch{log: r.s, records: records, encoded: encoded, done: make(chan error, 1)}
	r.overlay.mu.Lock()
	if err := r.overlay.refusal(r.log); err != nil {
		r.overlay.mu.Unlock()
		return 0, err
	}
	r.overlay.bases = append(r.overlay.bases, b)
	r.overlay.mu.Unlock()
	r.overlay.signal()
	// Not until ctx ends: what was handed in is written.
	select {
	case err := <-b.done:
		return b.sequence, err
	case <-r.overlay.failed:
		return 0, &journal.Error{Op: "retain", Log: r.log, Kind: journal.KindFailed, Err: r.Err()}
	}
}

// remove deletes what is before the cut. It leaves half of the time to others. A failed write ends the journal, as that
// of a commit does.
func (r *retention) remove() error {
	done := uint64(0)
	err := trim(r.ctx, r.storage, r.log, r.cut, func(f func() error) error {
		begin := time.Now()
		if err := r.inside(f); err != nil {
			if kind := stored.StorageKind(err); kind != journal.KindClosed && kind != journal.KindCanceled {
				r.overlay.fail(nil, &journal.Error{Op: "retain", Log: r.log, Kind: failureKind(err), Err: err})
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
			return &journal.Error{Op: "retain", Log: r.log, Kind: journal.KindCanceled,
				Detail: "what is left of the deleted events " +
					"is removed when the journal is next opened", Err: r.ctx.Err()}
		case <-r.overlay.failed:
			return &journal.Error{Op: "retain", Log: r.log, Kind: journal.KindFailed, Err: r.Err()}
		}
	})
	if err == nil && r.storage.Compact != nil {
		r.tell("compacting", 0, 0)
		err = r.inside(func() error { return r.storage.Compact(r.ctx) })
	}
	return err
}
