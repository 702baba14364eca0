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
	// for a busy machine is not in it. Default 1 s.
	CallTime time.Duration `json:"call_time_ns,omitempty"`
	// Fuel bounds the instructions of one command or query; see the metering's tariff.
	// A start, with _initialize and Describe, may take ten times as much. Default 500,000,000.
	Fuel int64 `json:"fuel,omitempty"`
	// EventFuel is what a hydration may take beyond Fuel for each event. Default 5,000,000.
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
	// OutcomeBytes bounds all that one call answers. Default 4 MiB.
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

// DefaultLimits are the limits of a service that sets none.
func DefaultLimits() Limits {
	return Limits{
		ModuleBytes:      32 << 20,
		CompileTime:      60 * time.Second,
		CompileBytes:     2 << 30,
		MemoryBytes:      64 << 20,
		CallTime:         time.Second,
		Fuel:             500_000_000,
		EventFuel:        5_000_000,
		StackBytes:       1 << 20,
		TableElements:    100_000,
		MemoryWatermark:  75,
		CommandBytes:     1 << 20,
		Events:           1024,
		OutcomeBytes:     4 << 20,
		LogBytes:         64 << 10,
		MailboxCommands:  1024,
		MailboxBytes:     8 << 20,
		ResidentEntities: 65536,
		DiskBytes:        16 << 30,
		DiskRate:         32 << 20,
	}
}

// WithDefaults returns a copy with every zero field set to its default.
func (l Limits) WithDefaults() Limits { return l.Over(DefaultLimits()) }

// Over returns a copy with every zero field taken from base.
func (l Limits) Over(base Limits) Limits {
	l.ModuleBytes = or(l.ModuleBytes, base.ModuleBytes)
	l.CompileTime = or(l.CompileTime, base.CompileTime)
	l.CompileBytes = or(l.CompileBytes, base.CompileBytes)
	l.MemoryBytes = or(l.MemoryBytes, base.MemoryBytes)
	l.CallTime = or(l.CallTime, base.CallTime)
	l.Fuel = or(l.Fuel, base.Fuel)
	l.EventFuel = or(l.EventFuel, base.EventFuel)
	l.StackBytes = or(l.StackBytes, base.StackBytes)
	l.TableElements = or(l.TableElements, base.TableElements)
	l.MemoryWatermark = or(l.MemoryWatermark, base.MemoryWatermark)
	l.CommandBytes = or(l.CommandBytes, base.CommandBytes)
	l.Events = or(l.Events, base.Events)
	l.OutcomeBytes = or(l.OutcomeBytes, base.OutcomeBytes)
	l.LogBytes = or(l.LogBytes, base.LogBytes)
	l.MailboxCommands = or(l.MailboxCommands, base.MailboxCommands)
	l.MailboxBytes = or(l.MailboxBytes, base.MailboxBytes)
	l.ResidentEntities = or(l.ResidentEntities, base.ResidentEntities)
	l.DiskBytes = or(l.DiskBytes, base.DiskBytes)
	l.DiskRate = or(l.DiskRate, base.DiskRate)
	return l
}

// Validate reports every field that is out of its range at once, as a
// KindInvalid error. Call it on limits that have their defaults.
func (l Limits) Validate() error {
	var bad []string
	check := func(name string, v, low, high int64) {
		if v < low || v > high {
			bad = append(bad, fmt.Sprintf("%s is %d; it may be %d to %d", name, v, low, high))
		}
	}
	check("module_bytes", l.ModuleBytes, 8, 1<<30)
	check("compile_time_ns", int64(l.CompileTime), int64(time.Millisecond), int64(time.Hour))
	check("compile_bytes", l.CompileBytes, 64<<20, 64<<30)
	check("memory_bytes", l.MemoryBytes, 64<<10, 4<<30)
	check("call_time_ns", int64(l.CallTime), int64(time.Millisecond), int64(time.Hour))
	check("fuel", l.Fuel, 1000, 1<<50)
	check("event_fuel", l.EventFuel, 1000, 1<<50)
	check("stack_bytes", int64(l.StackBytes), 4<<10, 64<<20)
	check("table_elements", int64(l.TableElements), 1, 10_000_000)
	check("memory_watermark_percent", int64(l.MemoryWatermark), 1, 100)
	check("command_bytes", int64(l.CommandBytes), 0, abi.MaxFrameSize/2)
	check("events", int64(l.Events), 1, 1<<20)
	check("outcome_bytes", int64(l.OutcomeBytes), abi.ResponseHeaderSize, abi.MaxFrameSize)
	check("log_bytes", int64(l.LogBytes), 0, 64<<20)
	check("mailbox_commands", int64(l.MailboxCommands), 1, 1<<20)
	check("mailbox_bytes", l.MailboxBytes, 1, 8<<30)
	check("resident_entities", int64(l.ResidentEntities), 1, 1<<28)
	check("disk_bytes", l.DiskBytes, 4<<10, 1<<50)
	check("disk_bytes_per_second", l.DiskRate, 1<<10, 1<<40)
	return invalid("limits", bad)
}

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
	if s.Shards < 1 || s.Shards > 1024 {
		bad = append(bad, fmt.Sprintf("shards is %d; it may be 1 to 1024", s.Shards))
	}
	if s.SnapshotEvery < -1 || s.SnapshotEvery == 0 || s.SnapshotEvery > 1<<30 {
		bad = append(bad, fmt.Sprintf("snapshot_every is %d; it may be 1 to %d, or -1 for none", s.SnapshotEvery, 1<<30))
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
