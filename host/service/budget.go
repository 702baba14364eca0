package service

import (
	"fmt"
	"runtime"
)

// Budget bounds what a host holds at one time, for all services and connections together. A zero field means
// its default, which depends on the machine; see [Budget.WithDefaults].
type Budget struct {
	// FlightBytes bounds the bytes of bodies, messages and answers that are in memory on their way in or out.
	// Default 256 MiB. It does not include what an embedding program passes and gets by calls; of that,
	// mailboxes bound what waits.
	FlightBytes int64 `json:"flight_bytes,omitempty"`
	// ConnectionBytes bounds those bytes for one connection. Default 8 MiB. Each limit of one message or
	// answer must fit into it; see [Budget.Fits].
	ConnectionBytes int64 `json:"connection_bytes,omitempty"`
	// Sandboxes bounds the number of sandboxes. Each takes a few memory mappings, whose number is limited for
	// a process. Default of a host: an eighth of vm.max_map_count, at most 4,096; without such a limit,
	// 4,096.
	Sandboxes int64 `json:"sandboxes,omitempty"`
	// SandboxBytes bounds the memory of sandboxes: machine code, images, linear memories, call stacks, tables
	// and the host's table of resident entities. Default of a host: half of the memory that the process may
	// use, as given by the machine or its control group; 1 GiB if unknown.
	SandboxBytes int64 `json:"sandbox_bytes,omitempty"`
	// JournalMemoryBytes bounds the memory of the journal's stores: caches and tables in memory, as their options
	// bound them. A journal that may need more is not opened. A store that could not be closed counts until the
	// process ends. Default of a host: a quarter of the memory that the process may use, and at least 512 MiB.
	// A host with another storage takes nothing of it.
	JournalMemoryBytes int64 `json:"journal_memory_bytes,omitempty"`
	// Descriptors bounds the open files and connections. Default: the process's limit of open files.
	Descriptors int64 `json:"descriptors,omitempty"`
	// DiskBytes bounds the modules and logs on disk. It is never more than their present size plus the free
	// space of the disk beyond the journal's reserve; this is also the default. A host with another storage
	// has no default. The last eighth is only for services that have no more than what is left.
	DiskBytes int64 `json:"disk_bytes,omitempty"`
	// ModuleBytes bounds the modules in it. Default: a quarter of the disk.
	ModuleBytes int64 `json:"module_bytes,omitempty"`
	// Modules bounds the number of these modules. Default 10,000.
	Modules int64 `json:"modules,omitempty"`
	// Readers bounds the concurrent scans of logs, which take turns of about a millisecond: pages of events,
	// subscribers that are behind, backups. Others wait. Reads that commands need do not count. Default: the
	// number of processors minus one, but at least one.
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

// ConnectionParts is how many times the bytes of one connection must fit into those of all. So no connection
// gets more than one such part of what is left.
const ConnectionParts = 8

// CallRoom is what a connection needs beside the data of one call, in bytes: buffers, names, and the members
// of an answer.
const CallRoom = 256 << 10

// Validate reports fields that contradict each other, as a KindInvalid error. Call it on a budget with its
// defaults.
func (b Budget) Validate() error {
	var bad []string
	if minimum := int64(4 * CallRoom); b.ConnectionBytes < minimum {
		bad = append(bad, fmt.Sprintf("connection_bytes is %d; it may be %d or more", b.ConnectionBytes, minimum))
	}
	if maximum := b.FlightBytes / (ConnectionParts + 2); b.ConnectionBytes > maximum {
		bad = append(bad, fmt.Sprintf("connection_bytes is %d; of flight_bytes, which is %d, it may be a tenth, %d",
			b.ConnectionBytes, b.FlightBytes, maximum))
	}
	return invalid("budget", bad)
}

// Fits reports the limits of a service that one connection cannot carry, by name, as a KindInvalid error. A
// body that grows while it arrives takes up to one and a half times its size.
func (b Budget) Fits(l Limits) error {
	room := b.ConnectionBytes - CallRoom
	var bad []string
	for _, limit := range []struct {
		name string
		v    int
		max  int64
	}{
		{"command_bytes", l.CommandBytes, room / 3 * 2},
		{"outcome_bytes", l.OutcomeBytes, room},
	} {
		if int64(limit.v) > limit.max {
			bad = append(bad, fmt.Sprintf("%s is %d; with %d bytes for one connection it may be %d", limit.name,
				limit.v, b.ConnectionBytes, limit.max))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &Error{Kind: KindInvalid, Reasons: bad,
		Message: "limits are above what one connection may hold; lower them, or raise the bytes of a connection in " +
			"the host's budget"}
}
