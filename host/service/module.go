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
