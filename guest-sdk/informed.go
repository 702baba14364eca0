package guest

import (
	"bytes"
	"reflect"
	"time"
)

// EventInfo is what the log has of an event besides its type and data. An [InformedEvent] gets it.
type EventInfo struct {
	// Key is the entity's key.
	Key string
	// Version is the entity's version after the event: 1 for its first event.
	Version uint64
	// Time is the time of the command that caused the event, in UTC: what [View.Now] gave its handler.
	Time time.Time
	// Metadata are those that were given to [Tx.EmitWith]; nil if there were none. Metadata of the
	// command are not among them: how many of them the host keeps with an event is its decision, so they
	// are known to readers of events only. What Apply needs of them, EmitWith must be given.
	Metadata Metadata
}

// InformedEvent is an event whose effect depends on more than its data. ApplyWith is called in place of
// Apply, for new and for stored events alike, and with the same info: so the data need not repeat when an
// event happened, to which entity, or as which one. ApplyWith must depend on nothing but the event, the state
// and the info.
//
// Embed [Informed] to get the method Apply:
//
//	type Deposited struct {
//		guest.Informed[Account]
//		Amount int64
//	}
//
//	func (e Deposited) ApplyWith(a *Account, info guest.EventInfo) {
//		a.Balance += e.Amount
//		a.Changed = info.Time
//	}
//
// A stored event that [Upcast] reads as an InformedEvent has its own info, that of the stored event.
type InformedEvent[S any] interface {
	Event[S]
	ApplyWith(state *S, info EventInfo)
}

// Informed is for events with a method ApplyWith; see [InformedEvent]. It holds nothing, and is not part of
// the event's data. [Service.Events] panics if the type that embeds it does not have ApplyWith.
type Informed[S any] struct{}

// Apply makes the type that embeds Informed an [Event]. It is never called.
func (Informed[S]) Apply(*S) { panic("guest: an informed event was applied without its info") }

// wantsInfo marks the types that embed Informed.
func (Informed[S]) wantsInfo() {}

// informedOf returns an event as an informed one, or nil if its type is not. It refuses a type that embeds
// Informed and cannot be given the info.
func (s *Service[S]) informedOf(e Event[S], t reflect.Type) InformedEvent[S] {
	informed, ok := e.(InformedEvent[S])
	if _, wants := e.(interface{ wantsInfo() }); wants && !ok {
		misuse("service " + s.manifest.Service + ": event type " + t.String() +
			" embeds guest.Informed and has no method ApplyWith(*" + reflect.TypeFor[S]().String() +
			", guest.EventInfo)")
	}
	return informed
}

// inform sets the info of the event that is applied next. The metadata may be views.
func (s *Service[S]) inform(e *slot[S], version, at uint64, metadata Metadata) {
	s.info = EventInfo{Key: e.key, Version: version, Time: instant(at)}
	if len(metadata) > 0 {
		s.info.Metadata = bytes.Clone(metadata) // the state may keep it
	}
}

// instant is a time of the ABI.
func instant(nanoseconds uint64) time.Time { return time.Unix(0, int64(nanoseconds)).UTC() }
