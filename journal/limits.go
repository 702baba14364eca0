package journal

// Limits of the format, in bytes. A commit beyond them is refused by Append.
const (
	MaxLogName   = 128
	MaxKey       = 256
	MaxTypeName  = 256
	MaxCommandID = 256
	MaxCommit    = 256 << 20
	MaxEvents    = 1 << 20
)
