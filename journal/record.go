package journal

// LogName names one log. Each service owns one; names that no service can have
// (they start with an underscore) belong to the host.
type LogName string

// Position is the place of an event in its log. The first event has position 1,
// each next one the next number; positions are dense and never reused. 0 is the
// place before the first event.
type Position uint64

// Version is the number of events of an entity: 0 before its first one.
type Version uint64

// CommandID identifies a command within its log. The sender chooses it, so that
// sending again is safe.
type CommandID string

// Digest is the SHA-256 of a module.
type Digest [32]byte

// Stamp is the first eight bytes of the SHA-256 of a batch. A batch has the hash of the one before it, so a stamp
// stands for all of its log up to there: where two logs have the same stamp, they have the same history. The zero
// Stamp is that of no batch.
type Stamp [8]byte

// UnixNano is an instant: nanoseconds since the Unix epoch, UTC.
type UnixNano int64

// Command is the record of a command that was carried out. It makes the answer
// to a repeated id, and a second execution of the same command, possible.
type Command struct {
	ID          CommandID
	Fingerprint [16]byte // of type, key, data and expectation: tells a repeat from a reuse of the id
	Type        string
	Key         string
	Data        []byte // nil if the service does not record command data
	Metadata    []byte // encoded pairs, opaque here
	Time        UnixNano
	Seed        [16]byte
	Module      Digest
	Fuel        uint64
	Reply       []byte
}

// NewEvent is an event that is not in the log yet.
type NewEvent struct {
	Type        string
	ContentType string // empty means application/json
	Data        []byte
	Metadata    []byte // encoded pairs, opaque here
}

// Commit is the atomic unit of the log: one command and the events it caused,
// possibly none. The journal keeps the slices, also when the commit is complete;
// nobody may change them after Append.
type Commit struct {
	Log      LogName
	Command  Command
	Expected Version // of the entity before the first event
	Events   []NewEvent
	// GeneratedID says that the host made the command's id, so nobody can have
	// used it before: Append does not look it up in the index.
	GeneratedID bool
}

// Event is an event in the log.
type Event struct {
	Log         LogName
	Position    Position
	Key         string
	Version     Version // of the entity after this event
	Type        string
	ContentType string // never empty
	Data        []byte
	Metadata    []byte
	CommandID   CommandID
	CommandType string
	CommandTime UnixNano // the command's own time, which the guest saw
	CommandFuel uint64   // what the command took, with all of its events
	Time        UnixNano // when its batch was written; never decreases within a log
	Stamp       Stamp    // of its batch; zero while that is not on disk
}

// Committed is a whole commit, as the log has it.
type Committed struct {
	Log     LogName
	Command Command
	First   Position // of its first event; if it has none, the position of the log's next event
	Version Version  // of the entity after it
	Events  []Event
	Time    UnixNano
	// Stamp is that of the batch with its last event, or, if it has no event, with the event before it. It is zero if
	// there is no such event. [commitlog.Journal.Commits] and [format.ReadBatch] set it only if that event is in the
	// same batch.
	Stamp Stamp
}
