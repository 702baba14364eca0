package journal

// Trimmed is what a retention has left of an entity: it has lost its first events.
type Trimmed struct {
	Key   string
	Floor Version // the events up to this version are gone from the log
	// Kept is the version of the first event that the retention has kept apart, as no snapshot stood for it;
	// the others up to Floor follow on it. 0 if there are none. [commitlog.Journal.Load] and [commitlog.Journal.Entity]
	// yield them.
	Kept Version
	// Snapshot is of the version Gone or a later one. It is nil if all events are kept, or the state was lost, as
	// somebody wanted. It is in the log, so it stays whatever is put by PutSnapshot.
	Snapshot *Snapshot
}

// Gone is the version up to which the entity's events cannot be read any more.
func (t *Trimmed) Gone() Version {
	if t.Kept > 0 {
		return t.Kept - 1
	}
	return t.Floor
}
