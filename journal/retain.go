package journal

import (
	"context"
)

// Retention says which of a log's first events may go, and what has to hold for that.
type Retention struct {
	// Before lets batches go all of whose events stand before this position; 0 sets no
	// bound by position.
	Before Position
	// OlderThan lets batches go that were written before this time; 0 sets no bound by
	// time. One of both must be set.
	OlderThan UnixNano
	// Through lets no batch go that is behind the one with this sequence; 0 sets no such
	// bound. It is for who has kept what was there when Retain was asked before.
	Through uint64
	// Schema is the state schema of the service's module: only snapshots of it count.
	Schema uint32
	// Module, if not zero, is the service's module: another one's snapshot does not count, as it
	// may have another form under the same schema.
	Module Digest
	// Cover, if not nil, is asked to have a snapshot put for an entity that needs one, of
	// the version or a later one.
	Cover func(ctx context.Context, key string, version Version) error
	// Archive, if not nil, is called with the batches that are about to be deleted; if
	// it fails, nothing is.
	Archive func(ctx context.Context, r BatchRange) error
	// Hold, if not nil, is called when it is known what may go, and kept events alone are written, which mean nothing
	// yet. It makes sure
	// that Schema and Module are still those of the service, and that they stay so until release is
	// called, which is when the cut is in force or will not be. Its error ends it all, with nothing deleted.
	Hold func() (release func(), err error)
	// MaxKept bounds the events of entities without snapshots that are kept apart, in bytes of their records:
	// their batches go, and the events stay readable by entity until a retention finds a snapshot. Beyond it
	// batches with such events stay, and all behind them. What an earlier retention has kept counts, and stays in any
	// case. Each retention writes all of it again, and what the one before wrote stays in log and index until its
	// batches go, too. 0 is [DefaultMaxKept], a negative value lets nothing be kept that is not already.
	MaxKept int64
	// Force deletes events that no snapshot covers, also those that were kept, and so the states of these entities,
	// and batches whose answers to command ids are still promised.
	Force bool
	// DryRun does all but what changes the log: it makes sure of snapshots, and says what
	// would be deleted.
	DryRun bool
	// Pace, if not nil, is called before each batch, or entity without a snapshot, that is looked at, and may wait; its
	// error ends it all, with nothing deleted.
	Pace func() error
	// Progress, if not nil, is told now and then how far a stage has come.
	Progress func(stage string, done, total uint64)
}

// DefaultMaxKept is the bound of [Retention.MaxKept] unless it says another one.
const DefaultMaxKept = 64 << 20

// Retained is what a retention did.
type Retained struct {
	First     Position `json:"first"`     // of the first event that is there now
	Through   uint64   `json:"through"`   // sequence of the last batch that was deleted now; 0 if none was
	Batches   uint64   `json:"batches"`   // deleted now
	Events    uint64   `json:"events"`    // of these, also those that were kept apart
	Bytes     uint64   `json:"bytes"`     // of the batches, packed as they are
	Entities  int      `json:"entities"`  // that have lost events by now
	Uncovered int      `json:"uncovered"` // of them, whose state is lost; only with Force
	// Kept says of how many entities events were kept apart, as no snapshot covers them and none could be had:
	// so many events, of so many bytes. KeptOf names some of the entities.
	Kept       int      `json:"kept,omitempty"`
	KeptOf     []string `json:"kept_of,omitempty"`
	KeptEvents uint64   `json:"kept_events,omitempty"`
	KeptBytes  uint64   `json:"kept_bytes,omitempty"`
	// Held says how many entities kept it from deleting more: no snapshot covers their events,
	// none could be had, and there was no room to keep them apart. HeldBy names some.
	Held   int      `json:"held,omitempty"`
	HeldBy []string `json:"held_by,omitempty"`
	// Promised says that there were more to go, but for the answers to their command ids,
	// which are promised for a while.
	Promised bool `json:"promised"`
}
