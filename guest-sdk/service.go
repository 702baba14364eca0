package guest

import (
	"reflect"
	"strconv"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/jsonplan"
)

// sdkName goes into manifests.
const sdkName = "bulkhead-go/1"

// Event is something that happened to an entity with state S. Apply changes the
// state accordingly, and must depend on nothing else. Events are struct types.
type Event[S any] interface{ Apply(*S) }

// Service is a service under construction, and, once its module has started, the
// service. Registering is for package initialisation; a mistake in it panics, which
// the host reports when the module is uploaded.
type Service[S any] struct {
	manifest abi.Manifest
	plans    jsonplan.Maker
	state    *jsonplan.Plan
	commands []handler[S]
	queries  []handler[S]
	events   []eventType[S]
	byType   map[reflect.Type]*eventType[S]

	// The rest belongs to the call that runs; see run.go.
	slots      []*slot[S]
	free       []*slot[S]
	out        []byte // response frames
	scratch    []byte
	tx         Tx[S]
	goroutines int
}

// eventType is a registered event.
type eventType[S any] struct {
	id    uint16
	plan  *jsonplan.Plan
	typ   reflect.Type
	exact jsonplan.Exactness

	// place holds one event at a time: decoding and encoding use it again and again, as an
	// allocation for each event would cost more than most events do.
	place   unsafe.Pointer
	value   reflect.Value // the event at place
	applier Event[S]      // a pointer to it; Apply gets a copy
}

// handler is a registered command or query.
type handler[S any] struct {
	run func(tx *Tx[S], body []byte) error // appends the reply's body to out
}

// New starts the definition of a service whose entities have the state S; its zero
// value is the state of an entity without events. The name is the one the service
// is deployed under.
//
// S is encoded for snapshots, so its fields are exported; one that is not is a
// mistake, as the entity would lose it on the way. The same goes for events.
func New[S any](name string) *Service[S] {
	s := &Service[S]{byType: map[reflect.Type]*eventType[S]{}}
	s.manifest = abi.Manifest{ABI: abi.Version, Service: name, SDK: sdkName}
	s.state = s.plan(reflect.TypeFor[S](), "the state")
	s.whole(reflect.TypeFor[S](), "the state")
	s.manifest.StateSchema = s.state.Fingerprint()
	s.tx.service = s
	register(s)
	return s
}

// Version sets the author's version of the service, free text.
func (s *Service[S]) Version(v string) *Service[S] {
	s.manifest.Version = v
	return s
}

// StateSchema sets the version of the state's form. If it is not set, it follows from S:
// from the names of the members in JSON, their kinds, how they nest and which of them may
// be left out, and is another one when one of these changes. Snapshots of another version
// are not used: entities are rebuilt from their events.
//
// Set it in two cases. When an Apply does something else now, old snapshots no longer are
// what replaying the events gives: set a number that was not there before. When S has
// changed and old snapshots are good all the same, as with a new member that has the option
// omitempty, set the number that the manifest of the old build has; snapshots with a member
// that S does not have, or without one that it always writes, are refused even so. Where
// the first events of entities were deleted, their snapshots are all there is of these.
func (s *Service[S]) StateSchema(version uint32) *Service[S] {
	s.manifest.StateSchema = version
	return s
}

// Events registers the service's events by their zero values. An event's name is
// that of its type; [Named] gives it another. A name is forever: the journal holds
// it.
func (s *Service[S]) Events(events ...Event[S]) *Service[S] {
	for _, e := range events {
		name, aliases := "", []string(nil)
		if n, ok := e.(named[S]); ok {
			e, name, aliases = n.Event, n.name, n.aliases
		}
		t := reflect.TypeOf(e)
		if t == nil || t.Kind() != reflect.Struct {
			misuse("service " + s.manifest.Service + ": an event must be registered as a struct value, like Opened{}")
		}
		if name == "" {
			name = t.Name()
		}
		if s.byType[t] != nil {
			misuse("service " + s.manifest.Service + ": event type " + t.String() + " is registered twice")
		}
		s.unique(name, "event")
		for _, a := range aliases {
			s.unique(a, "event")
		}
		s.addEvent(t, name, aliases)
	}
	return s
}

