package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"
)

// Answers are the entries of the index that lead from a command's id to its commit. Their keys begin with the day of
// the commit's batch, in UTC, so that a whole day is deleted at once when its answers are promised no longer. So the
// index does not grow with the number of commands.

// day counts days since the Unix epoch.
type day uint32

const dayNanos = UnixNano(24 * time.Hour)

// dayOf is the day of a time. It is total.
func dayOf(t UnixNano) day { return day(min(max(t, 0)/dayNanos, math.MaxUint32-1)) }

// end is the first time after the day.
func (d day) end() UnixNano { return UnixNano(d)*dayNanos + dayNanos }

func dayPrefix(d day) []byte { return appendDayPrefix(make([]byte, 0, 8), d) }

func appendDayPrefix(b []byte, d day) []byte {
	return binary.BigEndian.AppendUint32(append(b, 'a'), uint32(d))
}

func appendAnswerKey(b []byte, log LogName, id CommandID, at UnixNano) []byte {
	b = binary.BigEndian.AppendUint16(appendDayPrefix(b, dayOf(at)), uint16(len(log)))
	return append(append(b, log...), id...)
}

func answerKey(log LogName, id CommandID, d day) []byte {
	return appendAnswerKey(make([]byte, 0, 32+len(log)+len(id)), log, id, UnixNano(d)*dayNanos)
}

// windowKey is the entry that says for how long the answers of a day were promised, where that was longer than
// minAnswers. No log has a name without a byte.
func windowKey(d day) []byte { return append(dayPrefix(d), 0, 0) }

// AnswerDay returns the day of an answer's key, in days since the Unix epoch; ok is false for other keys of the index.
func AnswerDay(key []byte) (number uint32, ok bool) {
	if len(key) <= 7 || key[0] != 'a' {
		return 0, false
	}
	return binary.BigEndian.Uint32(key[1:]), true
}

// AnswerPrefix is what the keys of all answers of a day begin with, and no others.
func AnswerPrefix(number uint32) []byte { return dayPrefix(day(number)) }

// minAnswers is how long answers are kept at least, whatever the window of the journal is: Verify takes it for the
// window of commits that do not say it, and a window that was set too short by mistake forgets nothing.
const minAnswers = 24 * time.Hour

// answerDay is a day of which the index has answers. They were promised for the window.
type answerDay struct {
	day    day
	window time.Duration
}

// over says whether nobody was promised the answers of a day any more at the beginning of another one.
func (d answerDay) over(at day, window time.Duration) bool {
	return d.day.end() <= UnixNano(at)*dayNanos-UnixNano(max(d.window, window, minAnswers))
}

func encodeWindow(window time.Duration) []byte {
	w := writer{make([]byte, 4, 12)}
	w.u64(uint64(window))
	return sealValue(w.b)
}

// decodeWindow is total.
func decodeWindow(b []byte) (time.Duration, bool) {
	r, ok := openValue(b)
	if !ok {
		return 0, false
	}
	window := r.u64()
	return time.Duration(window), !r.bad && len(r.b) == 0 && window <= math.MaxInt64
}

// floorDay is the first day whose answers must all be there, if the index has those of days: minAnswers is one day.
func floorDay(days []answerDay) day {
	if len(days) == 0 {
		return 0
	}
	return max(days[0].day, 1) - 1
}

// answerDays finds the days of which the index has answers, the latest first.
func answerDays(ctx context.Context, index IndexStore) (days []answerDay, err error) {
	for from := []byte{'a'}; from != nil; {
		var key []byte
		err := index.Scan(ctx, []byte{'a'}, from, func(k, _ []byte) error {
			key = slices.Clone(k[:min(len(k), 5)])
			return errStop
		})
		if err != nil && !errors.Is(err, errStop) {
			return nil, err
		}
		if from = nil; key == nil {
			break
		}
		if len(key) < 5 {
			return nil, damagedIndex("", "the key of an answer is damaged")
		}
		d := answerDay{day: day(binary.BigEndian.Uint32(key[1:]))}
		value, ok, err := index.Get(ctx, windowKey(d.day))
		if err != nil {
			return nil, err
		}
		if ok {
			if d.window, ok = decodeWindow(value); !ok {
				return nil, damagedIndex("", "the window of a day of answers is damaged")
			}
		}
		days = append(days, d)
		if d.day < math.MaxUint32 {
			from = dayPrefix(d.day + 1)
		}
	}
	slices.Reverse(days)
	return days, nil
}

// dropAnswers deletes the days that are over, and returns those that stay. They are over at the latest day that has
// commits, so that it does not matter when somebody looks. They are over by the clock, too, so that commits of a time
// when the clock was far ahead do no harm.
func (j *Journal) dropAnswers(ctx context.Context, index IndexStore, days []answerDay) (kept []answerDay, err error) {
	isOver := func(d answerDay, at day) bool { return d.over(at, j.opt.AnswerWindow) }
	if !slices.ContainsFunc(days, func(d answerDay) bool { return isOver(d, days[0].day) }) {
		return days, nil
	}
	at := min(days[0].day, dayOf(j.opt.Clock()))
	for _, d := range days {
		if !isOver(d, at) {
			kept = append(kept, d)
		} else if err := index.DeleteRange(ctx, dayPrefix(d.day), dayPrefix(d.day+1)); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// findAnswerDays takes the days of answers from the index, and deletes those that are over. Open calls it, before
// anybody else has the journal.
func (j *Journal) findAnswerDays(ctx context.Context, index IndexStore) error {
	days, err := answerDays(ctx, index)
	if err == nil {
		j.days, err = j.dropAnswers(ctx, index, days)
	}
	return err
}

// daysOf returns the days of answers when those of groups are in the index, and adds the entries for the new ones. Only
// the indexer changes them.
func (j *Journal) daysOf(pairs []Pair, groups []*group) (_ []Pair, days []answerDay) {
	j.mu.Lock()
	days = j.days
	j.mu.Unlock()
	shared := true
	last := day(math.MaxUint32)
	for _, g := range groups {
		for _, p := range g.commits {
			d := dayOf(p.place.time)
			if d == last {
				continue
			}
			last = d
			i, there := slices.BinarySearchFunc(days, d,
				func(x answerDay, d day) int { return int(int64(d) - int64(x.day)) })
			if there && days[i].window >= j.opt.AnswerWindow {
				continue
			}
			if shared {
				days, shared = slices.Clone(days), false
			}
			if !there {
				days = slices.Insert(days, i, answerDay{day: d})
			}
			if days[i].window = j.opt.AnswerWindow; j.opt.AnswerWindow > minAnswers {
				pairs = append(pairs, Pair{windowKey(d), encodeWindow(j.opt.AnswerWindow)})
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
