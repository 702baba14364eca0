package stored

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// AnswerDays finds the days of which the index has answers, the latest first.
func AnswerDays(ctx context.Context, index journal.IndexStore) (days []format.PromisedDay, err error) {
	for from := []byte{'a'}; from != nil; {
		var key []byte
		err := index.Scan(ctx, []byte{'a'}, from, func(k, _ []byte) error {
			key = slices.Clone(k[:min(len(k), 5)])
			return ErrStop
		})
		if err != nil && !errors.Is(err, ErrStop) {
			return nil, err
		}
		if from = nil; key == nil {
			break
		}
		if len(key) < 5 {
			return nil, format.DamagedIndex("", "the key of an answer is damaged")
		}
		d := format.PromisedDay{Day: format.Day(binary.BigEndian.Uint32(key[1:]))}
		value, ok, err := index.Get(ctx, format.WindowKey(d.Day))
		if err != nil {
			return nil, err
		}
		if ok {
			if d.Window, ok = format.DecodeWindow(value); !ok {
				return nil, format.DamagedIndex("", "the window of a day of answers is damaged")
			}
		}
		days = append(days, d)
		if d.Day < math.MaxUint32 {
			from = format.DayPrefix(d.Day + 1)
		}
	}
	slices.Reverse(days)
	return days, nil
}
