package stored

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// TrimOf is the cut of a log's latest retention as the index has it; zero if there was
// none.
func TrimOf(ctx context.Context, index journal.IndexStore, log journal.LogName) (format.Cut, error) {
	value, ok, err := index.Get(ctx, format.TrimKey(log))
	if err != nil || !ok {
		return format.Cut{}, err
	}
	c, ok := format.OpenTrim(value)
	if !ok {
		return format.Cut{}, format.DamagedIndex(log, "the index entry of the retention is damaged; rebuild the index")
	}
	return c, nil
}

// FirstSequence is the sequence of the first block that there is of a log.
func FirstSequence(ctx context.Context, store journal.LogStore, log journal.LogName) (first uint64, err error) {
	err = store.Blocks(ctx, log, 0, func(b journal.Block) error {
		first = b.Sequence
		return ErrStop
	})
	if errors.Is(err, ErrStop) {
		err = nil
	}
	return first, err
}
