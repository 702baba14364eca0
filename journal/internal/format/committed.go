package format

import "github.com/bulkhead-wasm/bulkhead/journal"

// Committed copies a decoded commit out of its batch.
func (c *DecodedCommit) Committed(h *BatchHeader, first journal.Position) *journal.Committed {
	cmd := c.Command
	cmd.Data, cmd.Metadata, cmd.Reply = Clone(cmd.Data), Clone(cmd.Metadata), Clone(cmd.Reply)
	out := &journal.Committed{Log: h.Log, Command: cmd, First: first, Time: h.Time, Version: c.Expected +
		journal.Version(len(c.Events)),
		Stamp: h.stampAt(first + journal.Position(len(c.Events)) - 1)}
	for i := range c.Events {
		e := c.Event(h, first, i)
		e.Data, e.Metadata = Clone(e.Data), Clone(e.Metadata)
		out.Events = append(out.Events, e)
	}
	return out
}

// Clone copies bytes, and keeps nil, which says that there are none.
func Clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}
