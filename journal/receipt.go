package journal

import "github.com/bulkhead-wasm/bulkhead/journal/internal/mint"

// Receipt is the proof that something is on disk. Only a [commitlog.Journal] makes one,
// after the sync that made it true; the zero Receipt proves nothing. It is a
// value without references and may be copied and compared.
//
// A receipt is for one commit, or, from [commitlog.Journal.Settle], for the present state
// of one entity.
type Receipt struct {
	is     Proven
	minted bool
}

// Proven is what a receipt proves.
type Proven struct {
	Log     LogName
	Key     string
	ID      CommandID // empty for a state
	First   Position
	Events  uint32
	Version Version
	Time    UnixNano
	Origin  Stamp
	Stamp   Stamp
}

// NewReceipt makes a receipt. The key, which only packages below journal can have, is the caller's word that what is
// proven is on disk. A key that is not valid makes a receipt that is not valid.
func NewReceipt(key mint.Key, p Proven) Receipt {
	if !key.Valid() {
		return Receipt{}
	}
	return Receipt{is: p, minted: true}
}

// Valid reports whether a journal minted the receipt.
func (r Receipt) Valid() bool { return r.minted }

// Log is the log that holds what the receipt proves.
func (r Receipt) Log() LogName { return r.is.Log }

// Key is the entity.
func (r Receipt) Key() string { return r.is.Key }

// CommandID is the commit's command; empty if the receipt is for a state.
func (r Receipt) CommandID() CommandID { return r.is.ID }

// First is the position of the commit's first event. If it has none, it is the
// position that the log's next event takes.
func (r Receipt) First() Position { return r.is.First }

// Events is the number of the commit's events.
func (r Receipt) Events() int { return int(r.is.Events) }

// Last is the position of the commit's last event, or First()-1 if it has none.
func (r Receipt) Last() Position { return r.is.First + Position(r.is.Events) - 1 }

// Version is the entity's version after the commit.
func (r Receipt) Version() Version { return r.is.Version }

// Origin is the identity of the log; see [commitlog.Journal.Origin].
func (r Receipt) Origin() Stamp { return r.is.Origin }

// Stamp is that of the batch with the event at the position Last; zero if that is 0, and in a receipt of
// Settle. With Origin it proves of which history that position is.
func (r Receipt) Stamp() Stamp { return r.is.Stamp }

// Time is when the batch was written.
func (r Receipt) Time() UnixNano { return r.is.Time }
