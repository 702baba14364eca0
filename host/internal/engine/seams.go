package engine

import (
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Guest is a sandbox. One goroutine at a time uses it, except where said
// otherwise. It bounds the time of each call itself; its contexts live as
// long as the engine.
//
// KindFault from a call means that the entity is dirty: it is dropped, the guest
// is fine. After any other error the guest is broken until Reset.
type Guest interface {
	// Hydrate makes an entity resident under a slot: a snapshot (nil is none) at
	// the given version, then events after it, which the function events yields.
	// It has copied an event when the yield returns. An error of yield is the guest's,
	// ends the events and is returned, by events and by Hydrate. Another error of events
	// is returned, too; the guest is fine then. The guest's error is a
	// [*service.ReplayError] if an event is to blame. No time ends it, only ctx.
	Hydrate(ctx context.Context, slot uint32, key service.Key, version service.Version, snapshot []byte, events service.GuestEvents) error
	// Apply replays further events of an entity that Hydrate has made resident; in all else
	// it is as Hydrate.
	Apply(ctx context.Context, slot uint32, events service.GuestEvents) error
	// Handle decides a command. A rejection is an outcome, not an error. The
	// outcome's slices belong to the caller.
	Handle(ctx context.Context, c service.GuestCall) (service.Outcome, error)
	// Query reads state.
	Query(ctx context.Context, q service.GuestQuery) (service.Outcome, error)
	// Work does something of the host's for the service, charged and in turns as its
	// calls are, without entering the guest: it may be called when the guest is broken. do calls
	// rest from time to time and stops with its error, as it does when ctx ends. It returns how long it
	// took until it first called rest; from there on it is measured.
	Work(ctx context.Context, do func(rest func() error) (took time.Duration, err error)) error
	// Snapshot encodes an entity's state, which changes nothing. The slice belongs to
	// the caller.
	Snapshot(ctx context.Context, slot uint32) ([]byte, error)
	// About says what the guest works on in the calls that follow, until it is reset.
	About(a service.About)
	// Drop makes the guest forget entities; a slot that is not open is no error.
	Drop(ctx context.Context, slots ...uint32) error
	// Reset makes the guest as new, without entities.
	Reset(ctx context.Context) error
	// MemoryBytes is the size of the guest's memory.
	MemoryBytes() int64
	// Worn reports whether the guest has grown so far that it should be reset before
	// its next call. Nothing is wrong with it.
	Worn() bool
	// Fuel is what all calls since the guest was made have spent, also those that
	// failed.
	Fuel() uint64
	// Close gives everything back.
	Close(ctx context.Context) error
}

// Log is the journal as far as an engine knows it; see the methods of
// [journal.Journal], which has the whole contract. The engine relies on these
// parts of it:
//
//   - Append calls done exactly once if it returned nil, and never if it did not;
//     done is called in log order, on one goroutine. Once a done has been given an
//     error, every later one of the log is, too.
//   - Settle's and Answer's done may be called before they return.
//   - Load sees every commit that was accepted before it, durable or not.
//   - A snapshot is written when the state it shows is on disk, never before;
//     Snapshot may give it back at once, as Load does the events.
//   - Accepts says whether an Append has a chance now, and LogBytes how much the log has
//     on disk or on its way there; both are cheap.
type Log interface {
	Accepts(log journal.LogName) error
	LogBytes(log journal.LogName) (bytes int64, known bool)
	Append(ctx context.Context, c *journal.Commit, done func(journal.Receipt, error)) error
	Settle(log journal.LogName, key string, done func(journal.Receipt, error))
	Answer(ctx context.Context, log journal.LogName, id journal.CommandID, done func(*journal.Committed, journal.Receipt, error)) (found bool, err error)
	Load(ctx context.Context, log journal.LogName, key string, after journal.Version, yield func(*journal.Event) error) (journal.Version, error)
	PutSnapshot(ctx context.Context, log journal.LogName, key string, s journal.Snapshot) (kept bool)
	Snapshot(ctx context.Context, log journal.LogName, key string) (s journal.Snapshot, ok bool, err error)
	Trimmed(ctx context.Context, log journal.LogName, key string) (t journal.Trimmed, ok bool, err error)
}

var _ Log = (*journal.Journal)(nil)

// Publisher tells subscribers about commits. Publish is called in log order, on
// one goroutine at a time, after a commit is on disk and before its reply is
// released. It must not block, must not change c, and may keep its slices.
type Publisher interface {
	Publish(r journal.Receipt, c *journal.Commit)
}
