package commitlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// errGap is in the error of an entity whose versions are not dense.
var errGap = errors.New("versions are missing")

// Settle calls done once everything handed in for the entity so far is on disk, with a receipt for its state then: at
// once and on the caller's goroutine if nothing is in flight, else on the journal's, where done must not block. A
// KindFailed error means that the state may be void. Once the journal has failed, no state has a receipt, as it is
// unknown what the caller saw.
func (j *Journal) Settle(log journal.LogName, key string, done func(journal.Receipt, error)) {
	j.overlay.mu.Lock()
	if err := j.overlay.refusesReceipt(log); err != nil {
		j.overlay.mu.Unlock()
		done(journal.Receipt{}, err)
		return
	}
	s := j.overlay.logs[log]
	if s != nil {
		if e := s.entities[key]; e != nil && e.waiting > 0 {
			last := e.commits[len(e.commits)-1]
			last.waiters = append(last.waiters, func(p *pending, err error) {
				if err != nil {
					done(journal.Receipt{}, err)
					return
				}
				state := p.proven()
				state.ID, state.First, state.Events = "", state.First+journal.Position(state.Events), 0
				done(journal.NewReceipt(minting, state), nil)
			})
			j.overlay.mu.Unlock()
			return
		}
	}
	state := journal.Proven{Log: log, Key: key, First: 1}
	known := s == nil // a log without commits has only new entities
	if s != nil {
		state.First = s.head + 1
		state.Version, known = j.overlay.knownVersion(s, key)
	}
	j.overlay.mu.Unlock()
	if !known {
		v, err := j.indexedVersion(context.Background(), log, key)
		if err != nil {
			done(journal.Receipt{}, err)
			return
		}
		state.Version = v
	}
	done(journal.NewReceipt(minting, state), nil)
}

// Answer finds the commit of a command id that was handed in within the window.
// If found is true, done is called once the commit is on disk: before Answer
// returns if it is already, else on the journal's goroutine, where it must not
// block. The Committed it gets is done's to keep.
func (j *Journal) Answer(
	ctx context.Context, log journal.LogName, id journal.CommandID,
	done func(*journal.Committed, journal.Receipt, error),
) (found bool, err error) {
	for {
		j.overlay.mu.Lock()
		s := j.overlay.logs[log]
		if s == nil {
			j.overlay.mu.Unlock()
			return false, nil
		}
		if p := s.ids[id]; p != nil {
			if !p.durable {
				p.waiters = append(p.waiters, func(p *pending, err error) {
					if err != nil {
						done(nil, journal.Receipt{}, err)
						return
					}
					done(p.committed(), p.receipt(), nil)
				})
				j.overlay.mu.Unlock()
				return true, nil
			}
			j.overlay.mu.Unlock()
			done(p.committed(), p.receipt(), nil)
			return true, nil
		}
		seen := s.indexing
		j.overlay.mu.Unlock()
		where, use, err := j.findAnswer(ctx, log, id)
		if err != nil {
			return false, err
		}
		if use == idUsed {
			c, err := j.commitAt(ctx, log, where)
			if err != nil {
				return false, err
			}
			done(c, receiptOf(c, j.Origin(log)), nil)
			return true, nil
		}
		j.overlay.mu.Lock()
		moved := s.indexing != seen
		if !moved {
			s.absent(id, use)
		}
		j.overlay.mu.Unlock()
		if !moved {
			return false, nil
		}
	}
}

// receiptOf is the receipt of a commit that was read from the log.
func receiptOf(c *journal.Committed, origin journal.Stamp) journal.Receipt {
	return journal.NewReceipt(minting, journal.Proven{Log: c.Log, Key: c.Command.Key, ID: c.Command.ID, First: c.First,
		Events: uint32(len(c.Events)), Version: c.Version, Time: c.Time, Origin: origin, Stamp: c.Stamp})
}

