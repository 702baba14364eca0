package abi

// Stored says how a module reads what earlier builds of its service have stored: events, by the name under
// which they were stored, and snapshots, by their state schema. Hosts and test kits ask it the same. It does
// not change, and may be used by several goroutines.
type Stored struct {
	events  map[string]uint16 // by all names
	schema  uint32
	earlier map[uint32]uint16
}

// UnknownEvent is what an author can do about stored events of a type that a module does not know.
const UnknownEvent = "keep the type, name it as an alias of another one, or upcast it to another one"

// NewStored is what a module with the manifest m reads.
func NewStored(m *Manifest) *Stored {
	s := &Stored{events: make(map[string]uint16, len(m.Events)), schema: m.StateSchema,
		earlier: make(map[uint32]uint16, len(m.EarlierSchemas))}
	for i, e := range m.Events {
		for _, a := range e.Aliases {
			s.events[a] = uint16(i)
		}
		s.events[e.Name] = uint16(i)
	}
	for i, schema := range m.EarlierSchemas {
		s.earlier[schema] = uint16(i)
	}
	return s
}

// Event is the type of the events that were stored under a name: that of the event with this name or alias. An
// event that the module upcasts has a type of its own.
func (s *Stored) Event(name string) (typ uint16, ok bool) {
	typ, ok = s.events[name]
	return typ, ok
}

// Snapshot reports whether the module takes snapshots of a state schema. If the schema is an earlier one, the
// type of the Open is its index.
func (s *Stored) Snapshot(schema uint32) (index uint16, earlier, ok bool) {
	index, earlier = s.earlier[schema]
	return index, earlier, earlier || schema == s.schema
}
