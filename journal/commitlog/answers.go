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

// answers are the days of which the index has answers to command ids. The indexer changes them, and anybody may look at
// them meanwhile.
type answers struct {
	index  journal.IndexStore
	window time.Duration // for which answers are promised
	clock  func() journal.UnixNano
	latest atomic.Pointer[[]format.PromisedDay]
}

// days are the days, the latest first. They are never changed in place.
func (a *answers) days() []format.PromisedDay {
	if days := a.latest.Load(); days != nil {
		return *days
	}
	return nil
}

func (a *answers) set(days []format.PromisedDay) { a.latest.Store(&days) }

// drop deletes the days that are over, and returns those that stay. They are over at the latest day that has
// commits, so that it does not matter when somebody looks. They are over by the clock, too, so that commits of a time
// when the clock was far ahead do no harm.
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

// find takes the days of answers from the index, and deletes those that are over. Open calls it, before
// anybody else has the journal.
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

// of returns the days of answers when those of groups are in the index, and adds the entries for the new ones. Only
// the indexer changes them.
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

// end deletes the days of answers that are over. The indexer calls it.
func (a *answers) end(ctx context.Context) error {
	days, err := a.drop(ctx, a.index, a.days())
	if err == nil {
		a.set(days)
	}
	return err
}
