package journal

import (
	"context"
)

// Retention says which of a log's first events may be deleted, and under which conditions.
type Retention struct {
	// Before allows the deletion of batches with all events before this position. 0 sets no bound by position.
	Before Position
	// OlderThan allows the deletion of batches that were written before this time. 0 sets no bound by time. Before or
	// OlderThan must be set.
	OlderThan UnixNano
	// Through protects the batches after the one with this sequence. 0 sets no such bound. A caller that archived what
	// an earlier call reported uses it.
	Through uint64
	// Schema is the state schema of the service's module: only snapshots of it count.
	Schema uint32
	// Module, if not zero, is the service's module. Snapshots of other modules do not count, because they may have
	// another form under the same schema.
	Module Digest
	// Cover, if not nil, makes a snapshot for an entity that needs one, of this version or a later one.
	Cover func(ctx context.Context, key string, version Version) error
	// Archive, if not nil, is called with the batches that are about to be deleted. If it fails, nothing is deleted.
	Archive func(ctx context.Context, r BatchRange) error
	// Hold, if not nil, is called when it is known what will be deleted: the events before the position first. At that
	// time only kept events are written, which have no effect yet. Hold makes sure that Schema and Module are those of
	// the service, and stay so until release is called: when the cut is in force, or has failed. An error of Hold ends
	// the retention, with nothing deleted.
	Hold func(first Position) (release func(), err error)
	// MaxKept bounds the kept events, in bytes of their records. Events of entities without snapshots are kept: their
	// batches are deleted, and the events stay readable by entity until a retention finds a snapshot. Beyond the bound,
	// batches with such events stay, and all batches after them. What an earlier retention kept counts, and stays in
	// any case. Each retention writes all kept events again; the copies of the one before stay in log and index until
	// their batches are deleted. 0 means [DefaultMaxKept]. A negative value keeps nothing that is not kept already.
	MaxKept int64
	// Force also deletes events that no snapshot covers, kept ones included, which loses the states of their entities,
	// and batches with answers to command ids that are still promised.
	Force bool
	// DryRun changes nothing in the log. It makes sure of snapshots, and says what would be deleted.
	DryRun bool
	// Pace, if not nil, is called before each batch, and each entity without a snapshot, that is examined. It may wait.
	// Its error ends the retention, with nothing deleted.
	Pace func() error
	// Progress, if not nil, is called now and then with how far a stage has come.
	Progress func(stage string, done, total uint64)
}

// DefaultMaxKept is the default of [Retention.MaxKept], in bytes.
const DefaultMaxKept = 64 << 20

// Retained is what a retention did.
type Retained struct {
	First     Position `json:"first"`     // of the first event that the log has now
	Through   uint64   `json:"through"`   // sequence of the last batch that was deleted now; 0 if none was
	Batches   uint64   `json:"batches"`   // deleted now
	Events    uint64   `json:"events"`    // of these, also those that were kept apart
	Bytes     uint64   `json:"bytes"`     // of the batches, packed as they are
	Entities  int      `json:"entities"`  // that have lost events by now
	Uncovered int      `json:"uncovered"` // of them, whose state is lost; only with Force
	// Kept is the number of entities with kept events: no snapshot covers these, and none could be made. KeptOf names
	// some of the entities. KeptEvents and KeptBytes count the events and the bytes of their records.
	Kept       int      `json:"kept,omitempty"`
	KeptOf     []string `json:"kept_of,omitempty"`
	KeptEvents uint64   `json:"kept_events,omitempty"`
	KeptBytes  uint64   `json:"kept_bytes,omitempty"`
	// Held is the number of entities that prevented further deletion: no snapshot covers their events, none could be
	// made, and MaxKept left no room to keep them. HeldBy names some.
	Held   int      `json:"held,omitempty"`
	HeldBy []string `json:"held_by,omitempty"`
	// Promised says that batches stay only because answers to their command ids are still promised.
	Promised bool `json:"promised"`
}