func (s *Service[S]) addEvent(t reflect.Type, name string, aliases []string) {
	p := s.plan(t, "event "+name)
	s.whole(t, "event "+name)
	place := reflect.New(t)
	e := &eventType[S]{id: uint16(len(s.manifest.Events)), plan: p, typ: t, exact: p.Exactness(),
		place: place.UnsafePointer(), value: place.Elem(), applier: place.Interface().(Event[S])}
	s.byType[t] = e
	s.events = append(s.events, *e)
	s.manifest.Events = append(s.manifest.Events, abi.EventType{Name: name, Schema: p.Schema(), Aliases: aliases})
}

// apply decodes an event and applies it to a state. What the event refers to is new memory
// each time, so the state may keep it.
func (e *eventType[S]) apply(state *S, body []byte) error {
	e.value.SetZero()
	if err := e.plan.Decode(body, e.place); err != nil {
		return err
	}
	e.applier.Apply(state)
	return nil
}

// fewEvents are found by looking at each, which takes less than a map does.
const fewEvents = 16

// eventOf is the registered event of a type; nil if there is none.
func (s *Service[S]) eventOf(t reflect.Type) *eventType[S] {
	if len(s.events) > fewEvents {
		return s.byType[t]
	}
	for i := range s.events {
		if s.events[i].typ == t {
			return &s.events[i]
		}
	}
	return nil
}

// named is an event with a name of its own, for registration only.
type named[S any] struct {
	Event[S]
	name    string
	aliases []string
}

// Named gives an event a name other than its type's, for [Service.Events]. Aliases
// are older names that the journal may still hold.
func Named[S any](e Event[S], name string, aliases ...string) Event[S] {
	return named[S]{e, name, aliases}
}

// Command registers the handler of a command. It decides: it looks at the state,
// and emits events or refuses. What it returns is the reply. C and R are any types
// that JSON can carry; struct{} is fine for nothing.
//
// Commands are read strictly: a body with a member that C does not have, or that appears
// twice, or without one that is required, is rejected before decide runs. Required is every
// member that is neither a pointer nor has the option omitempty or omitzero. Names match
// exactly. The manifest says the same as a JSON Schema.
func Command[S, C, R any](s *Service[S], name string, decide func(tx *Tx[S], command C) (R, error)) {
	in := s.input(reflect.TypeFor[C](), "command "+name)
	out := s.plan(reflect.TypeFor[R](), "the reply to command "+name)
	s.unique(name, "command")
	s.manifest.Commands = append(s.manifest.Commands,
		abi.CommandType{Name: name, Input: in.plan.InputSchema(), Reply: out.Schema()})
	command, reply := new(C), new(R) // a decoder and an encoder have them escape, so they are made once
	s.commands = append(s.commands, handler[S]{func(tx *Tx[S], body []byte) error {
		c, err := decodeAt(in, command, body)
		if err != nil {
			return Reject(abi.CodeBadCommand, err.Error())
		}
		r, err := decide(tx, c)
		if err != nil {
			return err
		}
		return replyFrom(tx, out, reply, r)
	}})
}

// Query registers the handler of a query, which reads the state and changes
// nothing. Its bodies are read as strictly as those of commands.
func Query[S, Q, R any](s *Service[S], name string, answer func(v *View[S], query Q) (R, error)) {
	in := s.input(reflect.TypeFor[Q](), "query "+name)
	out := s.plan(reflect.TypeFor[R](), "the reply to query "+name)
	s.unique(name, "query")
	s.manifest.Queries = append(s.manifest.Queries,
		abi.QueryType{Name: name, Input: in.plan.InputSchema(), Reply: out.Schema()})
	question, reply := new(Q), new(R)
	s.queries = append(s.queries, handler[S]{func(tx *Tx[S], body []byte) error {
		q, err := decodeAt(in, question, body)
		if err != nil {
			return Reject(abi.CodeBadQuery, err.Error())
		}
		r, err := answer(&tx.View, q)
		if err != nil {
			return err
		}
		return replyFrom(tx, out, reply, r)
	}})
}

