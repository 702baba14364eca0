package format

import "github.com/bulkhead-wasm/bulkhead/journal"

// ReadBatch checks the bytes of a batch, all its records included, and yields its
// commits in order, if yield is not nil. A commit and its slices are valid during its yield only.
// What is wrong is an error of kind KindCorrupt.
func ReadBatch(data []byte, yield func(*journal.Committed) error) (journal.Batch, error) {
	h, _, reason := DecodeBatch(data)
	if reason != "" {
		return journal.Batch{}, journal.Errorf(journal.KindCorrupt, "read", h.Log, "%s", reason)
	}
	h.Hash = HashOf(data)
	b := journal.Batch{
		Log: h.Log, Sequence: h.Sequence, First: h.First, Next: h.First + journal.Position(h.Events),
		Commits: h.Commits, Events: h.Events, Time: h.Time, Previous: h.Previous, Hash: h.Hash,
		Base: h.Base,
	}
	var out journal.Committed
	err := EachCommit(journal.Block{Log: h.Log, First: h.First, Sequence: h.Sequence, Data: data},
		func(h *BatchHeader, _ int, first journal.Position, c *DecodedCommit) error {
			if yield == nil {
				return nil
			}
			h.Hash = b.Hash
			out = journal.Committed{Log: h.Log, Command: c.Command, First: first, Time: h.Time,
				Version: c.Expected + journal.Version(len(c.Events)), Events: out.Events[:0]}
			for i := range c.Events {
				out.Events = append(out.Events, c.Event(h, first, i))
			}
			out.Stamp = h.stampAt(first + journal.Position(len(c.Events)) - 1)
			return yield(&out)
		})
	return b, err
}
