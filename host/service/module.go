package service

import "time"

// StoredModule is a module on the host's disk.
type StoredModule struct {
	Digest Digest    `json:"digest"`
	Size   int64     `json:"size"`  // bytes
	Since  time.Time `json:"since"` // it was stored last, or lost its last reference
	// Services run it, and Earlier ran it before the module that they run now. A module
	// without either can be deleted, and is collected some time after Since.
	Services []Name `json:"services"`
	Earlier  []Name `json:"earlier"`
	// CodeBytes is what its machine code takes on disk. That is compiled again when it is missing.
	CodeBytes int64 `json:"code_bytes"`
}

// Modules is what a host has on disk of modules.
type Modules struct {
	Modules []StoredModule `json:"modules"`     // in order of their digests
	Bytes   int64          `json:"bytes"`       // of all, without machine code
	Limit   int64          `json:"limit_bytes"` // of Bytes; see [Budget]. 0 is none
	// OtherCodeBytes is what machine code takes on disk of which no module is stored.
	OtherCodeBytes int64 `json:"other_code_bytes"`
	// Keep is how long a module stays that nothing refers to, in nanoseconds in JSON;
	// negative: for ever.
	Keep time.Duration `json:"keep_ns"`
}
