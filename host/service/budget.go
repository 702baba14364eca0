package service

import (
	"fmt"
	"runtime"
)

// Budget bounds what a host holds at one time, for all services and connections
// together. A zero field means its default, which comes from the machine; see
// [Budget.WithDefaults].
type Budget struct {
	// FlightBytes bounds the bytes of bodies, messages and answers that are in memory
	// on their way in or out. Default 256 MiB. What a program that embeds the host hands
	// in and gets by calls is its own, and not in it: mailboxes bound what waits of that.
	FlightBytes int64 `json:"flight_bytes,omitempty"`
	// ConnectionBytes bounds those of one connection. Default 8 MiB. Every limit of what
	// goes over one at a time has to fit into it; see [Budget.Fits].
	ConnectionBytes int64 `json:"connection_bytes,omitempty"`
	// Sandboxes bounds the sandboxes. Each takes a few mappings of memory, of which a
	// process has only so many. Default, of a host: an eighth of vm.max_map_count, at
	// most 4,096, which is also the default where there is no such limit.
	Sandboxes int64 `json:"sandboxes,omitempty"`
	// SandboxBytes bounds their memory: machine code, images, linear memories, call stacks, tables and
	// the host's table of resident entities. Default, of a host: half of the memory that
	// the process may use, by the machine or its control group; 1 GiB where nobody can tell.
	SandboxBytes int64 `json:"sandbox_bytes,omitempty"`
	// JournalMemoryBytes bounds the memory of the journal's stores: caches and tables in memory, as their options
	// bound them. A journal that may need more is not opened. What could not be closed counts until the process ends.
	// Default, of a host: a quarter of the memory that the process may use, and at least 512 MiB. A host with an
	// engine of its own takes nothing of it.
	JournalMemoryBytes int64 `json:"journal_memory_bytes,omitempty"`
	// Descriptors bounds the open files and connections. Default: the process's limit
	// of open files.
	Descriptors int64 `json:"descriptors,omitempty"`
	// DiskBytes bounds the modules and logs on disk. It is never more than what they have
	// and what the disk has left, but for what is kept for the journal, which is the default;
	// a host whose program opens the storage itself has none. The last eighth is for services that have no
	// more than what is left.
	DiskBytes int64 `json:"disk_bytes,omitempty"`
	// ModuleBytes bounds the modules among them. Default a quarter of the disk.
	ModuleBytes int64 `json:"module_bytes,omitempty"`
	// Modules bounds how many these are. Default 10,000.
	Modules int64 `json:"modules,omitempty"`
	// Readers bounds the scans of logs that run at the same time, in turns of about a
	// millisecond: pages of events, subscribers that are behind, backups. Others wait; what
	// commands need does not. Default: one fewer than there are processors, and at least one.
	Readers int64 `json:"readers,omitempty"`
}

// WithDefaults returns a copy with every zero field set to its default.
func (b Budget) WithDefaults() Budget {
	b.FlightBytes = or(b.FlightBytes, 256<<20)
	b.ConnectionBytes = or(b.ConnectionBytes, 8<<20)
	b.Modules = or(b.Modules, 10_000)
	b.Readers = or(b.Readers, int64(max(1, runtime.GOMAXPROCS(0)-1)))
	return b
}

// ConnectionParts is how many times the bytes of one connection have to fit into those of
// all: no connection gets more than such a part of what is left.
const ConnectionParts = 8

// CallRoom is what a connection needs beside the data of one call: buffers, names, and
// the members of an answer, in bytes.
const CallRoom = 256 << 10

// Validate reports what does not fit together, as a KindInvalid error. Call it on a
// budget that has its defaults.
func (b Budget) Validate() error {
	var bad []string
	if least := int64(4 * CallRoom); b.ConnectionBytes < least {
		bad = append(bad, fmt.Sprintf("connection_bytes is %d; it may be %d or more", b.ConnectionBytes, least))
	}
	if most := b.FlightBytes / (ConnectionParts + 2); b.ConnectionBytes > most {
		bad = append(bad, fmt.Sprintf("connection_bytes is %d; of flight_bytes, which is %d, it may be a tenth, %d",
			b.ConnectionBytes, b.FlightBytes, most))
	}
	return invalid("budget", bad)
}

// Fits reports the limits of a service that one connection cannot carry, by name, as a
// KindInvalid error. A body that grows as it arrives is in memory one and a half times at
// the most.
func (b Budget) Fits(l Limits) error {
	room := b.ConnectionBytes - CallRoom
	var bad []string
	for _, limit := range []struct {
		name string
		v    int
		most int64
	}{
		{"command_bytes", l.CommandBytes, room / 3 * 2},
		{"outcome_bytes", l.OutcomeBytes, room},
	} {
		if int64(limit.v) > limit.most {
			bad = append(bad, fmt.Sprintf("%s is %d; with %d bytes for one connection it may be %d", limit.name,
				limit.v, b.ConnectionBytes, limit.most))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &Error{Kind: KindInvalid, Reasons: bad,
		Message: "limits are above what one connection may hold; lower them, or raise the bytes of a connection in " +
			"the host's budget"}
}
