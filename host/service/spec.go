package service

import (
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// Spec says what a service is: its name, its active module, its limits.
type Spec struct {
	Service  Name     `json:"service"`
	Module   Digest   `json:"module"`
	Limits   Limits   `json:"limits"`
	Settings Settings `json:"settings"`
}

// WithDefaults returns a copy with every zero field of limits and settings set.
func (s Spec) WithDefaults() Spec {
	s.Limits, s.Settings = s.Limits.WithDefaults(), s.Settings.WithDefaults()
	return s
}

// Validate reports everything that is wrong with the spec at once.
func (s Spec) Validate() error {
	if _, err := ParseName(string(s.Service)); err != nil {
		return err
	}
	if err := s.Limits.Validate(); err != nil {
		return err
	}
	return s.Settings.Validate()
}

// Module is what the host knows of a module that passed verification.
type Module struct {
	Digest   Digest
	Size     int64
	Manifest abi.Manifest
	Tariff   int // the version of the rules by which its fuel is charged
}

// State is a stage in the life of a service.
type State string

// The stages of a service.
const (
	StateStarting State = "starting" // its commands wait
	StateRunning  State = "running"
	StateDraining State = "draining" // another module is about to take over; its commands wait
	// could not be started; Status.Problem says why, and NextAttempt when it is tried again
	StateFailed  State = "failed"
	StateStopped State = "stopped" // on purpose; its events can be read, and a deployment starts it again
)

// StateIdle is the state of a shard that has had nothing to do, and has no sandbox.
// The other states of a shard are starting, running and failed.
const StateIdle State = "idle"

// Status is what a service does now.
type Status struct {
	Spec  Spec      `json:"spec"`
	State State     `json:"state"`
	Since time.Time `json:"since"` // of the state
	Attempts
	// Manifest is that of the module that runs or ran last. Before the first start,
	// nothing of it is known but the encoding, and that may be empty.
	Manifest abi.Manifest  `json:"-"`
	Tariff   int           `json:"tariff,omitempty"` // the version of the rules by which fuel is charged
	Head     Position      `json:"position"`         // of the last event on disk
	Cursor   Cursor        `json:"-"`                // of that position
	LogBytes int64         `json:"log_bytes"`        // on disk, as far as they are counted; see Limits.DiskBytes
	Shards   []ShardStatus `json:"shards"`
	// Faults are the entities that the module cannot hydrate, or whose states it cannot encode.
	Faults   EntityFaults `json:"entity_faults,omitzero"`
	Counters Counters     `json:"counters"`

	// What the service holds of the host's sandbox memory, in bytes: all of it, and of
	// that the machine code, the image that its sandboxes begin as, and their tables.
	SandboxBytes int64 `json:"sandbox_bytes"`
	CodeBytes    int64 `json:"code_bytes"`
	ImageBytes   int64 `json:"image_bytes"`
	TableBytes   int64 `json:"table_bytes"`

	// Warnings are about the deployment that this answers; see [ChangedEvents]. A later status has none.
	Warnings []string `json:"warnings,omitempty"`
}

// ResourceUsage is how much of one of the host's resources is in use.
type ResourceUsage struct {
	Resource string `json:"resource"` // its stable name, such as bytes_in_flight
	Used     int64  `json:"used"`
	Limit    int64  `json:"limit,omitempty"` // 0 is none
	Refused  uint64 `json:"refused"`         // requests that there was not enough for, since the host started
	// Holders are those that hold most of it, the largest first. It is for operators only.
	Holders []ResourceHolder `json:"holders,omitempty"`
}

// ResourceHolder is somebody, such as a service or a connection, who holds some of a
// resource.
type ResourceHolder struct {
	Name string `json:"name"`
	Used int64  `json:"used"`
}

// Attempts are the starts of a service, or of a shard's sandbox, that failed one after
// the other. It is zero once a start has succeeded.
type Attempts struct {
	Problem     string    `json:"problem,omitempty"`     // the last error
	Failed      int       `json:"attempts,omitempty"`    // how many starts failed
	NextAttempt time.Time `json:"next_attempt,omitzero"` // when the next one is due; zero while it is under way, and if there will be none
}

// ShardStatus is what one shard does now.
type ShardStatus struct {
	State State `json:"state"`
	Attempts
	Queued      int   `json:"queued"`       // commands in the mailbox
	QueuedBytes int64 `json:"queued_bytes"` // their data
	Resident    int   `json:"resident"`     // entities in the sandbox
	MemoryBytes int64 `json:"memory_bytes"` // the sandbox's linear memory
}

// EntityFaults are the entities that a module has failed over since it began to run. No other
// entity is concerned.
type EntityFaults struct {
	Count  int           `json:"count"`  // of the entities, as far as they are remembered
	Latest []EntityFault `json:"latest"` // some of them
}

// IsZero reports whether there are none.
func (f EntityFaults) IsZero() bool { return f.Count == 0 }

// What a module cannot do with an entity.
const (
	CannotHydrate  = "hydrate"  // its commands and queries are refused
	CannotSnapshot = "snapshot" // it goes on, is hydrated from its events, and retentions keep these
)

// EntityFault is what is wrong with one entity.
type EntityFault struct {
	Key         Key       `json:"key"`
	Cannot      string    `json:"cannot"`             // hydrate or snapshot
	Problem     string    `json:"problem"`            // what the module, or the host, said last
	Version     Version   `json:"version,omitempty"`  // that it does not come to; or whose state cannot be encoded
	Event       Type      `json:"event,omitempty"`    // of that version, if it is known
	Position    Position  `json:"position,omitempty"` // of that event
	Failed      int       `json:"failed_attempts"`    // in a row
	Since       time.Time `json:"since"`              // when the first of them was
	NextAttempt time.Time `json:"next_attempt,omitzero"`
}

// Counters count since the host started.
type Counters struct {
	Committed  uint64 `json:"committed"`  // commands
	Events     uint64 `json:"events"`     // of them
	Rejected   uint64 `json:"rejected"`   // by the domain
	Failed     uint64 `json:"failed"`     // faults, traps, violations
	Overloaded uint64 `json:"overloaded"` // refused for a full mailbox
	Repeated   uint64 `json:"repeated"`   // answered from the journal
	Unknown    uint64 `json:"unknown"`    // ended without a known outcome
	Queries    uint64 `json:"queries"`
	Hydrated   uint64 `json:"hydrated"` // entities made resident
	Resets     uint64 `json:"resets"`   // sandboxes thrown away
	Recycled   uint64 `json:"recycled"` // of them: not for a failure, but as they had grown

	SnapshotsTaken   uint64 `json:"snapshots_taken"`   // of entities' states, and handed to the journal
	SnapshotsUsed    uint64 `json:"snapshots_used"`    // by hydrations, instead of an entity's first events
	SnapshotsRefused uint64 `json:"snapshots_refused"` // found and not used: damaged, of another state schema, or not taken by the module

	Fuel uint64 `json:"fuel"` // spent by all calls, also by those that failed

	LogLinesDropped uint64 `json:"log_lines_dropped"` // as more was logged about the service than its rate allows
	LogBytesDropped uint64 `json:"log_bytes_dropped"` // about what they would have taken
}

// Add adds each counter of o.
func (c *Counters) Add(o *Counters) {
	c.Committed += o.Committed
	c.Events += o.Events
	c.Rejected += o.Rejected
	c.Failed += o.Failed
	c.Overloaded += o.Overloaded
	c.Repeated += o.Repeated
	c.Unknown += o.Unknown
	c.Queries += o.Queries
	c.Hydrated += o.Hydrated
	c.Resets += o.Resets
	c.Recycled += o.Recycled
	c.SnapshotsTaken += o.SnapshotsTaken
	c.SnapshotsUsed += o.SnapshotsUsed
	c.SnapshotsRefused += o.SnapshotsRefused
	c.Fuel += o.Fuel
	c.LogLinesDropped += o.LogLinesDropped
	c.LogBytesDropped += o.LogBytesDropped
}
