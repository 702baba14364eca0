package guest

import (
	"reflect"
	"strconv"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/jsonplan"
)

// UpcastState reads snapshots of an earlier form of the state. f turns the earlier state into the
// newer one. Without it, entities are rebuilt from their events when the form of the state has
// changed; where their first events were deleted, a snapshot is all that is left of these, and a
// build that does not take it is not deployed.
//
//	type AccountV1 struct{ Cents int64 } // as the state was
//
//	guest.UpcastState(Service, func(old AccountV1) Account {
//		return Account{Balance: old.Cents, Currency: "EUR"}
//	})
//
// Old is the earlier type with the same members. New is the service's state, or the Old of another
// UpcastState, so that each one reads a state as the next; they may be registered in any order. An
// old snapshot is read as strictly as one of the present state.
//
// The schemas are those in the manifests of the builds that wrote such snapshots. Without any, it
// is the one that follows from Old, as it does for a state without [Service.StateSchema].
//
// f depends on nothing but its argument. The state that it returns should be the one that the
// entity's events would give.
//
// UpcastState panics if the type Old or one of the schemas is registered already. When the module
// starts, a New that is neither the state nor another upcaster's old state is refused, and so are
// a schema that is also the state's own, and upcasters that lead round in a circle.
func UpcastState[S, Old, New any](s *Service[S], f func(old Old) New, schemas ...uint32) {
	from, to := reflect.TypeFor[Old](), reflect.TypeFor[New]()
	what := "service " + s.manifest.Service + ": the upcaster of state " + from.String()
	switch {
	case f == nil:
		misuse(what + " has no function")
	case from == reflect.TypeFor[S]():
		misuse(what + " takes the present state; give the earlier one a type of its own")
	case from == to:
		misuse(what + " gives what it takes")
	}
	s.whole(from, "state "+from.String())
	old := new(Old)
	u := &earlierState[S]{plan: s.plan(from, "state "+from.String()), from: from, to: to, place: unsafe.Pointer(old)}
	for i := range s.earlier {
		if s.earlier[i].from == from {
			misuse(what + " is registered twice")
		}
	}
	u.clear = func() {
		var zero Old
		*old = zero
	}
	u.turn = func(state *S) {
		if u.next == nil {
			*state = any(f(*old)).(S)
			return
		}
		*(*New)(u.next.place) = f(*old)
		u.next.turn(state)
	}
	if len(schemas) == 0 {
		schemas = []uint32{u.plan.Fingerprint()}
	}
	s.earlier = append(s.earlier, u)
	for _, schema := range schemas {
		if s.earlierBy(schema) != nil {
			misuse(what + ": state schema " + strconv.FormatUint(uint64(schema), 10) + " is registered twice")
		}
		s.schemas = append(s.schemas, u)
		s.manifest.EarlierSchemas = append(s.manifest.EarlierSchemas, schema)
	}
	if len(s.manifest.Features) == 0 {
		s.manifest.Features = []string{abi.FeatureEarlierSchemas}
	}
	s.sealed = false
}

// earlierState reads an earlier form of the state.
type earlierState[S any] struct {
	plan     *jsonplan.Plan
	from, to reflect.Type
	next     *earlierState[S] // whose old state this one gives; nil: the state itself; set by seal
	place    unsafe.Pointer   // holds one old state at a time
	clear    func()           // makes what is at place the zero value
	turn     func(state *S)   // makes a state of what is at place
}

// earlierBy returns what reads snapshots of a schema, or nil.
func (s *Service[S]) earlierBy(schema uint32) *earlierState[S] {
	for i, known := range s.manifest.EarlierSchemas {
		if known == schema {
			return s.schemas[i]
		}
	}
	return nil
}

// restore decodes a snapshot of an earlier schema, given by its index, into a state.
func (s *Service[S]) restore(schema uint16, snapshot []byte, state *S) error {
	u := s.schemas[schema]
	u.clear() // the last one may have panicked
	if err := u.plan.DecodeWhole(snapshot, u.place); err != nil {
		return err
	}
	u.turn(state)
	for ; u != nil; u = u.next {
		u.clear() // memory that it refers to belongs to the state now
	}
	return nil
}

// sealStates connects the upcasters of states with what they give, and refuses those that do not
// lead to the state.
func (s *Service[S]) sealStates() {
	what := "service " + s.manifest.Service + ": "
	if u := s.earlierBy(s.manifest.StateSchema); u != nil {
		misuse(what + "the upcaster of state " + u.from.String() + " takes state schema " +
			strconv.FormatUint(uint64(s.manifest.StateSchema), 10) +
			", which is that of the present state; set another one with StateSchema")
	}
	for _, u := range s.earlier {
		u.next = nil
		for _, other := range s.earlier {
			if other.from == u.to {
				u.next = other
			}
		}
		if u.next == nil && u.to != reflect.TypeFor[S]() {
			misuse(what + "the upcaster of state " + u.from.String() + " gives " + u.to.String() +
				", which is neither the state nor the old state of another upcaster")
		}
	}
	for _, first := range s.earlier {
		path, at := first.from.String(), first
		for range s.earlier {
			if at = at.next; at == nil {
				break
			}
			path += " to " + at.from.String()
		}
		if at != nil {
			misuse(what + "upcasters of states lead round in a circle: " + path)
		}
	}
}