// findAnswer looks a command id up in the index. There is a place if it is in use.
func (j *Journal) findAnswer(
	ctx context.Context, log journal.LogName, id journal.CommandID,
) (format.Place, idUse, error) {
	if err := j.reads.enter("answer", log); err != nil {
		return format.Place{}, idUnused, err
	}
	defer j.reads.leave()
	days := j.answers.days()
	var value []byte
	ok := false
	for i := 0; i < len(days) && !ok; i++ {
		var err error
		if value, ok, err = j.storage.Index.Get(ctx, format.AnswerKey(log, id, days[i].Day)); err != nil {
			return format.Place{}, idUnused, &journal.Error{Op: "answer", Log: log, Kind: stored.StorageKind(err),
				Err: err}
		}
	}
	if !ok {
		return format.Place{}, idUnused, nil
	}
	where, ok := format.DecodePlace(value)
	switch {
	case !ok:
		return format.Place{}, idUnused,
			journal.Errorf(journal.KindCorrupt, "answer", log, "the index entry of command %q is damaged; rebuild "+
				"the index", id)
	case where.Sequence < j.overlay.cutOf(log).Sequence:
		return format.Place{}, idUnused, nil
	case where.Time+journal.UnixNano(j.opt.AnswerWindow) < j.opt.Clock():
		return format.Place{}, idExpired, nil
	}
	return where, idUsed, nil
}

