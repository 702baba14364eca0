// Package gateway is the way into a host over HTTP and WebSocket. It turns
// requests into calls of the host and answers into the JSON of package api, keeps
// outsiders within their bounds, and knows nothing of how services run.
//
// Nobody is trusted: each read and write has a deadline, each body, queue and
// number of connections a bound, and what a client gets to see of an error is
// only what was made for clients. STREAM.md describes the WebSocket protocol for
// those who write clients.
package gateway

import (
	"context"
	"io"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
)

// Backend is what the gateway needs of a host. Errors are *service.Error where
// the client can do something about them. All methods are safe for concurrent
// use; those without a context do not block.
type Backend interface {
	// Upload verifies and stores a module. progress may be nil; it is called from
	// any goroutine until Upload returns, and must not block.
	Upload(ctx context.Context, module []byte, progress func(service.Progress)) (service.Module, error)
	// Modules are the stored modules, and DeleteModule removes one that nothing refers to.
	Modules() (service.Modules, error)
	DeleteModule(d service.Digest) error
	// Deploy returns when the service runs. Progress may be called from any
	// goroutine until then, and must not block.
	Deploy(ctx context.Context, d service.Deployment) (service.Status, error)
	// Delete stops a service.
	Delete(ctx context.Context, name service.Name) error
	// Status is what a service does now; KindNotFound if there is none.
	Status(name service.Name) (service.Status, error)
	// Services is the status of all services, by name.
	Services() []service.Status

	// Send returns when the command's events are on disk.
	Send(ctx context.Context, c service.Command) (service.Reply, error)
	// SendAsync hands a command in. Unless it returns an error, done is called
	// exactly once with the outcome, on a goroutine of the host; done does not block.
	SendAsync(c service.Command, done func(service.Reply, error)) error
	// Query returns when what the answer rests on is on disk.
	Query(ctx context.Context, q service.Query) (service.QueryReply, error)

	// Head is the position of a service's last event; KindNotFound if there is no
	// such service.
	Head(name service.Name) (service.Position, error)
	// Place is the cursor behind which to read to begin where a reader wants to.
	Place(ctx context.Context, name service.Name, from service.From) (service.Cursor, error)
	// Events reads events after a position, at most limit. next is where to read
	// on from; atHead says that there is nothing more now. There may be none
	// although there are more, when the selection lets little through.
	Events(ctx context.Context, s Selection, limit int) (events []Event, next service.Position, atHead bool, err error)
	// EntityEvents reads one entity's events after a version, at most limit, and fewer if
	// they are large. more says that there are more.
	EntityEvents(ctx context.Context, name service.Name, key service.Key, after service.Version, limit int, form service.EventForm) (events []Event, more bool, err error)
	// EntityFirst is the version of the first of its events that a retention has left.
	EntityFirst(ctx context.Context, name service.Name, key service.Key) (service.Version, error)
	// Subscribe opens a cursor behind s.After; KindBadCursor if the log has not come
	// that far. It holds nothing, so there is nothing to close.
	Subscribe(ctx context.Context, s Selection) (Subscriber, error)
	// EntityVersion is an entity's version after the event at a position.
	EntityVersion(ctx context.Context, name service.Name, key service.Key, at service.Position) (service.Version, error)
	// KeptVersion is the version of the event of an entity that a cursor is of, if a retention has kept that event apart.
	KeptVersion(ctx context.Context, name service.Name, key service.Key, cursor string) (v service.Version, ok bool, err error)
	// Cursor is that of a position, which may have to be read from the log. Place takes its text.
	Cursor(ctx context.Context, name service.Name, p service.Position) (service.Cursor, error)

	// Backup writes a backup of everything. An error of kind KindConflicting, of a backup that
	// this one cannot continue, comes before anything is written.
	Backup(ctx context.Context, w io.Writer, o service.BackupOptions) (*backup.Manifest, error)

	// Stats is what the journal counted, Logs all logs, by name, and Measure counts
	// what is in one, which may take a while.
	Stats() journal.Stats
	Logs() []journal.LogInfo
	Measure(ctx context.Context, log journal.LogName) (journal.LogSize, error)

	// EventTypes is the event catalogue of a service: the types of the events that can be read,
	// by name.
	EventTypes(ctx context.Context, name service.Name) ([]journal.EventType, error)

	// Readers is what those do who read logs.
	Readers() service.Readers
	// Turn makes a place for work of milliseconds that is done for a client of a service,
	// or, without a name, for a client.
	Turn(ctx context.Context, name service.Name) host.Turn

	// Batches writes a service's log, up to the batch with that sequence (0: to its
	// end), as a piece that can be imported.
	Batches(ctx context.Context, name service.Name, w io.Writer, through uint64) (*backup.Manifest, error)
	// Retain deletes the first events of a service. Those of KindConflicting are
	// refused before anything is deleted.
	Retain(ctx context.Context, name service.Name, r service.Retention) (journal.Retained, error)

	// Ready returns nil if the host takes commands.
	Ready() error
	// States is the state of each service.
	States() map[service.Name]service.State
	// Budget bounds what the host holds, and Account is where it is counted.
	Budget() service.Budget
	Account() *budget.Account
	// Resources is how much of each of the host's resources is in use, and by whom.
	Resources() []service.ResourceUsage
}

// Selection is the part of a service's events that somebody reads.
type Selection struct {
	Service service.Name
	After   service.Position
	Types   []service.Type    // empty: all
	Keys    []service.Key     // empty: all
	Form    service.EventForm // in which they leave
}

// Event is an event on its way out. Its bytes are shared by all who get it and
// must not be changed.
type Event struct {
	Cursor  service.Cursor // its place
	Version service.Version
	Text    api.Pieces // the event in the form that was asked for, in one line
	Size    int        // what it takes in memory, in bytes
	Shared  Shared     // the part of Size that all who have the event share; nil: none
}

// Shared is memory that is counted once, however many hold it. It is safe for concurrent use.
type Shared interface {
	// Bytes is how much it is.
	Bytes() int
	// Take takes a part in it, unless there is no room to count it. Whoever has one gives it
	// back with Give, once.
	Take() bool
	Give()
}

// Subscriber is a cursor over a service's events, for one goroutine.
type Subscriber interface {
	// Next waits for events and returns at least one and at most limit of them.
	// If ctx ends first it fails with ctx's error and has lost none.
	Next(ctx context.Context, limit int) ([]Event, error)
	// Position is how far it has come, also past events that are not selected: one that
	// begins there misses nothing.
	Position() service.Position
}
