package journal

import "context"

// LogSize is what there is of a log on disk.
type LogSize struct {
	LogInfo
	Commits uint64 `json:"commits"`
	Events  uint64 `json:"events"`
	Bytes   uint64 `json:"bytes"` // of its batches, packed as they are
	Types   int    `json:"types"` // of its events, by the event catalogue
}

// Measure counts what there is of a log, by reading the headers of all its batches,
// which takes a while if it is long. pace, if not nil, is called before each one and may
// wait; its error ends it.
func (j *Journal) Measure(ctx context.Context, log LogName, pace func() error) (LogSize, error) {
	size := LogSize{LogInfo: LogInfo{Name: log}}
	err := j.Batches(ctx, log, BatchRange{}, func(b Block) error {
		if pace != nil {
			if err := pace(); err != nil {
				return err
			}
		}
		h, _, reason := decodeBatch(b.Data)
		if reason != "" {
			return errorf(KindCorrupt, "measure", log, "batch %d at position %d: %s", b.Sequence, b.First, reason)
		}
		if size.Batches == 0 {
			size.First, size.Deleted = h.first, h.sequence-1
		}
		size.Head, size.Batches = h.first+Position(h.events)-1, h.sequence
		if !h.base {
			size.Commits += uint64(h.commits)
		}
		size.Events += uint64(h.events)
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