// commitAt reads one commit from the log.
func (j *Journal) commitAt(ctx context.Context, log journal.LogName, where format.Place) (*journal.Committed, error) {
	if err := j.reads.enter("answer", log); err != nil {
		return nil, err
	}
	defer j.reads.leave()
	var found *journal.Committed
	err := j.storage.Log.Blocks(ctx, log, where.First, func(b journal.Block) error {
		if b.Sequence < where.Sequence {
			return nil
		}
		if b.Sequence > where.Sequence {
			return stored.ErrStop
		}
		return format.EachCommit(b, func(h *format.BatchHeader, ordinal int, first journal.Position,
			c *format.DecodedCommit) error {
			if uint64(ordinal) == where.Ordinal {
				found = c.Committed(h, first)
				return stored.ErrStop
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, stored.ErrStop) {
		return nil, stored.ReadError("answer", log, err)
	}
	if found == nil {
		return nil, journal.Errorf(journal.KindCorrupt, "answer", log,
			"the index points to commit %d of batch %d, which is not "+
				"there; rebuild the index", where.Ordinal, where.Sequence)
	}
	if last := found.First + journal.Position(len(found.Events)) - 1; found.Stamp == (journal.Stamp{}) && last > 0 {
		// The event before it is in another batch. Where that is damaged the answer is still the answer.
		if found.Stamp, err = j.StampAt(ctx, log, last); err != nil && journal.KindOf(err) != journal.KindCorrupt {
			return nil, err
		}
	}
	return found, nil
}

// Load yields the events of an entity with a version above after, in order, and
// returns the entity's version. It sees every commit handed in before, on disk or
// not; events that are not on disk yet have position 0 and no time. An event and
// its slices are valid during their yield only. An error of yield ends the scan
// and is returned as it is. If after is above the entity's version, as a snapshot may
// claim when the log has lost its end, nothing is yielded; the version says so. If
// memory knows that nothing follows on after, nothing is read. If a retention has
// deleted some of these events, the error's kind is KindTrimmed.
func (j *Journal) Load(
	ctx context.Context, log journal.LogName, key string, after journal.Version, yield func(*journal.Event) error,
) (journal.Version, error) {
	if v, known := j.overlay.nothingAbove(log, key, after); known {
		return v, j.reads.check("load", log)
	}
	at, there := after, false
	for gapped := false; ; {
		c := j.overlay.cutOf(log)
		var err error
		if at, err = j.loadKept(ctx, log, key, c, at, yield); errors.Is(err, errGap) && j.overlay.cutOf(log) != c {
			gapped = true
			continue
		} else if err != nil {
			return 0, err
		}
		held, seen, s := j.overlay.eventsOf(log, key)
		most := ^journal.Version(0) // what the overlay has is taken from there: the index may have half of it
		if len(held) > 0 {
			most = held[0].Version - 1
		}
		at, there, err = j.scanEntity(ctx, log, key, at, most, yield)
		lacks := errors.Is(err, errGap)
		if (err == nil || lacks) && j.overlay.cutOf(log) != c || lacks && j.overlay.moved(s, key, seen) {
			// A part of what was handed in since may be in the index already; or a retention
			// has begun meanwhile, and takes events away: the last ones, too, which leaves no gap.
			gapped = gapped || lacks
			continue
		}
		if err != nil {
			return 0, err
		}
		for i := range held {
			e := &held[i]
			if e.Version <= at {
				continue
			}
			if e.Version != at+1 {
				return 0, gap("load", log, key, at, e.Version)
			}
			if err := yield(e); err != nil {
				return 0, err
			}
			at = e.Version
		}
		if at == after && !there && !gapped {
			// This is only what the caller claims.
			if at, err = j.versionUpTo(ctx, log, key, after); err != nil {
				return 0, err
			}
		}
		if s != nil {
			j.overlay.mu.Lock()
			// Unless something went through the overlay meanwhile.
			if s.entities[key] == nil && s.indexing == seen {
				j.overlay.versions.put(j.overlay.versions.key(log, key), at)
			}
			j.overlay.mu.Unlock()
		}
		return at, nil
	}
}

// loadKept yields an entity's kept events above a version, which come before those in the log. It returns the version
// after which to go on, also with an error. It refuses a version below what is deleted.
func (j *Journal) loadKept(
	ctx context.Context, log journal.LogName, key string, c format.Cut, after journal.Version,
	yield func(*journal.Event) error,
) (journal.Version, error) {
	if c.Sequence == 0 {
		return after, nil
	}
	x, lost, err := j.storedFloor(ctx, log, key, c)
	switch {
	case err != nil || !lost || after >= x.Floor:
		return after, err
	case after < x.Gone():
		return after, journal.Errorf(journal.KindTrimmed, "load", log,
			"a retention has deleted the events of entity %q up to version %d", key, x.Gone())
	}
	at, stopped, err := j.scanKept(ctx, log, &x, c, after, yield)
	if stopped != nil {
		err = stopped
	}
	return at, err
}

// Entity yields the durable events of an entity with a version above after, in order, and at most limit of them if
// limit is above 0. It may lack events up to Head that are not indexed yet. An after of 0 means the first event that
// retentions have left. A version that the entity does not durably have is an error of kind KindVersion. Otherwise the
// rules are those of [Journal.Load].
func (j *Journal) Entity(
	ctx context.Context, log journal.LogName, key string, after journal.Version, limit int,
	yield func(*journal.Event) error,
) error {
	head := j.Head(log)
	count := 0
	if after == 0 {
		floor, _, err := j.floor(ctx, log, key)
		if err != nil {
			return err
		}
		after = floor.Gone()
	}
	held, _, _ := j.overlay.eventsOf(log, key)
	v, err := j.Load(ctx, log, key, after, func(e *journal.Event) error {
		if e.Position == 0 || e.Position > head || limit > 0 && count >= limit {
			return stored.ErrStop
		}
		count++
		return yield(e)
	})
	if errors.Is(err, stored.ErrStop) {
		return nil
	}
	if err == nil && count == 0 && after > 0 {
		if n := len(held); v == after && n > 0 && held[n-1].Position == 0 { // what is in flight has not happened yet
			v = after - 1
		}
		if v < after {
			return journal.Errorf(journal.KindVersion, "load", log, "entity %q has not come to version %d", key, after)
		}
	}
	return err
}

func gap(op string, log journal.LogName, key string, at, next journal.Version) error {
	return &journal.Error{Op: op, Log: log, Kind: journal.KindCorrupt, Err: errGap,
		Detail: fmt.Sprintf("entity %q goes from version %d to %d; rebuild the index", key, at, next)}
}

// scanEntity yields an entity's events up to the version most as the index has them
// and returns the last version, also with an error. there says that the index has the event of version after, too, or
// that this is 0.
func (j *Journal) scanEntity(
	ctx context.Context, log journal.LogName, key string, after, most journal.Version, yield func(*journal.Event) error,
) (last journal.Version, there bool, err error) {
	if err := j.reads.enter("load", log); err != nil {
		return after, false, err
	}
	defer j.reads.leave()
	prefix := format.EntityPrefix(log, key)
	at := after
	there = after == 0
	var e journal.Event
	t := format.Texts{Together: true}
	var stopped error // of yield, which goes back as it is
	// From after on, and not from what follows: it costs less than another look-up.
	err = j.storage.Index.Scan(ctx, prefix, format.EntityKey(prefix, max(after, 1)), func(k, value []byte) error {
		v, ok := format.EntityVersion(prefix, k)
		if ok && v == after {
			there = true
			return nil
		}
		if ok && v > most {
			return stored.ErrStop
		}
		e = journal.Event{Log: log, Key: key, Version: v}
		if !ok || !format.DecodeIndexEvent(value, &e, &t) {
			return journal.Errorf(journal.KindCorrupt, "load", log, "the index entry of entity %q after version %d "+
				"is damaged; rebuild the index", key, at)
		}
		if v != at+1 {
			return gap("load", log, key, at, v)
		}
		at = v
		stopped = yield(&e)
		return stopped
	})
	if stopped != nil {
		return at, there, stopped
	}
	if errors.Is(err, stored.ErrStop) {
		err = nil
	}
	return at, there, stored.ReadError("load", log, err)
}

// Read yields the events on disk with a position above after, in order, at most
// limit of them if limit is above 0. The rules of yield are those of [Journal.Load].
// Damaged bytes are a KindCorrupt error that names the batch, never an event. After 0
// begins with the first event that a retention has left; other places before that are
// a KindTrimmed error. A log with damage ends with that error, not as if that were all.
func (j *Journal) Read(
	ctx context.Context, log journal.LogName, after journal.Position, limit int, yield func(*journal.Event) error,
) error {
	head := j.Head(log)
	if first := j.First(log); after == 0 {
		after = first - 1
	} else if after+1 < first {
		return trimmedLog(log, first)
	}
	if after >= head {
		return j.Damage(log)
	}
	count, at := 0, after
	var e journal.Event
	err := j.scanLog(ctx, log, after+1, func(h *format.BatchHeader, first journal.Position,
		c *format.DecodedCommit) error {
		for i := range c.Events {
			e = c.Event(h, first, i)
			if e.Position <= after {
				continue
			}
			if e.Position > head || limit > 0 && count >= limit {
				return stored.ErrStop
			}
			if first := j.First(log); e.Position != at+1 && at+1 < first {
				return trimmedLog(log, first) // a retention has begun meanwhile
			}
			if e.Position != at+1 {
				return journal.Errorf(journal.KindCorrupt, "read", log,
					"position %d follows on position %d: a part of the log is "+
						"missing", e.Position, at)
			}
			at = e.Position
			count++
			if err := yield(&e); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && at < head && (limit <= 0 || count < limit) {
		return journal.Errorf(journal.KindCorrupt, "read", log, "the log ends at position %d and should at %d: its "+
			"end is missing", at,
			head)
	}
	if err == nil && at == head && (limit <= 0 || count < limit) {
		err = j.Damage(log)
	}
	return err
}

// Commits yields the whole commits on disk whose events stand above after, in
// order; those without events where their neighbours are. What it yields is the
// caller's to keep. It begins with what a retention has left.
func (j *Journal) Commits(
	ctx context.Context, log journal.LogName, after journal.Position, yield func(*journal.Committed) error,
) error {
	return j.scanLog(ctx, log, after+1, func(h *format.BatchHeader, first journal.Position,
		c *format.DecodedCommit) error {
		if first+journal.Position(len(c.Events)) <= after+1 && (len(c.Events) > 0 || first <= after) {
			return nil
		}
		return yield(c.Committed(h, first))
	})
}

// scanLog yields the commits of a log, beginning somewhere at or before from, but not
// with what a retention has deleted. stored.ErrStop of yield ends it without error.
func (j *Journal) scanLog(
	ctx context.Context, log journal.LogName, from journal.Position,
	yield func(*format.BatchHeader, journal.Position, *format.DecodedCommit) error,
) error {
	if err := j.reads.enter("read", log); err != nil {
		return err
	}
	defer j.reads.leave()
	var durable uint64 // later batches are being written, or belong to an append that failed
	j.overlay.mu.Lock()
	if s := j.overlay.logs[log]; s != nil {
		durable = s.batches
	}
	j.overlay.mu.Unlock()
	scan := logScan{journal: j, order: sequel{log: log}, yield: yield, copy: format.Buffers.Get().(*format.Buffer)}
	defer scan.copy.Release()
	begin := j.overlay.cutOf(log)
	err := j.storage.Log.Blocks(ctx, log, max(from, begin.Position), func(b journal.Block) error {
		switch {
		case b.Sequence < begin.Sequence:
			return nil
		case b.Sequence > durable:
			return stored.ErrStop
		}
		return scan.block(b)
	})
	if rest := scan.flush(nil); rest != nil {
		err = rest
	}
	switch {
	case errors.Is(scan.stopped, stored.ErrStop), scan.stopped == nil && errors.Is(err, stored.ErrStop):
		return nil
	case scan.stopped != nil:
		return scan.stopped
	}
	return stored.ReadError("read", log, err)
}

// logScan decodes one block after the other. Their events need a stamp, and hashing all blocks would take a quarter of
// the time of a scan. So it lags by one block, and takes the hash from the next block, which has it.
type logScan struct {
	journal *Journal
	order   sequel
	yield   func(*format.BatchHeader, journal.Position, *format.DecodedCommit) error
	stopped error // of yield, which goes back as it is

	held   bool // there is a block that was not decoded yet:
	last   journal.Block
	header format.BatchHeader
	body   []byte
	copy   *format.Buffer // what these refer to
}

// block takes the next block, and yields the commits of the one before.
func (s *logScan) block(b journal.Block) error {
	h, body, err := format.OpenBlock(&b)
	var next *format.BatchHeader
	if err == nil {
		next = &h
	}
	if err := s.flush(next); err != nil {
		return err
	}
	if err := s.order.follow(b); err != nil {
		if now := s.journal.overlay.cutOf(b.Log); s.order.sequence+1 < now.Sequence {
			err = trimmedLog(b.Log, now.Position) // a retention has begun meanwhile
		}
		return err
	}
	if err != nil {
		return err
	}
	s.held, s.last, s.header, s.body = true, b, h, body
	if len(b.Data) > yield.Step { // large events are not many: their batch is hashed rather than kept
		return s.flush(nil)
	}
	s.copy.B = append(s.copy.B[:0], b.Data...)
	s.last.Data, s.header.Whole, s.body = s.copy.B, s.copy.B, s.copy.B[len(b.Data)-len(body):]
	return nil
}

// flush yields the commits of the block that is held; next is the header of the following one, if that is known.
func (s *logScan) flush(next *format.BatchHeader) error {
	if !s.held {
		return nil
	}
	s.held = false
	if next != nil && next.Sequence == s.header.Sequence+1 {
		s.header.Hash = next.Previous
	}
	return format.EachOpened(&s.last, s.header, s.body, func(h *format.BatchHeader, _ int, first journal.Position,
		c *format.DecodedCommit) error {
		s.order.next = first + journal.Position(len(c.Events))
		s.stopped = s.yield(h, first, c)
		return s.stopped
	}, func(*format.BatchHeader, format.BaseRecord) error { return nil })
}
