package service

import (
	"fmt"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// Limits bound what a service may use. A zero field means its default; see
// [Limits.WithDefaults]. JSON durations are nanoseconds.
type Limits struct {
	// ModuleBytes is the maximum size of the module. Default 32 MiB.
	ModuleBytes int64 `json:"module_bytes,omitempty"`
	// CompileTime is the maximum time for compiling the module. Default 60 s.
	CompileTime time.Duration `json:"compile_time_ns,omitempty"`
	// CompileBytes is the maximum memory for compiling it, if the host compiles in another process. Default 2
	// GiB.
	CompileBytes int64 `json:"compile_bytes,omitempty"`
	// MemoryBytes is the maximum linear memory of a sandbox, rounded down to pages of 64 KiB. Default 64 MiB.
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	// CallTime is the maximum processor time of the guest in one call. Waiting for a turn or for a busy
	// machine does not count. Hydrations have no time limit. Default 1 s.
	CallTime time.Duration `json:"call_time_ns,omitempty"`
	// Fuel is the maximum fuel of one command or query; see the tariff of package metering. A start, with
	// _initialize and Describe, may spend ten times as much. Default 500,000,000.
	Fuel int64 `json:"fuel,omitempty"`
	// EventFuel is what a hydration may spend for each event. In addition, each request to the guest may
	// spend Fuel once, and four times what the commands of its events spent. Default 5,000,000.
	EventFuel int64 `json:"event_fuel,omitempty"`
	// StackBytes is the maximum call stack, in estimated bytes of its frames. Default 1 MiB.
	StackBytes int `json:"stack_bytes,omitempty"`
	// TableElements is the maximum size of each table. Default 100,000.
	TableElements int `json:"table_elements,omitempty"`
	// MemoryWatermark is the share of MemoryBytes, in percent, above which a sandbox is reset between two
	// commands. 100: never. Default 75.
	MemoryWatermark int `json:"memory_watermark_percent,omitempty"`
	// CommandBytes is the maximum size of a command's or query's data. Default 1 MiB.
	CommandBytes int `json:"command_bytes,omitempty"`
	// Events is the maximum number of events of one command. Default 1,024.
	Events int `json:"events,omitempty"`
	// OutcomeBytes is the maximum size of the answer to one call. A snapshot may have 16 MiB in any case.
	// Default 4 MiB.
	OutcomeBytes int `json:"outcome_bytes,omitempty"`
	// LogBytes is the maximum log output of one call. More is cut, and a mark says so. Each line counts 100
	// bytes more than its text. Default 64 KiB.
	LogBytes int `json:"log_bytes,omitempty"`
	// MailboxCommands is the maximum number of commands that wait in one shard. Default 1,024.
	MailboxCommands int `json:"mailbox_commands,omitempty"`
	// MailboxBytes is the maximum size of their data. Default 8 MiB.
	MailboxBytes int64 `json:"mailbox_bytes,omitempty"`
	// ResidentEntities is the maximum number of entities in the sandbox of one shard. The least recently used
	// entity is dropped, and hydrated again at its next use. Default 65,536.
	ResidentEntities int `json:"resident_entities,omitempty"`
	// DiskBytes is the maximum size of the service's log on disk, in compressed bytes. Beyond it commands are
	// refused with [KindQuota] until a retention deletes events. Default 16 GiB, or a quarter of the disk if
	// that is smaller than 64 GiB.
	DiskBytes int64 `json:"disk_bytes,omitempty"`
	// DiskRate is the rate limit of the log, in uncompressed bytes per second, after a burst of two seconds'
	// worth. Beyond it commands are refused with [KindOverloaded]. Others wait while a large outcome is
	// written, so one of n MiB counts as n + n² MiB. Default 32 MiB.
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

// limits is the table of all limits. Everything that is done with all limits uses it.
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

// GreatestLimits are the highest possible limits.
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

// Under returns a copy with every field lowered to that of top.
func (l Limits) Under(top Limits) Limits {
	for _, field := range limits {
		field.set(&l, min(field.get(&l), field.get(&top)))
	}
	return l
}

// Validate reports every field that is out of range, as a KindInvalid error. Call it on limits with their
// defaults.
func (l Limits) Validate() error {
	var bad []string
	for _, field := range limits {
		if v := field.get(&l); v < field.least || v > field.greatest {
			bad = append(bad, fmt.Sprintf("%s is %d; it may be %d to %d", field.name, v, field.least, field.greatest))
		}
	}
	return invalid("limits", bad)
}

// GreatestShards is the maximum number of shards of a service.
const GreatestShards = 1024

// Settings are the choices of a deployment that are not limits. A zero field
// means its default.
type Settings struct {
	// Shards is the number of sandboxes that share the service's keys. Default 2.
	Shards int `json:"shards,omitempty"`
	// OmitCommandData leaves the data of commands out of the journal. Repeated ids still get their answers,
	// but the recorded commands cannot be carried out again.
	OmitCommandData bool `json:"omit_command_data,omitempty"`
	// SnapshotEvery is the number of events of an entity after which a snapshot is taken, so that it can be
	// hydrated without replaying all of them. Entities that are evicted get one earlier. -1: no new
	// snapshots; existing ones are used. Default 1,000.
	SnapshotEvery int `json:"snapshot_every,omitempty"`
	// KeepNaN leaves the bits of a NaN as the processor computes them. Float arithmetic is then faster, but
	// machines of different kinds may differ in these bits, and so may a replay on another machine. Default:
	// every NaN is the canonical one.
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

// Validate reports every field that is out of range.
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
