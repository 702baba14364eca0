// Package apply turns the events of a log into those that a guest applies.
package apply

import (
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// CodeUnknownEvent is the code of an error about an event that the module does not know.
const CodeUnknownEvent = "unknown_event"

// Events turns the events of one entity, in order. Its zero value with Index and Key begins before the first
// event. It is not safe for concurrent use.
type Events struct {
	Index *service.ManifestIndex // of the module that applies the events
	Key   service.Key
	// Version is that of the last event that was turned, or of the snapshot before the first one.
	Version service.Version

	command journal.CommandID // id of the last event's command
	time    journal.UnixNano  // time of that command: an id may be reused once its answer is forgotten
}

// Next turns the event that follows. The result shares the event's slices. KindInternal means that the event
// does not follow, and KindFault that the module does not know its type. After an error, Version is as before.
func (r *Events) Next(e *journal.Event) (service.GuestEvent, error) {
	name := service.Name(e.Log)
	if e.Version != r.Version+1 {
		err := service.Errorf(service.KindInternal, "entity %q: version %d follows version %d in the journal", r.Key,
			e.Version, r.Version)
		err.Service = name
		return service.GuestEvent{}, err
	}
	typ, known := r.Index.Event(e.Type)
	if !known {
		err := service.Errorf(service.KindFault,
			"the service's module does not know events of type %q; a module must know all types it ever emitted, "+
				"if only as an alias", e.Type)
		err.Service, err.Code = name, CodeUnknownEvent
		return service.GuestEvent{}, err
	}
	g := service.GuestEvent{
		Type: typ, Version: e.Version, Time: e.CommandTime, Data: e.Data, Metadata: service.OwnMetadata(e.Metadata),
		Fuel: e.CommandFuel, Again: e.CommandID == r.command && e.CommandTime == r.time,
	}
	r.Version, r.command, r.time = e.Version, e.CommandID, e.CommandTime
	return g, nil
}
