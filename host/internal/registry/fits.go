package registry

import (
	"context"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A check says why a module cannot go on with the log of a service, or nil. Its error has kind
// KindConflicting if that is so.
type check func(ctx context.Context, next *build) error

// before are the checks of a deployment before anything of the service is touched: what was
// there goes on if one fails. They may take their time.
func (s *Registry) before() []check { return []check{s.knowsTypes, s.takesStates} }

// drained are the checks when the old module has stopped and the new one has not begun, for
// what the old one has written meanwhile. Requests wait for them.
func (s *Registry) drained() []check { return []check{s.knowsTypes, s.stillTakesStates} }

// recorded are the checks of a module that was recorded and is about to start: the log may have
// come from elsewhere meanwhile, or have lost events by force. Where nothing has, they read a few
// entries of the index.
func (s *Registry) recorded() []check { return []check{s.knowsTypes, s.takesStatesStill} }

// fits makes checks, up to the first that fails.
func fits(ctx context.Context, checks []check, next *build) error {
	for _, c := range checks {
		if err := c(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

// maxTypes bounds the types that one error lists.
const maxTypes = 32

// knowsTypes holds a module to the event catalogue: an entity that has an event of a type
// that the module does not know, by name or alias, cannot be hydrated. What ran before, or declared
// what, makes no difference.
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
			reasons = append(reasons, fmt.Sprintf("%s of type %q, the first at position %d: keep the type, or name "+
				"it as an alias of another one",
				events(t.Count), t.Type, t.First))
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
