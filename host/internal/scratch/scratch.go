// Package scratch brings entities of a service's log to any of their versions, in a sandbox apart from those
// that run the service. It shows what a module makes of the log: the state at a version, the answer to a
// query, the outcome of a command. Nothing of this is written or sent: the package only reads.
package scratch

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/bulkhead-wasm/bulkhead/host/internal/apply"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// Log is the part of [commitlog.Journal] that is read.
type Log interface {
	Entity(ctx context.Context, log journal.LogName, key string, after journal.Version, limit int,
		yield func(*journal.Event) error) error
	Snapshot(ctx context.Context, log journal.LogName, key string) (s journal.Snapshot, ok bool, err error)
	Trimmed(ctx context.Context, log journal.LogName, key string) (t journal.Trimmed, ok bool, err error)
}

var _ Log = (*commitlog.Journal)(nil)

// Guest is the part of a sandbox that is used; see sandbox.Instance.
type Guest interface {
	Hydrate(ctx context.Context, slot uint32, key service.Key, from service.GuestSnapshot,
		events service.GuestEvents) error
	Apply(ctx context.Context, slot uint32, events service.GuestEvents) error
	Handle(ctx context.Context, c service.GuestCall) (service.Outcome, error)
	Query(ctx context.Context, q service.GuestQuery) (service.Outcome, error)
	Snapshot(ctx context.Context, slot uint32) ([]byte, error)
	About(a service.About)
	Reset(ctx context.Context) error
	Broken() bool
	Worn() bool
	Close(ctx context.Context) error
}

// Latest is the version to open for the last durable one.
const Latest = service.Version(math.MaxUint64)

// stepEvents is the maximum number of events that are read at a time. The journal is not held while more than
// these are applied.
const stepEvents = 1024

// CodeHistoryDeleted is the code of an error about a version whose events are deleted.
const CodeHistoryDeleted = "history_deleted"

// Scratch is a sandbox with at most one entity. It is not safe for concurrent use.
//
// Errors are [*Fault] if the module is to blame. Others are *service.Error: of the journal, of the host's
// resources, or because the caller gave up.
type Scratch struct {
	log    Log
	name   service.Name
	index  *service.ManifestIndex
	guest  Guest
	events apply.Events // of the entity that is open
	open   bool
}

// New makes a Scratch of a service's log. index is of the guest's module. Close closes the guest.
func New(log Log, name service.Name, index *service.ManifestIndex, guest Guest) *Scratch {
	return &Scratch{log: log, name: name, index: index, guest: guest}
}

// Close closes the sandbox.
func (s *Scratch) Close(ctx context.Context) error { return s.guest.Close(context.WithoutCancel(ctx)) }

// Index is that of the module.
func (s *Scratch) Index() *service.ManifestIndex { return s.index }

// Version is the version of the entity that is open.
func (s *Scratch) Version() service.Version { return s.events.Version }

// Fault says why a module cannot bring an entity to a version.
type Fault struct {
	Key service.Key
	// The event that could not be applied has a version from First to Last. First is Last if it could be found.
	// Both are 0 if no event is to blame, but the snapshot, or the module opens no entity at all.
	First, Last service.Version
	Snapshot    service.Version  // version of the snapshot that is to blame; 0 if none is
	Event       service.Type     // type of the event in the log; empty if the event could not be found
	Position    journal.Position // of the event; 0 if it could not be found
	Err         error            // of the guest
}

// Error implements error. It is safe to show to clients.
func (f *Fault) Error() string {
	why := f.Err.Error()
	var own *service.Error
	if errors.As(f.Err, &own) {
		why = own.Kind.String() + ": " + own.Message
	}
	switch {
	case f.First == 0 && f.Snapshot > 0:
		return fmt.Sprintf("entity %q: the module does not take its snapshot of version %d: %s", f.Key, f.Snapshot, why)
	case f.First == 0:
		return fmt.Sprintf("entity %q: the module cannot open it: %s", f.Key, why)
	case f.Position == 0:
		return fmt.Sprintf("entity %q: the module cannot apply one of the events of versions %d to %d: %s", f.Key,
			f.First, f.Last, why)
	}
	return fmt.Sprintf("entity %q: the module cannot apply its event of type %q at version %d, position %d: %s", f.Key,
		f.Event, f.First, f.Position, why)
}

// Unwrap returns the guest's error.
func (f *Fault) Unwrap() error { return f.Err }

// IsFault reports whether the module is to blame for an error of this package.
func IsFault(err error) bool {
	var own *service.Error
	if fault := (*Fault)(nil); errors.As(err, &fault) {
		return true
	}
	return errors.As(err, &own) && blames(own.Kind)
}

func errorf(kind service.Kind, format string, args ...any) *service.Error {
	return service.Errorf(kind, format, args...)
}

