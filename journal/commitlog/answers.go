package commitlog

import (
	"context"
	"math"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// dropAnswers deletes the days that are over, and returns those that stay. They are over at the latest day that has
// commits, so that it does not matter when somebody looks. They are over by the clock, too, so that commits of a time
// when the clock was far ahead do no harm.
func (j *Journal) dropAnswers(
	ctx context.Context, index journal.IndexStore, days []format.PromisedDay,
) (kept []format.PromisedDay, err error) {
	isOver := func(d format.PromisedDay, at format.Day) bool { return d.Over(at, j.opt.AnswerWindow) }
	if !slices.ContainsFunc(days, func(d format.PromisedDay) bool { return isOver(d, days[0].Day) }) {
		return days, nil
	}
	at := min(days[0].Day, format.DayOf(j.opt.Clock()))
	for _, d := range days {
		if !isOver(d, at) {
			kept = append(kept, d)
		} else if err := index.DeleteRange(ctx, format.DayPrefix(d.Day), format.DayPrefix(d.Day+1)); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// findAnswerDays takes the days of answers from the index, and deletes those that are over. Open calls it, before
// anybody else has the journal.
func (j *Journal) findAnswerDays(ctx context.Context, index journal.IndexStore) error {
	days, err := stored.AnswerDays(ctx, index)
	if err == nil {
		j.days, err = j.dropAnswers(ctx, index, days)
	}
	return err
}

// daysOf returns the days of answers when those of groups are in the index, and adds the entries for the new ones. Only
// the indexer changes them.
func (j *Journal) daysOf(pairs []journal.Pair, groups []*group) (_ []journal.Pair, days []format.PromisedDay) {
	j.mu.Lock()
	days = j.days
	j.mu.Unlock()
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
			if there && days[i].Window >= j.opt.AnswerWindow {
				continue
			}
			if shared {
				days, shared = slices.Clone(days), false
			}
			if !there {
				days = slices.Insert(days, i, format.PromisedDay{Day: d})
			}
			if days[i].Window = j.opt.AnswerWindow; j.opt.AnswerWindow > format.MinAnswers {
				pairs = append(pairs,
					journal.Pair{Key: format.WindowKey(d), Value: format.EncodeWindow(j.opt.AnswerWindow)})
			}
		}
	}
	return pairs, days
}

// endAnswers deletes the days of answers that are over. The indexer calls it.
func (j *Journal) endAnswers(ctx context.Context) error {
	j.mu.Lock()
	days := j.days
	j.mu.Unlock()
	days, err := j.dropAnswers(ctx, j.storage.Index, days)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		j.days = days
	}
	return err
}
