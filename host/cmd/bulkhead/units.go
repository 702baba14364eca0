package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// size is a number of bytes, written 512, 64KiB, 8MiB or 2GiB.
type size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return fmt.Errorf("%q is not a size like 512, 64KiB, 8MiB or 2GiB", text)
	}
	*s = size(n * unit)
	return nil
}

// String writes the size with the largest unit that divides it.
func (s size) String() string {
	for _, u := range sizeUnits {
		if int64(s) >= u.bytes && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// limitFlags are the limits of a service. Zero is the default.
type limitFlags struct {
	ModuleBytes      size          `name:"module" placeholder:"SIZE" help:"Size of a module. Default ${limit_module}."`
	CompileTime      time.Duration `name:"compile-time" placeholder:"TIME" help:"Time to compile a module. Default ${limit_compile_time}."`
	CompileBytes     size          `name:"compile-memory" placeholder:"SIZE" help:"Memory to compile a module. Default ${limit_compile_memory}."`
	MemoryBytes      size          `name:"memory" placeholder:"SIZE" help:"Linear memory of one sandbox. Default ${limit_memory}."`
	CallTime         time.Duration `name:"call-time" placeholder:"TIME" help:"Processor time that a guest may take in one call; waiting for a processor is not in it. Default ${limit_call_time}."`
	Fuel             int64         `name:"fuel" placeholder:"N" help:"Fuel of one command or query: instructions. Default ${limit_fuel}."`
	EventFuel        int64         `name:"event-fuel" placeholder:"N" help:"Fuel that each event adds to a hydration's. Default ${limit_event_fuel}."`
	StackBytes       size          `name:"stack" placeholder:"SIZE" help:"Call stack of a call. Default ${limit_stack}."`
	TableElements    int           `name:"table-elements" placeholder:"N" help:"Elements of each table. Default ${limit_table_elements}."`
	MemoryWatermark  int           `name:"memory-watermark" placeholder:"PERCENT" help:"Share of the memory above which a sandbox is made anew between commands. Default ${limit_memory_watermark}."`
	CommandBytes     size          `name:"command" placeholder:"SIZE" help:"Data of one command or query. Default ${limit_command}."`
	Events           int           `name:"events" placeholder:"N" help:"Events of one command. Default ${limit_events}."`
	OutcomeBytes     size          `name:"outcome" placeholder:"SIZE" help:"All that one call answers. Default ${limit_outcome}."`
	LogBytes         size          `name:"log" placeholder:"SIZE" help:"Log output of one call; more is cut. Default ${limit_log}."`
	MailboxCommands  int           `name:"mailbox-commands" placeholder:"N" help:"Commands that wait in one shard. Default ${limit_mailbox_commands}."`
	MailboxBytes     size          `name:"mailbox" placeholder:"SIZE" help:"Data of the commands that wait in one shard. Default ${limit_mailbox}."`
	ResidentEntities int           `name:"resident-entities" placeholder:"N" help:"Entities that one shard keeps in its sandbox. Default ${limit_resident_entities}."`
	DiskBytes        size          `name:"disk" placeholder:"SIZE" help:"Log of the service on disk; beyond it commands are refused until a retention has deleted events. On a disk smaller than four times the default it is a quarter of the disk. Default ${limit_disk}."`
	DiskRate         size          `name:"disk-rate" placeholder:"SIZE" help:"Growth of the log in a second, before it is packed, after a burst of two seconds' worth; beyond it commands are refused for a moment. Default ${limit_disk_rate}."`
}

// limits are the flags as the host takes them; zero fields stay zero.
func (f limitFlags) limits() service.Limits {
	return service.Limits{
		ModuleBytes: int64(f.ModuleBytes), CompileTime: f.CompileTime, CompileBytes: int64(f.CompileBytes), MemoryBytes: int64(f.MemoryBytes),
		CallTime: f.CallTime, Fuel: f.Fuel, EventFuel: f.EventFuel, StackBytes: int(f.StackBytes),
		TableElements: f.TableElements, MemoryWatermark: f.MemoryWatermark, CommandBytes: int(f.CommandBytes), Events: f.Events, OutcomeBytes: int(f.OutcomeBytes),
		LogBytes: int(f.LogBytes), MailboxCommands: f.MailboxCommands, MailboxBytes: int64(f.MailboxBytes),
		ResidentEntities: f.ResidentEntities, DiskBytes: int64(f.DiskBytes), DiskRate: int64(f.DiskRate),
	}
}

// limitVars are the defaults as the help shows them, taken from where they are
// defined so that the help cannot lie.
func limitVars() map[string]string {
	d := service.DefaultLimits()
	return map[string]string{
		"limit_module":            size(d.ModuleBytes).String(),
		"limit_compile_time":      d.CompileTime.String(),
		"limit_compile_memory":    size(d.CompileBytes).String(),
		"limit_memory":            size(d.MemoryBytes).String(),
		"limit_call_time":         d.CallTime.String(),
		"limit_fuel":              strconv.FormatInt(d.Fuel, 10),
		"limit_event_fuel":        strconv.FormatInt(d.EventFuel, 10),
		"limit_stack":             size(d.StackBytes).String(),
		"limit_table_elements":    strconv.Itoa(d.TableElements),
		"limit_memory_watermark":  strconv.Itoa(d.MemoryWatermark),
		"limit_command":           size(d.CommandBytes).String(),
		"limit_events":            strconv.Itoa(d.Events),
		"limit_outcome":           size(d.OutcomeBytes).String(),
		"limit_log":               size(d.LogBytes).String(),
		"limit_mailbox_commands":  strconv.Itoa(d.MailboxCommands),
		"limit_mailbox":           size(d.MailboxBytes).String(),
		"snapshot_every":          strconv.Itoa(service.Settings{}.WithDefaults().SnapshotEvery),
		"limit_resident_entities": strconv.Itoa(d.ResidentEntities),
		"limit_disk":              size(d.DiskBytes).String(),
		"limit_disk_rate":         size(d.DiskRate).String(),
	}
}
