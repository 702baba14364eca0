package service

import "time"

// Retention says which of a service's first events shall be deleted. At least one of
// Before and OlderThan is set; if both are, both have to apply.
type Retention struct {
	Before    Position      // events before this position
	OlderThan time.Duration // events written at least so long ago
	// Through deletes no batch after the one with this sequence; 0 sets no bound. It is for
	// callers that have kept what a dry run said would be deleted.
	Through uint64
	// MaxKept bounds the events of entities without snapshots that are kept apart, in bytes; see
	// [journal.Retention]. 0 is [journal.DefaultMaxKept], or nothing more than is kept already if the
	// service does not run; a negative value keeps nothing more in any case.
	MaxKept int64
	// DryRun takes the snapshots that are missing and says what would be deleted.
	DryRun bool
	// Force deletes events that no snapshot covers, also those that were kept, and so the states of their
	// entities, and answers to command ids that are still promised.
	Force bool
	// Progress, if not nil, hears now and then how far a stage has come. It must not block for long.
	// A client does not hear it from its host.
	Progress func(Progress)
}

// BackupOptions are the choices of a backup.
type BackupOptions struct {
	// Since is the manifest of the backup that this one continues, as JSON. Empty makes a
	// backup that is complete in itself.
	Since []byte
	// Progress, if not nil, hears now and then how far the backup has come: in batches where
	// it is made, in bytes where it is fetched. It must not block for long.
	Progress func(Progress)
}
