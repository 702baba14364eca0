package service

import (
	"fmt"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// GuestCall is one command for a sandbox. Numbers stand for names: Type is an index into the manifest's
// commands, and Slot the host's number of the entity. The sandbox reads the slices only during the call.
type GuestCall struct {
	Slot     uint32
	Type     uint16
	Version  Version          // of the entity before the command
	Time     journal.UnixNano // the only clock the guest sees
	Seed     [abi.SeedSize]byte
	ID       CommandID
	Metadata abi.Metadata
	Data     []byte
	Deadline time.Time       // end of the call; zero: only the limits apply
	Gone     <-chan struct{} // closed when no one waits for the call; nil: never
}

// About is what a guest works on, for the readers of its log. All members may be zero.
type About struct {
	Key     Key
	Command CommandID
	Trace   TraceID
}

// GuestQuery is one query for a sandbox. Type is an index into the manifest's queries.
type GuestQuery struct {
	Slot     uint32
	Type     uint16
	Version  Version // of the entity
	Time     journal.UnixNano
	Data     []byte
	Deadline time.Time       // as in a GuestCall
	Gone     <-chan struct{} // as in a GuestCall
}

// GuestSnapshot is the state of an entity from which its hydration starts. The zero value means none.
type GuestSnapshot struct {
	Version Version // of the entity
	State   []byte  // nil: no snapshot; empty: a snapshot of no bytes
	Earlier bool    // it is of an earlier state schema
	Schema  uint16  // index of that schema in the manifest's earlier schemas
}

// GuestEvent is one event to be replayed in a sandbox. Type is an index into the manifest's events; see
// [ManifestIndex.Event]. The sandbox copies the slices before it takes the next event.
type GuestEvent struct {
	Type     uint16
	Version  Version // of the entity after the event
	Time     journal.UnixNano
	Data     []byte
	Metadata []byte // encoded pairs
	Fuel     uint64 // that its command spent
	Again    bool   // the event before it is of the same command, and Fuel is for both
}

// ReplayError is a guest's failure to apply an event of an entity, with a version from First to Last. A Fault
// identifies the event. After a trap it is one of those in the request.
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

// Unwrap returns the guest's error.
func (e *ReplayError) Unwrap() error { return e.Err }

// GuestEvents yields events in order. If yield returns an error, GuestEvents ends and returns that error.
type GuestEvents func(yield func(GuestEvent) error) error
