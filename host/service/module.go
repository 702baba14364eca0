package service

import "time"

// StoredModule is a module on the host's disk.
type StoredModule struct {
	Digest Digest    `json:"digest"`
	Size   int64     `json:"size"`  // bytes
	Since  time.Time `json:"since"` // when it was last stored, or lost its last reference
	// Services run it. Earlier ran it before their present module, and may be rolled back to it. A module
	// without either can be deleted, and is collected some time after Since.
	Services []Name `json:"services"`
	Earlier  []Name `json:"earlier"`
	// CodeBytes is the size of its machine code on disk. Missing code is compiled again.
	CodeBytes int64 `json:"code_bytes"`
}

// Modules describes the modules on a host's disk.
type Modules struct {
	Modules []StoredModule `json:"modules"`     // sorted by digest
	Bytes   int64          `json:"bytes"`       // of all, without machine code
	Limit   int64          `json:"limit_bytes"` // of Bytes; see [Budget]. 0: no limit
	// OtherCodeBytes is the size of machine code on disk whose module is not stored.
	OtherCodeBytes int64 `json:"other_code_bytes"`
	// Keep is how long a module without references is kept, in nanoseconds in JSON; negative: forever.
	Keep time.Duration `json:"keep_ns"`
}
