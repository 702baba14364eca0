package guest

import "reflect"

// Upcast reads stored events of an old type as events of a newer one. f turns the data of an old
// event into what the newer type would have said, and the state changes by the newer type's
// Apply. The journal keeps the old event as it is.
//
//	type ReservedV1 struct{ Seat string } // stored under the name "reserved"
//	type ReservationHeld struct{ Seats []string }
//
//	guest.Upcast(Service, "reserved", func(old ReservedV1) ReservationHeld {
//		return ReservationHeld{Seats: []string{old.Seat}}
//	})
//
// The name is that of the stored events, and aliases are names that were still older. Old is a
// struct. It needs no Apply, and it cannot be emitted. New is an event that is registered with
// [Service.Events], or the old type of another upcaster: so an upcaster reads one version as the
// next, and older versions need no change. They may be registered in any order.
//
// f depends on nothing but its argument, as Apply does. If it panics, the entity cannot be
// rebuilt.
//
// Upcast panics if the name or the type Old is registered already, as an event or by another
// upcaster. When the module starts, a New that is neither an event nor another upcaster's old
// type is refused, and so are upcasters that lead round in a circle.
func Upcast[S, Old, New any](s *Service[S], name string, f func(old Old) New, aliases ...string) {
	from, to := reflect.TypeFor[Old](), reflect.TypeFor[New]()
	what := "service " + s.manifest.Service + ": the upcaster of event \"" + name + "\""
	switch {
	case f == nil:
		misuse(what + " has no function")
	case from.Kind() != reflect.Struct:
		misuse(what + " must take a struct, not " + from.String())
	case from == to:
		misuse(what + " gives what it takes, " + from.String())
	}
	s.oneUse(from)
	s.uniqueEvent(name, aliases)
	n := s.addEvent(from, name, aliases)
	u := &upcaster[S]{event: n, to: to}
	old := (*Old)(s.events[n].place)
	s.events[n].applier = applyFunc[S](func(state *S) {
		*(*New)(u.target.place) = f(*old)
		u.target.applier.Apply(state)
	})
	s.upcasters[from] = u
}

// upcaster says as what the events of an old type are read.
type upcaster[S any] struct {
	event  int // index of the old type in events
	to     reflect.Type
	target *eventType[S] // the event of type to; set by seal
}

// applyFunc is a function as an applier.
type applyFunc[S any] func(*S)

func (f applyFunc[S]) Apply(state *S) { f(state) }

// oneUse refuses a type of events that is registered already.
func (s *Service[S]) oneUse(t reflect.Type) {
	switch {
	case s.byType[t] != nil:
		misuse("service " + s.manifest.Service + ": event type " + t.String() + " is registered twice")
	case s.upcasters[t] != nil:
		misuse("service " + s.manifest.Service + ": event type " + t.String() +
			" is registered twice: an upcaster takes it")
	}
}

// uniqueEvent refuses names of an event that are malformed or taken.
func (s *Service[S]) uniqueEvent(name string, aliases []string) {
	s.unique(name, "event")
	for i, a := range aliases {
		s.unique(a, "event")
		for _, b := range append([]string{name}, aliases[:i]...) {
			if a == b {
				misuse("service " + s.manifest.Service + ": event \"" + a + "\" is registered twice")
			}
		}
	}
}

// seal connects each upcaster with what it gives. It is called before the first request, when
// everything is registered, and refuses upcasters that lead to no event.
func (s *Service[S]) seal() {
	byType := make(map[reflect.Type]int, len(s.upcasters))
	for t, u := range s.upcasters {
		byType[t] = u.event
	}
	for t, e := range s.byType {
		byType[t] = int(e.id)
	}
	// In the order of registration, so that the message is the same at each start.
	for i := range s.events {
		u := s.upcasterOf(i)
		if u == nil {
			continue
		}
		at, known := byType[u.to]
		if !known {
			misuse("service " + s.manifest.Service + ": the upcaster of event \"" + s.manifest.Events[i].Name +
				"\" gives " + u.to.String() +
				", which is neither registered with Events nor the old type of another upcaster")
		}
		u.target = &s.events[at]
		s.manifest.Events[i].UpcastTo = s.manifest.Events[at].Name
	}
	for i := range s.events {
		s.endless(i)
		s.events[i].sees = s.final(i).sees
	}
	s.sealStates()
	s.sealed = true
}

// endless refuses upcasters that lead from an event round in a circle.
func (s *Service[S]) endless(event int) {
	path := "\"" + s.manifest.Events[event].Name + "\""
	at := s.upcasterOf(event)
	for range s.events {
		if at == nil {
			return
		}
		next := int(at.target.id)
		path += " to \"" + s.manifest.Events[next].Name + "\""
		at = s.upcasterOf(next)
		if next == event {
			break
		}
	}
	if at != nil {
		misuse("service " + s.manifest.Service + ": upcasters lead round in a circle: " + path)
	}
}

// final returns the event as which an event is applied at the end: itself, or what its upcasters give. The
// way must end.
func (s *Service[S]) final(event int) *eventType[S] {
	e := &s.events[event]
	for u := s.upcasterOf(event); u != nil; u = s.upcasterOf(int(e.id)) {
		e = u.target
	}
	return e
}

// upcasterOf returns the upcaster of an event by its index, or nil if it is not an old type.
func (s *Service[S]) upcasterOf(event int) *upcaster[S] { return s.upcasters[s.events[event].old] }
