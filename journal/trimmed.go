package journal

// Trimmed is what a retention has left of an entity: it has lost its first events.
type Trimmed struct {
	Key   string
	Floor Version // the events up to this version are gone from the log
	// Kept is the version of the first event that the retention has kept, because no snapshot covers it. The events
	// after it, up to Floor, are kept as well. 0 means that none are. [commitlog.Journal.Load] and
	// [commitlog.Journal.Entity] yield them.
	Kept Version
	// Snapshot is of the version Gone or of a later one. It is nil if all events are kept, or if a forced retention
	// gave the state up. It is in the log, so PutSnapshot does not replace it.
	Snapshot *Snapshot
}

// Gone is the version up to which the entity's events can no longer be read.
func (t *Trimmed) Gone() Version {
	if t.Kept > 0 {
		return t.Kept - 1
	}
	return t.Floor
}
