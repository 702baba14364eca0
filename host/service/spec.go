package service

import (
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// Spec describes a service: its name, its active module, its limits.
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

// Module describes a module that passed verification.
type Module struct {
	Digest   Digest
	Size     int64
	Manifest abi.Manifest
	Tariff   int // version of the tariff by which its fuel is charged
}

// State is a stage in the life of a service.
type State string

// The stages of a service.
const (
	StateStarting State = "starting" // its commands wait
	StateRunning  State = "running"
	StateDraining State = "draining" // another module is about to replace it; its commands wait
	// It could not be started. Status.Problem says why, and NextAttempt when it is tried again.
	StateFailed  State = "failed"
	StateStopped State = "stopped" // on purpose; its events can be read, and a deployment starts it again
)

// StateIdle is the state of a shard that has had nothing to do, and has no sandbox. The other states of a
// shard are starting, running and failed.
const StateIdle State = "idle"

// Status is the present status of a service.
type Status struct {
	Spec  Spec      `json:"spec"`
	State State     `json:"state"`
	Since time.Time `json:"since"` // when the state began
	Attempts
	// Manifest is that of the module that runs or ran last. Before the first start only its encoding is
	// known, and even that may be empty.
	Manifest abi.Manifest  `json:"-"`
	Tariff   int           `json:"tariff,omitempty"` // version of the tariff by which fuel is charged
	Head     Position      `json:"position"`         // of the last event on disk
	Cursor   Cursor        `json:"-"`                // of that position
	LogBytes int64         `json:"log_bytes"`        // on disk, as far as it counts; see Limits.DiskBytes
	Shards   []ShardStatus `json:"shards"`
	// Faults are the entities that the module cannot hydrate, or whose states it cannot encode.
	Faults   EntityFaults `json:"entity_faults,omitzero"`
	Counters Counters     `json:"counters"`

	// The service's part of the host's sandbox memory, in bytes: all of it, and of that the machine code, the
	// image that its sandboxes begin as, and their tables.
	SandboxBytes int64 `json:"sandbox_bytes"`
	CodeBytes    int64 `json:"code_bytes"`
	ImageBytes   int64 `json:"image_bytes"`
	TableBytes   int64 `json:"table_bytes"`

	// Warnings are about the deployment that this status answers; see [ChangedEvents]. Later ones have none.
	Warnings []string `json:"warnings,omitempty"`
	// Verification is what the verification of the deployment that this status answers has shown. Later ones
	// have none, nor has the answer to a deployment of what ran already.
	Verification *Verification `json:"verification,omitempty"`
}

// ResourceUsage is how much of one of the host's resources is in use.
type ResourceUsage struct {
	Resource string `json:"resource"` // its stable name, such as bytes_in_flight
	Used     int64  `json:"used"`
	Limit    int64  `json:"limit,omitempty"` // 0: no limit
	Refused  uint64 `json:"refused"`         // refused requests since the host started
	// Holders are those that hold most of it, the largest first. They are for operators only.
	Holders []ResourceHolder `json:"holders,omitempty"`
}

// ResourceHolder is a holder of a resource, such as a service or a connection.
type ResourceHolder struct {
	Name string `json:"name"`
	Used int64  `json:"used"`
}

// Attempts are the failed starts in a row of a service, or of a shard's sandbox. They are zero after a
// successful start.
type Attempts struct {
	Problem     string    `json:"problem,omitempty"`     // the last error
	Failed      int       `json:"attempts,omitempty"`    // number of failed starts
	NextAttempt time.Time `json:"next_attempt,omitzero"` // zero during a start, and if there is none
}

// ShardStatus is the present status of one shard.
type ShardStatus struct {
	State State `json:"state"`
	Attempts
	Queued      int   `json:"queued"`       // commands in the mailbox
	QueuedBytes int64 `json:"queued_bytes"` // size of their data
	Resident    int   `json:"resident"`     // entities in the sandbox
	MemoryBytes int64 `json:"memory_bytes"` // the sandbox's linear memory
}

// EntityFaults are the entities over which a module has failed since it began to run. Other entities are not
// affected.
type EntityFaults struct {
	Count  int           `json:"count"`  // number of these entities, as far as they are remembered
	Latest []EntityFault `json:"latest"` // some of them
	// Quarantined is the number of those that cannot be hydrated; [QuarantinePage] lists them.
	Quarantined int `json:"quarantined"`
}

// IsZero reports whether there are none.
func (f EntityFaults) IsZero() bool { return f.Count == 0 }

// What a module cannot do with an entity.
const (
	CannotHydrate  = "hydrate"  // its commands and queries are refused
	CannotSnapshot = "snapshot" // it goes on, is hydrated from its events, and retentions keep these
)

// EntityFault describes what is wrong with one entity.
type EntityFault struct {
	Key         Key       `json:"key"`
	Cannot      string    `json:"cannot"`             // hydrate or snapshot
	Problem     string    `json:"problem"`            // the last error of the module or the host
	Version     Version   `json:"version,omitempty"`  // that cannot be reached, or encoded
	Event       Type      `json:"event,omitempty"`    // event of that version, if known
	Position    Position  `json:"position,omitempty"` // of that event
	Failed      int       `json:"failed_attempts"`    // in a row
	Since       time.Time `json:"since"`              // of the first failure
	NextAttempt time.Time `json:"next_attempt,omitzero"`
}

// Counters have counted since the host started.
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
	Resets     uint64 `json:"resets"`   // resets of sandboxes
	Recycled   uint64 `json:"recycled"` // of them, those because the sandbox had grown

	SnapshotsTaken   uint64 `json:"snapshots_taken"`   // of entities' states, and given to the journal
	SnapshotsUsed    uint64 `json:"snapshots_used"`    // by hydrations, instead of an entity's first events
	SnapshotsRefused uint64 `json:"snapshots_refused"` // found but not used: damaged, or refused

	Fuel uint64 `json:"fuel"` // spent by all calls, including failed ones

	LogLinesDropped uint64 `json:"log_lines_dropped"` // because the service exceeded its log rate
	LogBytesDropped uint64 `json:"log_bytes_dropped"` // their approximate size
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
