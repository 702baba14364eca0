package format

import (
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Record kinds: part of the disk format, only ever appended to.
const (
	recordCommand = 1
	recordEvent   = 2
)

// Flags of a command record: part of the disk format.
const (
	commandHasData = 1
	commandAgain   = 2 // its id had been used before
)

// AppendCommit encodes a commit as its records: the command's, then one an
// event. Positions and versions of events are not in it, as the batch header
// and the command record imply them.
//
//	command record             event record
//	uint  length of the rest   uint  length of the rest
//	u8    1                    u8    2
//	u8    flags: 1 has data    str   type
//	str   id                   str   content type, empty for application/json
//	16 B  fingerprint          bytes data
//	str   type                 bytes metadata
//	str   key
//	uint  version before
//	uint  number of events
//	u64   time
//	16 B  seed
//	32 B  module
//	uint  fuel
//	bytes metadata
//	bytes data
//	bytes reply
//	u64   with flag 2: how long the answer to an earlier command with this id was
//	      promised, in nanoseconds; that was over
//
// uint is an unsigned varint, u64 little-endian, str and bytes a uint length and
// the bytes.
//
// again is how long the answer to an earlier command with the same id was promised, if there was one and that time
// was over; else 0.
func AppendCommit(b []byte, c *journal.Commit, again time.Duration) []byte {
	cmd := &c.Command
	var flags byte
	if cmd.Data != nil {
		flags = commandHasData
	}
	if again > 0 {
		flags |= commandAgain
	}
	size := commandSize(c, again)
	w := writer{slices.Grow(b, CommitBytes(c, again))}
	w.uint(uint64(size))
	w.b = append(w.b, recordCommand, flags)
	w.str(string(cmd.ID))
	w.b = append(w.b, cmd.Fingerprint[:]...)
	w.str(cmd.Type)
	w.str(cmd.Key)
	w.uint(uint64(c.Expected))
	w.uint(uint64(len(c.Events)))
	w.u64(uint64(cmd.Time))
	w.b = append(w.b, cmd.Seed[:]...)
	w.b = append(w.b, cmd.Module[:]...)
	w.uint(cmd.Fuel)
	w.bytes(cmd.Metadata)
	w.bytes(cmd.Data)
	w.bytes(cmd.Reply)
	if again > 0 {
		w.u64(uint64(again))
	}
	for i := range c.Events {
		e := &c.Events[i]
		w.uint(uint64(eventSize(e)))
		w.b = append(w.b, recordEvent)
		w.str(e.Type)
		w.str(e.ContentType)
		w.bytes(e.Data)
		w.bytes(e.Metadata)
	}
	return w.b
}

// CommitBytes is the length of what AppendCommit appends.
func CommitBytes(c *journal.Commit, again time.Duration) int {
	n := strSize(commandSize(c, again))
	for i := range c.Events {
		n += strSize(eventSize(&c.Events[i]))
	}
	return n
}

// commandSize is the length of a command record without its length field.
func commandSize(c *journal.Commit, again time.Duration) int {
	cmd := &c.Command
	promise := 0
	if again > 0 {
		promise = 8
	}
	return promise + 2 + 16 + 8 + 16 + 32 +
		strSize(len(cmd.ID)) + strSize(len(cmd.Type)) + strSize(len(cmd.Key)) +
		uintSize(uint64(c.Expected)) + uintSize(uint64(len(c.Events))) + uintSize(cmd.Fuel) +
		strSize(len(cmd.Metadata)) + strSize(len(cmd.Data)) + strSize(len(cmd.Reply))
}

// eventSize is the length of an event record without its length field.
func eventSize(e *journal.NewEvent) int {
	return 1 + strSize(len(e.Type)) + strSize(len(e.ContentType)) + strSize(len(e.Data)) + strSize(len(e.Metadata))
}

func uintSize(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}

func strSize(n int) int { return uintSize(uint64(n)) + n }

// DecodedCommit is a commit as its records say it, without its place.
type DecodedCommit struct {
	Command  journal.Command
	Expected journal.Version
	Events   []journal.NewEvent // views into the batch
	Again    time.Duration
	types    typeNames
}

// typeNames keeps the latest names of types, of which a log has few: most of what is
// read then needs no new string.
type typeNames [16]string

func (t *typeNames) str(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	at := &t[(len(b)^int(b[0])^int(b[len(b)-1])<<1)%len(t)]
	if *at != string(b) {
		*at = string(b)
	}
	return *at
}

// Texts makes the strings of events that are read one after the other.
type Texts struct {
	types typeNames
	// together has command ids share memory, which stays as long as one of them: for readers who soon let go
	// of all.
	Together bool
	ids      strings.Builder
}

// togetherMost bounds the memory that ids share, in bytes.
const togetherMost = 1 << 10

// ID returns a copy of a command id. Short ones share memory with others.
func (t *Texts) ID(b []byte) journal.CommandID {
	if !t.Together {
		return journal.CommandID(b)
	}
	if size := t.ids.Cap(); size-t.ids.Len() < len(b) {
		t.ids.Reset()
		t.ids.Grow(max(len(b), min(2*size, togetherMost))) // the first one by itself, as there may be no other
	}
	at := t.ids.Len()
	t.ids.Write(b)
	return journal.CommandID(t.ids.String()[at:])
}

// readCommit takes the records of one commit off r. most bounds the events, as
// the batch header counts them. It refuses what Append would: an index entry has key, id and type of its
// event, so that long ones of many events would make it many times as long as the batch. Byte slices
// are views.
func readCommit(r *reader, most uint64, into *DecodedCommit) bool {
	rec := reader{b: r.bytes()}
	head := rec.take(2)
	if r.bad || rec.bad || head[0] != recordCommand {
		return false
	}
	c := &into.Command
	front := rec.b
	id := rec.bytes()
	idEnd := len(front) - len(rec.b)
	rec.fill(c.Fingerprint[:])
	c.Type = into.types.str(rec.bytes())
	key := rec.bytes()
	if rec.bad {
		return false
	}
	// Id and key are parts of one string, as making one costs less than making two.
	text := string(front[:len(front)-len(rec.b)])
	c.ID = journal.CommandID(text[idEnd-len(id) : idEnd])
	c.Key = text[len(text)-len(key):]
	into.Expected = journal.Version(rec.uint())
	n := rec.uint()
	c.Time = journal.UnixNano(rec.u64())
	rec.fill(c.Seed[:])
	rec.fill(c.Module[:])
	c.Fuel = rec.uint()
	c.Metadata, c.Data, c.Reply = rec.bytes(), rec.bytes(), rec.bytes()
	if head[1]&commandHasData == 0 {
		c.Data = nil
	}
	if into.Again = 0; head[1]&commandAgain != 0 {
		if into.Again = time.Duration(rec.u64()); into.Again <= 0 {
			return false
		}
	}
	if len(key) == 0 || len(key) > journal.MaxKey || len(id) == 0 || len(id) > journal.MaxCommandID ||
		len(c.Type) > journal.MaxTypeName ||
		n > journal.MaxEvents {
		return false
	}
	// An event record has at least 6 bytes, so the count cannot make us allocate
	// more than a small multiple of what is there.
	if rec.bad || n > most || n > uint64(len(r.b))/6 {
		return false
	}
	into.Events = into.Events[:0]
	for range n {
		ev := reader{b: r.bytes()}
		kind := ev.take(1)
		if r.bad || ev.bad || kind[0] != recordEvent {
			return false
		}
		e := journal.NewEvent{Type: into.types.str(ev.bytes()), ContentType: into.types.str(ev.bytes()),
			Data:     ev.bytes(),
			Metadata: ev.bytes()}
		if ev.bad || len(e.Type) > journal.MaxTypeName || len(e.ContentType) > journal.MaxTypeName {
			return false
		}
		into.Events = append(into.Events, e)
	}
	return true
}