// input reads the bodies of a command or a query.
type input struct {
	plan     *jsonplan.Plan
	optional bool // a body of no bytes is the zero value
}

func (s *Service[S]) input(t reflect.Type, what string) input {
	p := s.plan(t, what)
	return input{p, p.Optional()}
}

func (in input) decode(body []byte, v unsafe.Pointer) error {
	if len(body) == 0 && in.optional {
		return nil
	}
	return in.plan.DecodeInput(body, v)
}

// decodeAt reads a body into a place that is used again, and copies what is there.
func decodeAt[T any](in input, place *T, body []byte) (v T, err error) {
	var zero T
	*place = zero // a decoder may have panicked
	err = in.decode(body, unsafe.Pointer(place))
	v = *place
	*place = zero // what it refers to is v's
	return v, err
}

// replyFrom appends the Reply frame, with the value in a place that is used again.
func replyFrom[S, R any](tx *Tx[S], p *jsonplan.Plan, place *R, v R) error {
	*place = v
	err := tx.reply(p, unsafe.Pointer(place))
	var zero R
	*place = zero
	return err
}

// plan makes the plan of a type that a registration names.
func (s *Service[S]) plan(t reflect.Type, what string) *jsonplan.Plan {
	p, err := s.plans.Make(t)
	if err != nil {
		misuse("service " + s.manifest.Service + ": " + what + ": " + err.Error())
	}
	return p
}

// whole refuses a type of which something would get lost between two instances.
func (s *Service[S]) whole(t reflect.Type, what string) {
	if field := jsonplan.Lost(t); field != "" {
		misuse("service " + s.manifest.Service + ": " + what + ": field " + field + " is not exported, so it would be lost whenever the entity is stored; export it")
	}
}

// unique refuses a name that is no name or is taken already.
func (s *Service[S]) unique(name, kind string) {
	ok := len(name) > 0 && len(name) <= abi.MaxNameSize
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
	}
	if !ok {
		misuse("service " + s.manifest.Service + ": " + kind + " name \"" + name + "\" must be 1 to 128 letters, digits, '.', '_' or '-'")
	}
	taken := false
	switch kind {
	case "command":
		for _, c := range s.manifest.Commands {
			taken = taken || c.Name == name
		}
	case "query":
		for _, q := range s.manifest.Queries {
			taken = taken || q.Name == name
		}
	case "event":
		for _, e := range s.manifest.Events {
			taken = taken || e.Name == name
			for _, a := range e.Aliases {
				taken = taken || a == name
			}
		}
	}
	if taken {
		misuse("service " + s.manifest.Service + ": " + kind + " \"" + name + "\" is registered twice")
	}
}

// rejection is a refusal by the domain.
type rejection struct{ code, message string }

func (r *rejection) Error() string { return r.code + ": " + r.message }

// Reject is the error of a handler that refuses: code is for programs (1 to 128
// printable ASCII characters without space; best lower case with underscores, and
// stable), message for people. Nothing of the command is written. A code of another
// form is a mistake in the service and panics.
func Reject(code, message string) error {
	ok := len(code) > 0 && len(code) <= abi.MaxCodeSize
	for i := range len(code) {
		ok = ok && code[i] > ' ' && code[i] <= '~'
	}
	if !ok {
		panic("guest: the code \"" + code + "\" of a rejection is not 1 to " + strconv.Itoa(abi.MaxCodeSize) + " printable ASCII characters without space")
	}
	return &rejection{code, message}
}
