package registry

import (
	"context"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A check returns nil if a module can continue the log of a service. If it cannot, the error has kind
// KindConflicting.
type check func(ctx context.Context, next *build) error

// before returns the checks of a deployment before anything of the service is changed. If one fails, the old
// module goes on. These checks may take their time.
func (s *Registry) before() []check { return []check{s.knowsTypes, s.takesStates} }

// drained returns the checks after the old module has stopped and before the new one starts, for what the old
// one has written meanwhile. Requests wait for these checks.
func (s *Registry) drained() []check { return []check{s.knowsTypes, s.stillTakesStates} }

// recorded returns the checks of a recorded module before it starts. The log may have been restored from
// elsewhere meanwhile, or have lost events to a forced retention. If neither has happened, they read a few
// entries of the index.
func (s *Registry) recorded() []check { return []check{s.knowsTypes, s.takesStatesStill} }

// fits runs checks until one fails.
func fits(ctx context.Context, checks []check, next *build) error {
	for _, c := range checks {
		if err := c(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

// maxTypes is the maximum number of types that one error lists.
const maxTypes = 32

// knowsTypes checks a module against the event catalogue. An entity with an event of a type that the module
// does not know, by name, alias or upcaster, cannot be hydrated. Earlier modules and their declarations do not matter.
func (s *Registry) knowsTypes(ctx context.Context, next *build) error {
	name := next.spec.Service
	types, err := s.opt.Journal.EventTypes(ctx, journal.LogName(name))
	if err != nil {
		return service.FromJournal{Use: service.JournalRead, Op: next.op, Service: name,
			Otherwise: "the event types in the service's log cannot be read at present; nothing has changed"}.Of(err)
	}
	index := service.NewManifestIndex(&next.module.Manifest)
	var reasons []string
	unknown := 0
	for _, t := range types {
		if _, known := index.Event(t.Type); known {
			continue
		}
		if unknown++; unknown <= maxTypes {
			reasons = append(reasons, fmt.Sprintf("%s of type %q, the first at position %d: %s", events(t.Count),
				t.Type, t.First, abi.UnknownEvent))
		}
	}
	if unknown == 0 {
		return nil
	}
	if more := unknown - len(reasons); more > 0 {
		reasons = append(reasons, fmt.Sprintf("and %d more types", more))
	}
	return &service.Error{Op: next.op, Service: name, Kind: service.KindConflicting, Reasons: reasons,
		Message: "the service's log has events that the module does not know"}
}

func events(n uint64) string {
	if n == 1 {
		return "1 event"
	}
	return fmt.Sprint(n, " events")
}
