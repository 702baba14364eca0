package service

import "runtime"

// Budget bounds what a host holds at one time, for all services and connections
// together. A zero field means its default, which comes from the machine; see
// [Budget.WithDefaults].
type Budget struct {
	// FlightBytes bounds the bytes of bodies, messages and answers that are in memory
	// on their way in or out. Default 256 MiB.
	FlightBytes int64 `json:"flight_bytes,omitempty"`
	// ConnectionBytes bounds those of one connection. Default 8 MiB.
	ConnectionBytes int64 `json:"connection_bytes,omitempty"`
	// Sandboxes bounds the sandboxes.
	Sandboxes int64 `json:"sandboxes,omitempty"`
	// SandboxBytes bounds their memory: images, linear memories, tables and resident entities.
	SandboxBytes int64 `json:"sandbox_bytes,omitempty"`
	// Descriptors bounds the open files and connections. Default: the process's limit
	// of open files.
	Descriptors int64 `json:"descriptors,omitempty"`
	// DiskBytes bounds the modules and logs on disk. Default: the disk, but for what is
	// kept for the journal.
	DiskBytes int64 `json:"disk_bytes,omitempty"`
	// ModuleBytes bounds the modules among them. Default a quarter of the disk.
	ModuleBytes int64 `json:"module_bytes,omitempty"`
	// Readers bounds the scans of logs that run at the same time, in turns of about a
	// millisecond: pages of events, subscribers that are behind, backups. Others wait; what
	// commands need does not. Default: one fewer than there are processors, and at least one.
	Readers int64 `json:"readers,omitempty"`
}

// WithDefaults returns a copy with every zero field set to its default.
func (b Budget) WithDefaults() Budget {
	b.FlightBytes = or(b.FlightBytes, 256<<20)
	b.ConnectionBytes = or(b.ConnectionBytes, 8<<20)
	b.Readers = or(b.Readers, int64(max(1, runtime.GOMAXPROCS(0)-1)))
	return b
}