// blames reports whether a kind of error is the module's own.
func blames(kind service.Kind) bool {
	switch kind {
	case service.KindFault, service.KindTrap, service.KindGuestFuel, service.KindGuestDeadline,
		service.KindGuestMemory, service.KindGuestExit, service.KindGuestStack, service.KindProtocol,
		service.KindOutcomeTooLarge:
		return true
	}
	return false
}

// From is where the state of an entity may come from.
type From int

// The sources of a state.
const (
	FromAny    From = iota // a snapshot that the module takes and the events after it, or the events
	FromEvents             // the events alone, unless some are deleted
)

// Open brings an entity to a version, or to its last durable one: at is [Latest] then. The entity that was
// open before is closed. An entity without events is at version 0, the zero state.
//
// KindNotFound means that the entity has not come to the version. KindFault with [CodeHistoryDeleted] means
// that the events up to it are deleted, and that the module takes no snapshot that stands for them.
func (s *Scratch) Open(ctx context.Context, key service.Key, at service.Version, from From) error {
	sources, gone, err := s.sources(ctx, key, at, from)
	if err != nil {
		return err
	}
	var why error
	for _, source := range sources {
		err := s.bring(ctx, key, source, at)
		var fault *Fault
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &fault):
			return err
		case why == nil || fault.First > 0:
			why = err
		}
	}
	if why != nil {
		return why
	}
	e := errorf(service.KindFault, "the events of entity %q up to version %d are deleted, and the module has no "+
		"snapshot that it takes of a version up to the one that is asked for", key, gone)
	e.Service, e.Code = s.name, CodeHistoryDeleted
	return e
}

// sources returns what the state of a version can be made of, the best first: snapshots, and, as the zero
// value, the events alone. gone is the version up to which events are deleted.
func (s *Scratch) sources(
	ctx context.Context, key service.Key, at service.Version, from From,
) (all []service.GuestSnapshot, gone service.Version, err error) {
	log := journal.LogName(s.name)
	trimmed, lost, err := s.log.Trimmed(ctx, log, string(key))
	if err != nil {
		return nil, 0, s.unread(err)
	}
	if lost {
		gone = trimmed.Gone()
	}
	if from == FromAny || gone > 0 {
		// A snapshot that cannot be read is no reason to fail: there are other sources.
		if latest, ok, err := s.log.Snapshot(ctx, log, string(key)); err == nil && ok {
			all = s.add(all, &latest, gone, at)
		}
		if lost && trimmed.Snapshot != nil {
			all = s.add(all, trimmed.Snapshot, gone, at)
		}
	}
	if gone == 0 {
		all = append(all, service.GuestSnapshot{})
	}
	return all, gone, nil
}

// add adds a snapshot if it can be used.
func (s *Scratch) add(
	all []service.GuestSnapshot, x *journal.Snapshot, gone, at service.Version,
) []service.GuestSnapshot {
	from, takes := s.index.Snapshot(x)
	if !takes || x.Version < gone || x.Version > at || len(all) > 0 && all[0].Version == x.Version {
		return all
	}
	return append(all, from)
}

// bring brings an entity from one source to a version.
func (s *Scratch) bring(ctx context.Context, key service.Key, from service.GuestSnapshot, at service.Version) error {
	err := s.begin(ctx, key, from)
	if err == nil {
		err = s.Advance(ctx, at)
	}
	var fault *Fault
	if !errors.As(err, &fault) || fault.First == fault.Last {
		return err
	}
	// One of these events has ended the sandbox. Applied one by one, they show which.
	if again := s.begin(ctx, key, from); again != nil {
		return err
	}
	for s.events.Version < fault.Last {
		if one := s.advance(ctx, s.events.Version+1); one != nil {
			return one
		}
	}
	return err
}

// begin opens an entity with the state of a snapshot, or with the zero state.
func (s *Scratch) begin(ctx context.Context, key service.Key, from service.GuestSnapshot) error {
	s.open = false
	if s.guest.Broken() || s.guest.Worn() {
		if err := s.guest.Reset(ctx); err != nil {
			return err
		}
	}
	s.events = apply.Events{Index: s.index, Key: key, Version: from.Version}
	s.guest.About(service.About{Key: key})
	// Alone, so that an error says whether the snapshot is to blame.
	err := s.guest.Hydrate(ctx, 0, key, from, func(func(service.GuestEvent) error) error { return nil })
	switch {
	case err == nil:
		s.open = true
		return nil
	case ctx.Err() != nil:
		return s.gaveUp(ctx)
	case blames(service.KindOf(err)):
		return &Fault{Key: key, Snapshot: from.Version, Err: err}
	}
	return err
}

// gaveUp is the error after ctx has ended. Without it a guest that was ended for that reason would seem to be
// to blame.
func (s *Scratch) gaveUp(ctx context.Context) error {
	return &service.Error{Service: s.name, Kind: service.KindOf(ctx.Err()), Message: "the caller gave up",
		Err: context.Cause(ctx)}
}

