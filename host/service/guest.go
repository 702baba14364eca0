package service

import (
	"fmt"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// GuestCall is one command as it goes into a sandbox. Names have become
// numbers: Type is an index into the manifest's commands, Slot the host's
// number of the entity. The sandbox reads the slices during the call only and
// keeps none of them.
type GuestCall struct {
	Slot     uint32
	Type     uint16
	Version  Version          // of the entity before the command
	Time     journal.UnixNano // the only clock the guest sees
	Seed     [abi.SeedSize]byte
	ID       CommandID
	Metadata abi.Metadata
	Data     []byte
	Deadline time.Time       // when the call is ended at the latest; zero is none but the limits
	Gone     <-chan struct{} // closed when nobody waits for the call any more; nil is never
}

// About is what a guest works on, for those who read what it logs. All members may be zero.
type About struct {
	Key     Key
	Command CommandID
	Trace   TraceID
}

// GuestQuery is one query as it goes into a sandbox. Type is an index into the
// manifest's queries.
type GuestQuery struct {
	Slot     uint32
	Type     uint16
	Version  Version // of the entity
	Time     journal.UnixNano
	Data     []byte
	Deadline time.Time       // as for a GuestCall
	Gone     <-chan struct{} // as for a GuestCall
}

// GuestEvent is one event as it is replayed into a sandbox. Type is an index
// into the manifest's events; see [ManifestIndex.Event]. The sandbox copies the
// slices before it takes the next event.
type GuestEvent struct {
	Type     uint16
	Version  Version // of the entity after the event
	Time     journal.UnixNano
	Data     []byte
	Metadata []byte // encoded pairs
	Fuel     uint64 // that its command took
	Again    bool   // the event before it is of the same command, whose fuel is one for both
}

// ReplayError is a guest's failure over one of an entity's events: of a version from First
// to Last. A Fault names the event. After a trap nobody knows which one of a request it was.
type ReplayError struct {
	First, Last Version
	Err         error
}

// Error implements error.
func (e *ReplayError) Error() string {
	if e.First == e.Last {
		return fmt.Sprintf("the event of version %d: %v", e.First, e.Err)
	}
	return fmt.Sprintf("one of the events of versions %d to %d: %v", e.First, e.Last, e.Err)
}

// Unwrap returns what the guest failed with.
func (e *ReplayError) Unwrap() error { return e.Err }

// GuestEvents yields events in order. An error of yield ends it, and is what it returns.
type GuestEvents func(yield func(GuestEvent) error) error
