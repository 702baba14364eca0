package service

import (
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
}

// GuestEvents yields events in order. An error of yield ends it, and is what it returns.
type GuestEvents func(yield func(GuestEvent) error) error
