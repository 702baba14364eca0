package journal

// Receipt is the proof that something is on disk. Only a [Journal] mints one,
// after the sync that made it true; the zero Receipt proves nothing. It is a
// value without references and may be copied and compared.
//
// A receipt is for one commit, or, from [Journal.Settle], for the present state
// of one entity.
type Receipt struct {
	log     LogName
	key     string
	id      CommandID // empty in a receipt of Settle
	first   Position
	events  uint32
	version Version
	time    UnixNano
	origin  Stamp
	stamp   Stamp
	minted  bool
}

// Valid reports whether a journal minted the receipt.
func (r Receipt) Valid() bool { return r.minted }

// Log is the log that holds what the receipt proves.
func (r Receipt) Log() LogName { return r.log }

// Key is the entity.
func (r Receipt) Key() string { return r.key }

// CommandID is the commit's command; empty if the receipt is for a state.
func (r Receipt) CommandID() CommandID { return r.id }

// First is the position of the commit's first event. If it has none, it is the
// position that the log's next event takes.
func (r Receipt) First() Position { return r.first }

// Events is the number of the commit's events.
func (r Receipt) Events() int { return int(r.events) }

// Last is the position of the commit's last event, or First()-1 if it has none.
func (r Receipt) Last() Position { return r.first + Position(r.events) - 1 }

// Version is the entity's version after the commit.
func (r Receipt) Version() Version { return r.version }

// Origin is the identity of the log; see [Journal.Origin].
func (r Receipt) Origin() Stamp { return r.origin }

// Stamp is that of the batch with the event at the position Last; zero if that is 0, and in a receipt of
// Settle. With Origin it proves of which history that position is.
func (r Receipt) Stamp() Stamp { return r.stamp }

// Time is when the batch was written.
func (r Receipt) Time() UnixNano { return r.time }
