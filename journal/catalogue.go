package journal

// The event catalogue says which types of events a log holds. It is an entry of the index for
// each log and type, derived from the log like all others, and counts what can be read: a
// retention takes off what it deletes. The indexer alone writes it.
//
// An entry is written before the checkpoint that covers its events. So it may be ahead of
// that after a crash; events up to its last position are not counted again.

// EventType is what a log holds of one type of events.
type EventType struct {
	Type  string   `json:"type"`
	Count uint64   `json:"count"`
	First Position `json:"first"`
	Last  Position `json:"last"`
}
