package format

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Answers are the entries of the index that lead from a command's id to its commit. Their keys begin with the day of
// the commit's batch, in UTC, so that a whole day is deleted at once when its answers are promised no longer. So the
// index does not grow with the number of commands.

// Day counts days since the Unix epoch.
type Day uint32

const dayNanos = journal.UnixNano(24 * time.Hour)

// DayOf is the day of a time. It is total.
func DayOf(t journal.UnixNano) Day { return Day(min(max(t, 0)/dayNanos, math.MaxUint32-1)) }

// end is the first time after the day.
func (d Day) end() journal.UnixNano { return journal.UnixNano(d)*dayNanos + dayNanos }

// DayPrefix is what the keys of a day's answers begin with.
func DayPrefix(d Day) []byte { return appendDayPrefix(make([]byte, 0, 8), d) }

func appendDayPrefix(b []byte, d Day) []byte {
	return binary.BigEndian.AppendUint32(append(b, 'a'), uint32(d))
}

// AppendAnswerKey appends the key of the answer to a command that was committed at a time.
func AppendAnswerKey(b []byte, log journal.LogName, id journal.CommandID, at journal.UnixNano) []byte {
	b = binary.BigEndian.AppendUint16(appendDayPrefix(b, DayOf(at)), uint16(len(log)))
	return append(append(b, log...), id...)
}

// AnswerKey is the key of the answer to a command of a day.
func AnswerKey(log journal.LogName, id journal.CommandID, d Day) []byte {
	return AppendAnswerKey(make([]byte, 0, 32+len(log)+len(id)), log, id, journal.UnixNano(d)*dayNanos)
}

// WindowKey is the entry that says for how long the answers of a day were promised, where that was longer than
// MinAnswers. No log has a name without a byte.
func WindowKey(d Day) []byte { return append(DayPrefix(d), 0, 0) }

// AnswerDay returns the day of an answer's key, in days since the Unix epoch; ok is false for other keys of the index.
func AnswerDay(key []byte) (number uint32, ok bool) {
	if len(key) <= 7 || key[0] != 'a' {
		return 0, false
	}
	return binary.BigEndian.Uint32(key[1:]), true
}

// AnswerPrefix is what the keys of all answers of a day begin with, and no others.
func AnswerPrefix(number uint32) []byte { return DayPrefix(Day(number)) }

// MinAnswers is how long answers are kept at least, whatever the window of the journal is: Verify takes it for the
// window of commits that do not say it, and a window that was set too short by mistake forgets nothing.
const MinAnswers = 24 * time.Hour

// PromisedDay is a day of which the index has answers. They were promised for the window.
type PromisedDay struct {
	Day    Day
	Window time.Duration
}

// Over reports whether all promises of the day's answers have ended when the day at begins.
func (d PromisedDay) Over(at Day, window time.Duration) bool {
	return d.Day.end() <= journal.UnixNano(at)*dayNanos-journal.UnixNano(max(d.Window, window, MinAnswers))
}

// EncodeWindow encodes for how long the answers of a day were promised.
func EncodeWindow(window time.Duration) []byte {
	w := writer{make([]byte, 4, 12)}
	w.u64(uint64(window))
	return sealValue(w.b)
}

// DecodeWindow is total.
func DecodeWindow(b []byte) (time.Duration, bool) {
	r, ok := openValue(b)
	if !ok {
		return 0, false
	}
	window := r.u64()
	return time.Duration(window), !r.bad && len(r.b) == 0 && window <= math.MaxInt64
}

// FloorDay is the first day whose answers must all be there, if the index has those of days: MinAnswers is one day.
func FloorDay(days []PromisedDay) Day {
	if len(days) == 0 {
		return 0
	}
	return max(days[0].Day, 1) - 1
}
