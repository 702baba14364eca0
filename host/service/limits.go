package service

import (
	"fmt"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// Limits bound what a service may use. A zero field means its default; see
// [Limits.WithDefaults]. JSON durations are nanoseconds.
type Limits struct {
	// ModuleBytes bounds the module. Default 32 MiB.
	ModuleBytes int64 `json:"module_bytes,omitempty"`
	// CompileTime bounds compiling the module. Default 60 s.
	CompileTime time.Duration `json:"compile_time_ns,omitempty"`
	// CompileBytes bounds the memory for it, if the host compiles in a process of its own. Default 2 GiB.
	CompileBytes int64 `json:"compile_bytes,omitempty"`
	// MemoryBytes bounds a sandbox's linear memory; rounded down to pages of 64 KiB. Default 64 MiB.
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	// CallTime bounds the guest's own processor time in one call. Waiting for a turn or
	// for a busy machine is not in it. A hydration has no limit of time. Default 1 s.
	CallTime time.Duration `json:"call_time_ns,omitempty"`
	// Fuel bounds the instructions of one command or query; see the metering's tariff.
	// A start, with _initialize and Describe, may take ten times as much. Default 500,000,000.
	Fuel int64 `json:"fuel,omitempty"`
	// EventFuel is what a hydration may take for each event, beyond Fuel for all that go to the
	// guest together, and four times what their commands took. Default 5,000,000.
	EventFuel int64 `json:"event_fuel,omitempty"`
	// StackBytes bounds the call stack, in estimated bytes of its frames. Default 1 MiB.
	StackBytes int `json:"stack_bytes,omitempty"`
	// TableElements bounds each table. Default 100,000.
	TableElements int `json:"table_elements,omitempty"`
	// MemoryWatermark is the share of MemoryBytes, in percent, above which a sandbox
	// is made anew between two commands. 100 is never. Default 75.
	MemoryWatermark int `json:"memory_watermark_percent,omitempty"`
	// CommandBytes bounds a command's or query's data. Default 1 MiB.
	CommandBytes int `json:"command_bytes,omitempty"`
	// Events bounds the events of one command. Default 1,024.
	Events int `json:"events,omitempty"`
	// OutcomeBytes bounds all that one call answers, but for a snapshot, which may have 16 MiB.
	// Default 4 MiB.
	OutcomeBytes int `json:"outcome_bytes,omitempty"`
	// LogBytes bounds the log output of one call; more is cut, with a mark. Each line
	// counts 100 bytes more than it has. Default 64 KiB.
	LogBytes int `json:"log_bytes,omitempty"`
	// MailboxCommands bounds the commands that wait in one shard. Default 1,024.
	MailboxCommands int `json:"mailbox_commands,omitempty"`
	// MailboxBytes bounds their data. Default 8 MiB.
	MailboxBytes int64 `json:"mailbox_bytes,omitempty"`
	// ResidentEntities bounds the entities that one shard keeps in its sandbox;
	// the least recently used is dropped and hydrated again when next touched. Default 65,536.
	ResidentEntities int `json:"resident_entities,omitempty"`
	// DiskBytes bounds the service's log on disk, packed as it is, in bytes. Beyond it
	// commands are refused with [KindQuota] until a retention has deleted events. Default 16 GiB;
	// a host whose disk is smaller than 64 GiB takes a quarter of it.
	DiskBytes int64 `json:"disk_bytes,omitempty"`
	// DiskRate bounds how fast the log grows, in bytes a second before they are packed, after
	// a burst of two seconds' worth. Beyond it commands are refused with [KindOverloaded].
	// As others wait while a large outcome is written, one of n MiB counts as n + n² MiB.
	// Default 32 MiB.
	DiskRate int64 `json:"disk_bytes_per_second,omitempty"`
}

// limit is one field of Limits: its name in JSON, its range, and its default.
type limit struct {
	name                   string
	least, usual, greatest int64
	get                    func(*Limits) int64
	set                    func(*Limits, int64)
}

func limited[T ~int | ~int64](name string, of func(*Limits) *T, least, usual, greatest int64) limit {
	return limit{name, least, usual, greatest,
		func(l *Limits) int64 { return int64(*of(l)) },
		func(l *Limits, v int64) { *of(l) = T(v) }}
}

// limits is the one table of them. What is done with all limits goes through it.
var limits = []limit{
	limited("module_bytes", func(l *Limits) *int64 { return &l.ModuleBytes }, 8, 32<<20, 1<<30),
	limited("compile_time_ns", func(l *Limits) *time.Duration { return &l.CompileTime }, int64(time.Millisecond),
		int64(time.Minute), int64(time.Hour)),
	limited("compile_bytes", func(l *Limits) *int64 { return &l.CompileBytes }, 64<<20, 2<<30, 64<<30),
	limited("memory_bytes", func(l *Limits) *int64 { return &l.MemoryBytes }, 64<<10, 64<<20, 4<<30),
	limited("call_time_ns", func(l *Limits) *time.Duration { return &l.CallTime }, int64(time.Millisecond),
		int64(time.Second), int64(time.Hour)),
	limited("fuel", func(l *Limits) *int64 { return &l.Fuel }, 1000, 500_000_000, 1<<50),
	limited("event_fuel", func(l *Limits) *int64 { return &l.EventFuel }, 1000, 5_000_000, 1<<50),
	limited("stack_bytes", func(l *Limits) *int { return &l.StackBytes }, 4<<10, 1<<20, 64<<20),
	limited("table_elements", func(l *Limits) *int { return &l.TableElements }, 1, 100_000, 10_000_000),
	limited("memory_watermark_percent", func(l *Limits) *int { return &l.MemoryWatermark }, 1, 75, 100),
	limited("command_bytes", func(l *Limits) *int { return &l.CommandBytes }, 0, 1<<20, abi.MaxFrameSize/2),
	limited("events", func(l *Limits) *int { return &l.Events }, 1, 1024, 1<<20),
	limited("outcome_bytes", func(l *Limits) *int { return &l.OutcomeBytes }, abi.ResponseHeaderSize, 4<<20,
		abi.MaxFrameSize),
	limited("log_bytes", func(l *Limits) *int { return &l.LogBytes }, 0, 64<<10, 64<<20),
	limited("mailbox_commands", func(l *Limits) *int { return &l.MailboxCommands }, 1, 1024, 1<<20),
	limited("mailbox_bytes", func(l *Limits) *int64 { return &l.MailboxBytes }, 1, 8<<20, 8<<30),
	limited("resident_entities", func(l *Limits) *int { return &l.ResidentEntities }, 1, 65536, 1<<28),
	limited("disk_bytes", func(l *Limits) *int64 { return &l.DiskBytes }, 4<<10, 16<<30, 1<<50),
	limited("disk_bytes_per_second", func(l *Limits) *int64 { return &l.DiskRate }, 1<<10, 32<<20, 1<<40),
}

// DefaultLimits are the limits of a service that sets none.
func DefaultLimits() (l Limits) {
	for _, field := range limits {
		field.set(&l, field.usual)
	}
	return l
}

// GreatestLimits are the highest limits that there are.
func GreatestLimits() (l Limits) {
	for _, field := range limits {
		field.set(&l, field.greatest)
	}
	return l
}

// WithDefaults returns a copy with every zero field set to its default.
func (l Limits) WithDefaults() Limits { return l.Over(DefaultLimits()) }

// Over returns a copy with every zero field taken from base.
func (l Limits) Over(base Limits) Limits {
	for _, field := range limits {
		if field.get(&l) == 0 {
			field.set(&l, field.get(&base))
		}
	}
	return l
}

// Under returns a copy with no field above that of top.
func (l Limits) Under(top Limits) Limits {
	for _, field := range limits {
		field.set(&l, min(field.get(&l), field.get(&top)))
	}
	return l
}

// Validate reports every field that is out of its range at once, as a
// KindInvalid error. Call it on limits that have their defaults.
func (l Limits) Validate() error {
	var bad []string
	for _, field := range limits {
		if v := field.get(&l); v < field.least || v > field.greatest {
			bad = append(bad, fmt.Sprintf("%s is %d; it may be %d to %d", field.name, v, field.least, field.greatest))
		}
	}
	return invalid("limits", bad)
}

// GreatestShards is how many shards a service may have at most.
const GreatestShards = 1024

// Settings are the choices of a deployment that are not limits. A zero field
// means its default.
type Settings struct {
	// Shards is the number of sandboxes that share the service's keys. Default 2.
	Shards int `json:"shards,omitempty"`
	// OmitCommandData leaves the data of commands out of the journal. Answers to
	// repeated ids still work; executing the recorded commands again does not.
	OmitCommandData bool `json:"omit_command_data,omitempty"`
	// SnapshotEvery is after how many events of an entity its state is kept beside
	// them, so that it can be hydrated without replaying them. Entities that are dropped
	// for space are kept earlier. -1 takes no snapshots; those that there are are used.
	// Default 1,000.
	SnapshotEvery int `json:"snapshot_every,omitempty"`
	// KeepNaN leaves the bits of a NaN as the processor makes them. Float arithmetic is
	// faster, but machines of different kinds may differ in these bits, and so in what
	// a replay on another one makes of the events. Default: one NaN, the canonical one.
	KeepNaN bool `json:"keep_nan,omitempty"`
}

// WithDefaults returns a copy with every zero field set to its default.
func (s Settings) WithDefaults() Settings { return s.Over(Settings{Shards: 2, SnapshotEvery: 1000}) }

// Over returns a copy with every zero number taken from base.
func (s Settings) Over(base Settings) Settings {
	s.Shards = or(s.Shards, base.Shards)
	s.SnapshotEvery = or(s.SnapshotEvery, base.SnapshotEvery)
	return s
}

// Validate reports every field that is out of its range at once.
func (s Settings) Validate() error {
	var bad []string
	if s.Shards < 1 || s.Shards > GreatestShards {
		bad = append(bad, fmt.Sprintf("shards is %d; it may be 1 to %d", s.Shards, GreatestShards))
	}
	if s.SnapshotEvery < -1 || s.SnapshotEvery == 0 || s.SnapshotEvery > 1<<30 {
		bad = append(bad, fmt.Sprintf("snapshot_every is %d; it may be 1 to %d, or -1 for none", s.SnapshotEvery,
			1<<30))
	}
	return invalid("settings", bad)
}

func invalid(what string, reasons []string) error {
	if len(reasons) == 0 {
		return nil
	}
	return &Error{Kind: KindInvalid, Message: what + " out of range", Reasons: reasons}
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}
