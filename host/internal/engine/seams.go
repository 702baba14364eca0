package engine

import (
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// Guest is a sandbox. One goroutine at a time uses it. It bounds the time of each call itself; the
// contexts of its calls live as long as the engine.
//
// An error of KindFault means that the state of the called entity is unknown: the entity is
// dropped, and the guest is fine. After any other error the guest is broken until Reset.
type Guest interface {
	// Hydrate makes an entity resident in a slot: from a snapshot, if there is one, and then
	// from the later events, which the function events yields. An event has
	// been copied when yield returns. An error of yield is the guest's; it ends the events,
	// and both events and Hydrate return it. Hydrate also returns any other error of events;
	// the guest is fine then. If an event is to blame, the guest's error is a
	// [*service.ReplayError]. Only ctx ends Hydrate; it has no time limit.
	Hydrate(ctx context.Context, slot uint32, key service.Key, from service.GuestSnapshot,
		events service.GuestEvents) error
	// Apply replays further events of an entity after Hydrate. In all else it is like Hydrate.
	Apply(ctx context.Context, slot uint32, events service.GuestEvents) error
	// Handle decides a command. A rejection is an outcome, not an error. The caller owns the
	// outcome's slices.
	Handle(ctx context.Context, c service.GuestCall) (service.Outcome, error)
	// Query answers a query from the entity's state and does not change it.
	Query(ctx context.Context, q service.GuestQuery) (service.Outcome, error)
	// Work runs do for the host, on behalf of the service: charged and in turns like a call, but
	// without entering the guest. It may be called when the guest is broken. do calls rest from
	// time to time and stops with its error; rest fails when ctx ends. do returns how long it
	// took until it first called rest; the time after that is measured by Work.
	Work(ctx context.Context, do func(rest func() error) (took time.Duration, err error)) error
	// Snapshot encodes an entity's state, which it does not change. The caller owns the slice.
	Snapshot(ctx context.Context, slot uint32) ([]byte, error)
	// About names what the guest works on in the following calls, until the next About or Reset.
	About(a service.About)
	// Drop makes the guest forget entities. A slot that is not open is no error.
	Drop(ctx context.Context, slots ...uint32) error
	// Reset returns the guest to its initial state, without entities.
	Reset(ctx context.Context) error
	// MemoryBytes is the size of the guest's memory.
	MemoryBytes() int64
	// Worn reports whether the guest has grown so much that it should be reset before its next
	// call. Nothing is wrong with it.
	Worn() bool
	// Fuel is the fuel that all calls since the guest was made have used, failed ones included.
	Fuel() uint64
	// Close releases everything. The guest must not be used afterwards.
	Close(ctx context.Context) error
}

// Log is the part of the journal that an engine uses; the methods of [commitlog.Journal] have the
// whole contract. The engine relies on these parts of it:
//
//   - Append calls done exactly once if it returned nil, and never if it did not;
//     done is called in log order, on one goroutine. Once a done got an error,
//     every later done of the log gets one, too.
//   - Settle and Answer may call done before they return.
//   - Load sees every commit that was accepted before it, durable or not.
//   - A snapshot is written after the state that it shows is on disk, never before.
//     Snapshot may return it at once, as Load does the events.
//   - Accepts says whether an Append can succeed now. LogBytes is the size of the log, on disk
//     or on its way there. Both are cheap.
type Log interface {
	Accepts(log journal.LogName) error
	LogBytes(log journal.LogName) (bytes int64, known bool)
	Append(ctx context.Context, c *journal.Commit, done func(journal.Receipt, error)) error
	Settle(log journal.LogName, key string, done func(journal.Receipt, error))
	Answer(ctx context.Context, log journal.LogName, id journal.CommandID, done func(*journal.Committed,
		journal.Receipt, error)) (found bool, err error)
	Load(ctx context.Context, log journal.LogName, key string, after journal.Version,
		yield func(*journal.Event) error) (journal.Version, error)
	PutSnapshot(ctx context.Context, log journal.LogName, key string, s journal.Snapshot) (kept bool)
	Snapshot(ctx context.Context, log journal.LogName, key string) (s journal.Snapshot, ok bool, err error)
	Trimmed(ctx context.Context, log journal.LogName, key string) (t journal.Trimmed, ok bool, err error)
}

var _ Log = (*commitlog.Journal)(nil)

// Publisher tells subscribers about commits. Publish is called in log order, one call at a time,
// after a commit is on disk and before its reply is released. It must not block and must not
// change c; it may keep c's slices.
type Publisher interface {
	Publish(r journal.Receipt, c *journal.Commit)
}
