package service

import "time"

// Retention says which of a service's first events to delete. At least one of Before and OlderThan is set; if
// both are, both must hold.
type Retention struct {
	Before    Position      // events before this position
	OlderThan time.Duration // events that were written at least that long ago
	// Through is the sequence of the last batch that may be deleted; 0: no bound. It is for callers that have
	// saved what a dry run said would be deleted.
	Through uint64
	// MaxKept is the maximum size of kept events, in bytes; see [journal.Retention]. 0 means
	// [journal.DefaultMaxKept] or, if the service does not run, nothing beyond what is kept already. A
	// negative value never keeps more.
	MaxKept int64
	// DryRun takes the missing snapshots, and reports what would be deleted.
	DryRun bool
	// Force also deletes events that no snapshot covers, kept events included, and with them the states of
	// their entities, and answers to command ids that are still promised.
	Force bool
	// Progress, if not nil, is called from time to time. It must not block for long. A remote client does not
	// get progress from its host.
	Progress func(Progress)
}

// BackupOptions are the choices of a backup.
type BackupOptions struct {
	// Since is the manifest of the backup that this one continues, as JSON. Empty: the backup is complete in
	// itself.
	Since []byte
	// Progress, if not nil, is called from time to time: with batches where the backup is made, with bytes
	// where it is received. It must not block for long.
	Progress func(Progress)
}
