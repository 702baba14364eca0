package service

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Command is a request to change one entity.
type Command struct {
	Service  Name
	Key      Key
	Type     Type
	ID       CommandID // empty: the host chooses one, and repeats cannot be recognised
	Data     []byte    // JSON that matches the type's input schema, unless the manifest has another encoding
	Metadata abi.Metadata
	// Expected is the version that the entity must have; nil: any.
	Expected *Version
	// Deadline is when the sender stops waiting; zero: never. A command that has not begun by then is
	// refused, and one that still runs is ended.
	Deadline time.Time
	// Gone is closed when the sender has gone away; nil: never. Then a command that runs for long is ended,
	// and nothing is written.
	Gone <-chan struct{}
	// Claim lets the sender take the command back until it has begun; nil: the sender never does. Commands
	// must not share a claim.
	Claim *Claim
	// Carrier accounts for what the command holds; nil: no accounting. A sender that sets it has already
	// checked JSON data with [CheckJSON].
	Carrier Carrier
}

// NewCommandID makes a unique command id. A sender that keeps it can send the command again safely.
func NewCommandID() CommandID { return CommandID(rand.Text()) }

// Fingerprint distinguishes a repeated command from another one under the same id. It covers key, type,
// expected version and data.
func (c *Command) Fingerprint() [16]byte {
	h := sha256.New()
	var n [8]byte
	field := func(s string) {
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	field(string(c.Key))
	field(string(c.Type))
	if c.Expected != nil {
		binary.LittleEndian.PutUint64(n[:], uint64(*c.Expected))
		field(string(n[:]))
	} else {
		field("")
	}
	yield.Write(h, c.Data)
	var sum [sha256.Size]byte
	return [16]byte(h.Sum(sum[:0])[:16])
}

// Reply is what the sender of a command gets. It exists only for commands whose events are on disk: see
// [Outcome.Reply].
type Reply struct {
	Service   Name
	Key       Key
	CommandID CommandID
	Data      []byte   // the handler's reply
	Events    int      // number of events that the command caused
	Position  Position // of the last of them; without events, of the log's last event
	Cursor    Cursor   // of that position
	Version   Version  // of the entity after them
	Fuel      uint64   // that the handler spent
	Repeated  bool     // the command was carried out before; this is its first answer
}

// Query is a read of one entity's state.
type Query struct {
	Service  Name
	Key      Key
	Type     Type
	Data     []byte
	Deadline time.Time
	Gone     <-chan struct{} // closed when the sender has gone away; nil: never
	Claim    *Claim          // as in a [Command]
	Carrier  Carrier         // accounts for what the query holds; nil: no accounting
}

// QueryReply is the answer to a query.
type QueryReply struct {
	Data    []byte
	Version Version // the version of the entity on which the answer depends
	Fuel    uint64
}

// Outcome is what a guest's handler returned. Its reply is locked until a receipt shows that everything it
// depends on is on disk. This type enforces the first law of the host.
type Outcome struct {
	Events []journal.NewEvent
	Fuel   uint64

	reply     []byte
	rejection *Error
}

// NewOutcome makes the outcome of a handler that replied.
func NewOutcome(events []journal.NewEvent, reply []byte, fuel uint64) Outcome {
	return Outcome{Events: events, reply: reply, Fuel: fuel}
}

// NewRejection makes the outcome of a handler that refused; rejection has the kind KindRejected.
func NewRejection(rejection *Error, fuel uint64) Outcome {
	return Outcome{rejection: rejection, Fuel: fuel}
}

// ReplyBytes is the size of the reply.
func (o *Outcome) ReplyBytes() int { return len(o.reply) }

// Rejected reports whether the handler refused; then there is nothing to write. The reason depends on the
// entity's state, so [Outcome.Rejection] needs a receipt.
func (o *Outcome) Rejected() bool { return o.rejection != nil }

// Commit converts the outcome of c for the journal. The caller fills in what the host knows: time, seed,
// module. Each event keeps the metadata of its command, except pairs whose names it has itself and pairs for
// which there is no room; see [Pairs].
func (o *Outcome) Commit(c *Command, expected Version) journal.Commit {
	keep(c.Metadata, o.Events)
	return journal.Commit{
		Log: journal.LogName(c.Service),
		Command: journal.Command{
			ID: journal.CommandID(c.ID), Fingerprint: c.Fingerprint(),
			Type: string(c.Type), Key: string(c.Key), Data: c.Data, Metadata: c.Metadata,
			Fuel: o.Fuel, Reply: o.reply,
		},
		Expected: expected,
		Events:   o.Events,
	}
}

// Reply unlocks the answer to the command of receipt r. With the receipt of another command, or none, it
// fails with KindInternal and the reply stays locked.
func (o *Outcome) Reply(r journal.Receipt) (Reply, error) {
	if !r.Valid() || r.CommandID() == "" {
		return Reply{}, Errorf(KindInternal, "reply asked for without the receipt of its commit")
	}
	if r.Events() != len(o.Events) {
		return Reply{}, Errorf(KindInternal, "receipt of another command: it has %d events, the outcome %d", r.Events(),
			len(o.Events))
	}
	return Reply{
		Service: Name(r.Log()), Key: Key(r.Key()), CommandID: CommandID(r.CommandID()),
		Data: o.reply, Events: len(o.Events), Position: r.Last(), Cursor: CursorOf(r), Version: r.Version(),
		Fuel: o.Fuel,
	}, nil
}

// Rejection unlocks the reason for which the handler refused, given a receipt for the state that it read.
func (o *Outcome) Rejection(r journal.Receipt) error {
	if !r.Valid() {
		return Errorf(KindInternal, "rejection asked for without a receipt")
	}
	return o.rejection
}

// QueryReply unlocks the answer to a query, given a receipt for the state that it read.
func (o *Outcome) QueryReply(r journal.Receipt) (QueryReply, error) {
	if !r.Valid() {
		return QueryReply{}, Errorf(KindInternal, "query reply asked for without a receipt")
	}
	if o.rejection != nil {
		return QueryReply{}, o.rejection
	}
	return QueryReply{Data: o.reply, Version: r.Version(), Fuel: o.Fuel}, nil
}

// Trial is what a handler returned that ran apart from its service. None of it can be written: a commit is
// only made from an [Outcome].
type Trial struct {
	Events    []journal.NewEvent
	Reply     []byte
	Rejection *Error // of KindRejected; nil if the handler replied
	Fuel      uint64
}

// Trial takes everything out of an outcome that nothing is written of. Afterwards the outcome is empty. Only
// package scratch calls it, whose sandboxes do not run services: the outcome of a service stays locked.
func (o *Outcome) Trial() Trial {
	t := Trial{Events: o.Events, Reply: o.reply, Rejection: o.rejection, Fuel: o.Fuel}
	*o = Outcome{}
	return t
}

// Repeat is the answer to a command that was carried out before.
func Repeat(c *journal.Command, r journal.Receipt) (Reply, error) {
	if !r.Valid() || r.CommandID() == "" {
		return Reply{}, Errorf(KindInternal, "repeated reply asked for without the receipt of its commit")
	}
	return Reply{
		Service: Name(r.Log()), Key: Key(r.Key()), CommandID: CommandID(r.CommandID()),
		Data:   bytes.Clone(c.Reply), // it may be a slice of something larger
		Events: r.Events(), Position: r.Last(), Cursor: CursorOf(r), Version: r.Version(), Fuel: c.Fuel, Repeated: true,
	}, nil
}
