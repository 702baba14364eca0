package commitlog

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// Measure counts what there is of a log, by reading the headers of all its batches,
// which takes a while if it is long. pace, if not nil, is called before each one and may
// wait; its error ends it.
func (j *Journal) Measure(ctx context.Context, log journal.LogName, pace func() error) (journal.LogSize, error) {
	size := journal.LogSize{LogInfo: journal.LogInfo{Name: log}}
	err := j.Batches(ctx, log, journal.BatchRange{}, func(b journal.Block) error {
		if pace != nil {
			if err := pace(); err != nil {
				return err
			}
		}
		h, _, reason := format.DecodeBatch(b.Data)
		if reason != "" {
			return journal.Errorf(journal.KindCorrupt, "measure", log, "batch %d at position %d: %s", b.Sequence,
				b.First, reason)
		}
		if size.Batches == 0 {
			size.First, size.Deleted = h.First, h.Sequence-1
		}
		size.Head, size.Batches = h.First+journal.Position(h.Events)-1, h.Sequence
		if !h.Base {
			size.Commits += uint64(h.Commits)
		}
		size.Events += uint64(h.Events)
		size.Bytes += uint64(len(b.Data))
		return nil
	})
	if err != nil {
		return size, err
	}
	types, err := j.EventTypes(ctx, log)
	size.Types = len(types)
	return size, err
}
