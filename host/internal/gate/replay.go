package gate

import (
	"context"
	"errors"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/scratch"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

const (
	// maxFirst is how many differences of each sort a report shows.
	maxFirst = 5
	// maxCompared is how many entities of a sample are replayed by the running module, too, to compare states.
	maxCompared = 1000
	// tellEvery is how many entities or commands are between two reports of progress.
	tellEvery = 256
)

// errEnough ends a stage: its budget is spent.
var errEnough = errors.New("the budget is spent")

// replay replays entities with the new module: first those that must be, then others within the budget.
func (g *gate) replay(ctx context.Context) error {
	g.seen = map[string]bool{}
	if g.Verify.Mode == service.VerifyAll {
		return g.Log.Keys(ctx, g.log(), "", func(key string) error { return g.entity(ctx, key) })
	}
	if err := g.everyType(ctx); err != nil {
		return err
	}
	if err := g.schemas(ctx); err != nil {
		return err
	}
	err := g.others(ctx)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// everyType replays the entities of the oldest and of the newest event of every type. The form of a type may
// have changed over time, so both count.
func (g *gate) everyType(ctx context.Context) error {
	var apart []journal.EventType // those that a retention has moved out of the log, at least the oldest event
	for _, t := range g.types {
		for _, at := range []journal.Position{t.First, t.Last} {
			found, err := g.at(ctx, at)
			if err != nil {
				return err
			}
			if !found && (len(apart) == 0 || apart[len(apart)-1].Type != t.Type) {
				apart = append(apart, t)
			}
		}
	}
	if len(apart) == 0 {
		return nil
	}
	keys, err := g.kept(ctx, apart)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := g.once(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// kept returns the keys of the entities of the oldest and of the newest kept event of each of these types.
func (g *gate) kept(ctx context.Context, types []journal.EventType) (keys []string, err error) {
	for {
		first, last := map[string]string{}, map[string]string{} // by type
		n := 0
		err := g.Log.Kept(ctx, g.log(), func(e *journal.Event) error {
			if n++; n%tellEvery == 0 {
				if err := g.Pace(ctx); err != nil {
					return err
				}
			}
			if _, ok := first[e.Type]; !ok {
				first[e.Type] = e.Key
			}
			last[e.Type] = e.Key
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil && journal.KindOf(err) == journal.KindTrimmed:
			continue // by a retention meanwhile
		case err != nil:
			return nil, g.unread(err)
		}
		for _, t := range types {
			if key, ok := first[t.Type]; ok { // otherwise a retention has just deleted it
				keys = append(keys, key, last[t.Type])
			}
		}
		return keys, nil
	}
}

// at replays the entity of the event at a position, unless it was; false if the log has no such event.
func (g *gate) at(ctx context.Context, at journal.Position) (found bool, err error) {
	if at == 0 {
		return false, nil
	}
	if err := g.Pace(ctx); err != nil {
		return false, err
	}
	key := ""
	err = g.Log.Read(ctx, g.log(), at-1, 1, func(e *journal.Event) error {
		key, found = e.Key, e.Position == at
		return nil
	})
	if err != nil && journal.KindOf(err) != journal.KindTrimmed {
		return false, g.unread(err)
	}
	if !found {
		return false, nil
	}
	return true, g.once(ctx, key)
}

// once replays an entity of a sample, unless it was.
func (g *gate) once(ctx context.Context, key string) error {
	if g.seen[key] {
		return nil
	}
	return g.entity(ctx, key)
}

// schemas replays one entity for each schema of the snapshots that stand for deleted events.
func (g *gate) schemas(ctx context.Context) error {
	have := map[uint32]bool{}
	var keys []string
	n := 0
	err := g.Log.AllTrimmed(ctx, g.log(), "", func(t journal.Trimmed) error {
		if n++; n%tellEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if t.Snapshot != nil && !have[t.Snapshot.Schema] {
			have[t.Snapshot.Schema] = true
			keys = append(keys, t.Key)
		}
		return nil
	})
	if err != nil {
		return g.unread(err)
	}
	for _, key := range keys {
		if err := g.once(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// others replays further entities of a sample: all if there are few, otherwise those of events that are spread
// over the log.
func (g *gate) others(ctx context.Context) error {
	end := time.Now().Add(g.Verify.Time)
	within := func() error {
		if time.Now().After(end) || len(g.seen) >= g.Verify.Entities {
			return errEnough
		}
		return nil
	}
	first, head := g.Log.First(g.log()), g.Log.Head(g.log())
	if head < first {
		return nil
	}
	if events := uint64(head - first + 1); events > uint64(g.Verify.Entities) {
		step := float64(events) / float64(g.Verify.Entities)
		for i := range g.Verify.Entities {
			if err := within(); err != nil {
				return err
			}
			if _, err := g.at(ctx, first+journal.Position(float64(i)*step)); err != nil {
				return err
			}
		}
	}
	return g.Log.Keys(ctx, g.log(), "", func(key string) error {
		if err := within(); err != nil {
			return err
		}
		return g.once(ctx, key)
	})
}

// entity replays one entity.
func (g *gate) entity(ctx context.Context, key string) error {
	if g.Verify.Mode != service.VerifyAll {
		g.seen[key] = true
	}
	if g.report.Entities%tellEvery == 0 {
		g.Progress(StageReplaying, int64(g.report.Entities), g.total())
	}
	if err := g.Pace(ctx); err != nil {
		return err
	}
	g.report.Entities++
	err := g.New.Open(ctx, service.Key(key), scratch.Latest, scratch.FromEvents)
	if err != nil {
		return g.failed(ctx, key, err)
	}
	g.report.Events += uint64(g.New.Version())
	return g.compare(ctx, key)
}

// total is about how many entities are replayed; 0 if that is not known.
func (g *gate) total() int64 {
	if g.Verify.Mode == service.VerifyAll {
		return 0
	}
	return int64(g.Verify.Entities)
}

// failed decides what it means that the new module could not read an entity: nothing, if the running one
// cannot either.
func (g *gate) failed(ctx context.Context, key string, err error) error {
	var own *service.Error
	if errors.As(err, &own) && own.Code == scratch.CodeHistoryDeleted {
		// No module can read it, or it takes none of the snapshots, which is judged elsewhere, for all entities.
		g.unreadable(err)
		return nil
	}
	if !scratch.IsFault(err) {
		return err
	}
	lost, other := g.lostAlready(ctx, service.Key(key))
	if other != nil {
		return other
	}
	if lost {
		g.unreadable(err)
		return nil
	}
	refused := g.refusal("the module cannot read what is in the service's log; nothing has changed; mend the " +
		"module, or deploy it without verification if such entities may stay unreadable")
	refused.Reasons = []string{messageOf(err)}
	if errors.As(err, &own) {
		refused.Detail = own.Detail // such as the guest's stack, for the operator
	}
	return refused
}

// lostAlready reports whether the running module can read no more of an entity than the new one, which cannot
// replay its events.
func (g *gate) lostAlready(ctx context.Context, key service.Key) (bool, error) {
	if g.Old == nil {
		return false, nil
	}
	if replayed, err := reads(ctx, g.Old, key, scratch.FromEvents); replayed || err != nil {
		return false, err
	}
	// A snapshot may be all that keeps the entity readable.
	if old, err := reads(ctx, g.Old, key, scratch.FromAny); !old || err != nil {
		return !old, err
	}
	return reads(ctx, g.New, key, scratch.FromAny)
}

// reads reports whether a module can read an entity.
func reads(ctx context.Context, s *scratch.Scratch, key service.Key, from scratch.From) (bool, error) {
	err := s.Open(ctx, key, scratch.Latest, from)
	if err != nil && scratch.IsFault(err) {
		return false, nil
	}
	return err == nil, err
}

// unreadable counts an entity that cannot be read, which is not the new module's fault.
func (g *gate) unreadable(err error) {
	if g.report.Unreadable++; g.report.Unreadable == 1 {
		g.report.FirstUnreadable = messageOf(err)
	}
}

// compare compares the states that both modules make of the events of the entity that is open in New.
func (g *gate) compare(ctx context.Context, key string) error {
	if g.Old == nil || g.SameModule || g.Old.Index().Manifest().StateSchema != g.New.Index().Manifest().StateSchema ||
		g.Verify.Mode != service.VerifyAll && g.report.States.Same+g.report.States.Different >= maxCompared {
		return nil
	}
	at := g.New.Version()
	after, err := g.New.Snapshot(ctx)
	if err != nil {
		return g.ended(ctx, err)
	}
	if err := g.Old.Open(ctx, service.Key(key), at, scratch.FromEvents); err != nil {
		return g.ended(ctx, err)
	}
	before, err := g.Old.Snapshot(ctx)
	if err != nil {
		return g.ended(ctx, err)
	}
	if sameData(before, after) {
		g.report.States.Same++
		return nil
	}
	if g.report.States.Different++; len(g.report.States.First) < maxFirst {
		g.report.States.First = append(g.report.States.First, service.StateDifference{Key: service.Key(key),
			Version: at, Before: service.ExcerptOf(before), After: service.ExcerptOf(after)})
	}
	return nil
}

// ended is the error that ends a stage after a call for a comparison failed; a module's own failure does not.
func (g *gate) ended(ctx context.Context, err error) error {
	if ctx.Err() == nil && scratch.IsFault(err) {
		return nil
	}
	return err
}