// Advance applies further events of the entity that is open, up to a version, or up to the last durable one if
// that is [Latest]. Errors are as for Open.
func (s *Scratch) Advance(ctx context.Context, to service.Version) error {
	for s.events.Version < to {
		before := s.events.Version
		if err := s.advance(ctx, to); err != nil {
			return err
		}
		if s.events.Version == before {
			break
		}
	}
	if to != Latest && s.events.Version < to {
		e := errorf(service.KindNotFound, "entity %q is at version %d; it has not come to version %d", s.events.Key,
			s.events.Version, to)
		e.Service = s.name
		return e
	}
	return nil
}

// errEnough ends the reading of events.
var errEnough = errors.New("no more events wanted")

// advance applies the next events, at most stepEvents.
func (s *Scratch) advance(ctx context.Context, to service.Version) error {
	if !s.open {
		return errClosed
	}
	var failed, unread error // of the guest; of the log, or an event that the module does not know
	var last *journal.Event
	err := s.guest.Apply(ctx, 0, func(yield func(service.GuestEvent) error) error {
		err := s.log.Entity(ctx, journal.LogName(s.name), string(s.events.Key), s.events.Version, stepEvents,
			func(e *journal.Event) error {
				if e.Version > to {
					return errEnough
				}
				g, err := s.events.Next(e)
				if err != nil {
					last, unread = e, err
					return err
				}
				failed = yield(g)
				return failed
			})
		switch {
		case failed != nil:
			return failed
		case unread != nil:
			own := *last
			last = &own
			return unread
		case errors.Is(err, errEnough), journal.KindOf(err) == journal.KindVersion && err != nil:
			return nil
		case err != nil:
			unread = s.unread(err)
		}
		return unread
	})
	if err == nil {
		return nil
	}
	s.open = false
	if ctx.Err() != nil {
		return s.gaveUp(ctx)
	}
	fault := &Fault{Key: s.events.Key, Err: err}
	var replay *service.ReplayError
	switch {
	case unread != nil && last != nil && service.KindOf(unread) == service.KindFault:
		fault.First, fault.Last, fault.Err = last.Version, last.Version, unread
		fault.Event, fault.Position = service.Type(last.Type), last.Position
		return fault
	case unread != nil:
		return unread
	case !errors.As(err, &replay) || !blames(service.KindOf(err)):
		return err
	}
	fault.First, fault.Last, fault.Err = replay.First, replay.Last, replay.Err
	if fault.First == fault.Last {
		s.locate(ctx, fault)
	}
	return fault
}

// locate completes a fault with the type and the position of its event.
func (s *Scratch) locate(ctx context.Context, f *Fault) {
	_ = s.log.Entity(ctx, journal.LogName(s.name), string(f.Key), f.First-1, 1, func(e *journal.Event) error {
		if e.Version == f.First {
			f.Event, f.Position = service.Type(e.Type), e.Position
		}
		return nil
	})
}

// unread is an error of the journal.
func (s *Scratch) unread(err error) error {
	return service.FromJournal{Use: service.JournalWrite, Service: s.name,
		Otherwise: "the events of the service cannot be read at present"}.Of(err)
}

// Snapshot encodes the state of the entity that is open.
func (s *Scratch) Snapshot(ctx context.Context) ([]byte, error) {
	if !s.open {
		return nil, errClosed
	}
	state, err := s.guest.Snapshot(ctx, 0)
	return state, s.called(ctx, err)
}

// called is the error of a call of the guest. After it the state of the entity is unknown.
func (s *Scratch) called(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if s.open = false; ctx.Err() != nil {
		return s.gaveUp(ctx)
	}
	return err
}

// Query answers a query about the entity that is open, at a time. typ is its index in the manifest.
func (s *Scratch) Query(ctx context.Context, typ uint16, now journal.UnixNano, data []byte) (service.Trial, error) {
	if !s.open {
		return service.Trial{}, errClosed
	}
	o, err := s.guest.Query(ctx, service.GuestQuery{Type: typ, Version: s.events.Version, Time: now, Data: data})
	if err := s.called(ctx, err); err != nil {
		return service.Trial{}, err
	}
	return o.Trial(), nil
}

// Decide runs a command on the entity that is open. Slot and Version of c are set here. If the command was
// accepted, the state and the version of the entity are those after its events.
func (s *Scratch) Decide(ctx context.Context, c service.GuestCall) (service.Trial, error) {
	if !s.open {
		return service.Trial{}, errClosed
	}
	c.Slot, c.Version = 0, s.events.Version
	o, err := s.guest.Handle(ctx, c)
	if err := s.called(ctx, err); err != nil {
		return service.Trial{}, err
	}
	s.events.Version += service.Version(len(o.Events))
	return o.Trial(), nil
}

var errClosed = errorf(service.KindInternal, "no entity is open in the scratch sandbox")
