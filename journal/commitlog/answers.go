package commitlog

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// answers holds the days for which the index has answers to command ids. Only the indexer changes them; any goroutine
// may read them.
type answers struct {
	index  journal.IndexStore
	window time.Duration // for which answers are promised
	clock  func() journal.UnixNano
	latest atomic.Pointer[[]format.PromisedDay]
}

// days returns the days, the latest first. The slice is never changed in place.
func (a *answers) days() []format.PromisedDay {
	if days := a.latest.Load(); days != nil {
		return *days
	}
	return nil
}

func (a *answers) set(days []format.PromisedDay) { a.latest.Store(&days) }

// drop deletes expired days and returns the others. A day must have expired relative to the latest day that has
// commits, so that the time of the call does not matter. It must have expired by the clock as well, so that commits
// written while the clock was far ahead do no harm.
func (a *answers) drop(
	ctx context.Context, index journal.IndexStore, days []format.PromisedDay,
) (kept []format.PromisedDay, err error) {
	isOver := func(d format.PromisedDay, at format.Day) bool { return d.Over(at, a.window) }
	if !slices.ContainsFunc(days, func(d format.PromisedDay) bool { return isOver(d, days[0].Day) }) {
		return days, nil
	}
	at := min(days[0].Day, format.DayOf(a.clock()))
	for _, d := range days {
		if !isOver(d, at) {
			kept = append(kept, d)
		} else if err := index.DeleteRange(ctx, format.DayPrefix(d.Day), format.DayPrefix(d.Day+1)); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// find reads the days of answers from the index and deletes the expired ones. Open calls it before the journal is
// shared.
func (a *answers) find(ctx context.Context, index journal.IndexStore) error {
	days, err := stored.AnswerDays(ctx, index)
	if err == nil {
		days, err = a.drop(ctx, index, days)
	}
	if err == nil {
		a.set(days)
	}
	return err
}

// of returns the days of answers as they are once those of groups are in the index, and adds the entries for the new
// days. Only the indexer calls it.
func (a *answers) of(pairs []journal.Pair, groups []*group) (_ []journal.Pair, days []format.PromisedDay) {
	days = a.days()
	shared := true
	last := format.Day(math.MaxUint32)
	for _, g := range groups {
		for _, p := range g.commits {
			d := format.DayOf(p.place.Time)
			if d == last {
				continue
			}
			last = d
			i, there := slices.BinarySearchFunc(days, d,
				func(x format.PromisedDay, d format.Day) int { return int(int64(d) - int64(x.Day)) })
			if there && days[i].Window >= a.window {
				continue
			}
			if shared {
				days, shared = slices.Clone(days), false
			}
			if !there {
				days = slices.Insert(days, i, format.PromisedDay{Day: d})
			}
			if days[i].Window = a.window; a.window > format.MinAnswers {
				pairs = append(pairs,
					journal.Pair{Key: format.WindowKey(d), Value: format.EncodeWindow(a.window)})
			}
		}
	}
	return pairs, days
}

// end deletes the expired days of answers. Only the indexer calls it.
func (a *answers) end(ctx context.Context) error {
	days, err := a.drop(ctx, a.index, a.days())
	if err == nil {
		a.set(days)
	}
	return err
}
