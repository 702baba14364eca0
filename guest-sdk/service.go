package guest

import (
	"reflect"
	"strconv"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/jsonplan"
)

// sdkName is the name of this SDK in manifests.
const sdkName = "bulkhead-go/1"

// Event is something that happened to an entity with state S. Apply changes the state
// accordingly, and must depend on nothing but the event and the state. Event types are structs. An
// [InformedEvent] is applied with more than its data.
type Event[S any] interface{ Apply(*S) }

// Service is the definition of a service, and, once its module has started, the service.
// Register commands, queries and events during package initialisation. A mistake in this
// panics, and the host reports it when the module is uploaded. A Service is for one goroutine.
type Service[S any] struct {
	manifest abi.Manifest
	plans    jsonplan.Maker
	state    *jsonplan.Plan
	commands []handler[S]
	queries  []handler[S]
	events   []eventType[S]
	byType   map[reflect.Type]*eventType[S] // without old types

	upcasters map[reflect.Type]*upcaster[S] // by the old type
	earlier   []*earlierState[S]
	schemas   []*earlierState[S] // by the index in the manifest's earlier schemas
	sealed    bool               // upcasters are connected with what they give

	// The fields below belong to the running call; see run.go.
	slots      []*slot[S]
	free       []*slot[S]
	out        []byte // response frames
	scratch    []byte
	tx         Tx[S]
	info       EventInfo // of the event that is being applied, if it sees its info
	goroutines int
}

// eventType is a registered event.
type eventType[S any] struct {
	id    uint16
	plan  *jsonplan.Plan
	typ   reflect.Type // nil for an old type, which cannot be emitted
	old   reflect.Type // of an old type, which an upcaster takes; otherwise nil
	exact jsonplan.Exactness

	// place holds one event at a time. All decoding and encoding uses it: an allocation for
	// each event would cost more than most events do.
	place   unsafe.Pointer
	value   reflect.Value // the event at place
	applier Event[S]      // a pointer to it, so that Apply gets a copy; or what gives it the info; or its upcaster
	sees    bool          // it gets the info, or is upcast to an event that does
}

// handler is a registered command or query.
type handler[S any] struct {
	run func(tx *Tx[S], body []byte) error // appends the reply's body to out
}

// New starts the definition of a service whose entities have the state S. The zero value of S
// is the state of an entity without events. The service must be deployed under this name.
//
// S is encoded for snapshots, so all its fields must be exported: a field that is not would be
// lost. New panics if there is one. The same applies to events.
func New[S any](name string) *Service[S] {
	s := &Service[S]{byType: map[reflect.Type]*eventType[S]{}, upcasters: map[reflect.Type]*upcaster[S]{}}
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

// StateSchema sets the version of the state's form. If it is not set, it is computed from S:
// from the JSON names of the members, their kinds, how they nest, and which of them may be
// left out. It changes when one of these changes. Snapshots of another version are not used,
// and entities are rebuilt from their events.
//
// Set it in two cases:
//   - An Apply now does something else, so old snapshots are no longer what replaying the
//     events gives. Set a number that was not used before.
//   - S has changed, but old snapshots are still good, for example after adding a member with
//     the option omitempty. Set the number from the manifest of the old build. Snapshots with a
//     member that S does not have, or without one that S always writes, are refused all the
//     same.
//
// Where the first events of entities were deleted, their snapshots are all that is left of these
// events. [UpcastState] reads the snapshots of an earlier schema.
func (s *Service[S]) StateSchema(version uint32) *Service[S] {
	s.manifest.StateSchema, s.sealed = version, false
	return s
}

// Events registers the service's events by their zero values. An event's name is the name of
// its type; [Named] gives it another one. Never change a name: the journal has events with it.
// Events panics if a value is not a struct, or a name or a type is registered twice.
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
		s.oneUse(t)
		s.uniqueEvent(name, aliases)
		x := &s.events[s.addEvent(t, name, aliases)]
		x.typ, x.old, x.applier = t, nil, reflect.NewAt(t, x.place).Interface().(Event[S])
		if informed := s.informedOf(x.applier, t); informed != nil {
			x.sees, x.applier = true, applyFunc[S](func(state *S) { informed.ApplyWith(state, s.info) })
		}
		own := *x
		s.byType[t] = &own
	}
	return s
}

// addEvent adds a type to events, as an old type without an applier, and returns its index.
func (s *Service[S]) addEvent(t reflect.Type, name string, aliases []string) int {
	p := s.plan(t, "event "+name)
	s.whole(t, "event "+name)
	place, n := reflect.New(t), len(s.events)
	s.events = append(s.events, eventType[S]{id: uint16(n), plan: p, old: t, exact: p.Exactness(),
		place: place.UnsafePointer(), value: place.Elem()})
	s.manifest.Events = append(s.manifest.Events, abi.EventType{Name: name, Schema: p.Schema(), Aliases: aliases})
	s.sealed = false
	return n
}

// apply decodes an event and applies it to a state. Memory that the event refers to is new each
// time, so the state may keep it.
func (e *eventType[S]) apply(state *S, body []byte) error {
	e.value.SetZero()
	if err := e.plan.Decode(body, e.place); err != nil {
		return err
	}
	e.applier.Apply(state)
	return nil
}

// fewEvents is the number of event types up to which a linear search is faster than a map.
const fewEvents = 16

// eventOf returns the registered event of a type, or nil.
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

// named is an event with a name of its own. It is used for registration only.
type named[S any] struct {
	Event[S]
	name    string
	aliases []string
}

// Named gives an event a name other than its type's, for [Service.Events]. Aliases are older
// names of the event that the journal may still have.
func Named[S any](e Event[S], name string, aliases ...string) Event[S] {
	return named[S]{e, name, aliases}
}

// Command registers the handler of a command. The handler decides: it looks at the state, and
// then emits events or refuses. What it returns is the reply. C and R are any types that JSON
// can carry; use struct{} for nothing.
//
// Commands are read strictly. A body is rejected before decide runs if it has a member that C
// does not have, has a member twice, or lacks a required member. A member is required unless it
// is a pointer or has the option omitempty or omitzero. Names match exactly. The manifest says
// the same as a JSON Schema, with the limits that tags set. The host checks data against it before
// the module runs, so decide sees no value beyond a limit.
func Command[S, C, R any](s *Service[S], name string, decide func(tx *Tx[S], command C) (R, error)) {
	in := s.input(reflect.TypeFor[C](), "command "+name)
	out := s.plan(reflect.TypeFor[R](), "the reply to command "+name)
	s.unique(name, "command")
	s.manifest.Commands = append(s.manifest.Commands,
		abi.CommandType{Name: name, Input: in.plan.InputSchema(), Reply: out.Schema()})
	command, reply := new(C), new(R) // made once: they escape to the decoder and the encoder
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

// Query registers the handler of a query. It reads the state and changes nothing. The bodies of
// queries are read as strictly as those of commands.
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

// input reads the bodies of one type of command or query.
type input struct {
	plan     *jsonplan.Plan
	optional bool // a body of no bytes means the zero value
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

// decodeAt reads a body into place, which is used for each call, and returns a copy.
func decodeAt[T any](in input, place *T, body []byte) (v T, err error) {
	var zero T
	*place = zero // the last decoding may have panicked
	err = in.decode(body, unsafe.Pointer(place))
	v = *place
	*place = zero // memory that it refers to belongs to v now
	return v, err
}

// replyFrom appends the Reply frame. It encodes the value at place, which is used for each call.
func replyFrom[S, R any](tx *Tx[S], p *jsonplan.Plan, place *R, v R) error {
	*place = v
	err := tx.reply(p, unsafe.Pointer(place))
	var zero R
	*place = zero
	return err
}

// plan makes the plan of a type; what names the registration in the error.
func (s *Service[S]) plan(t reflect.Type, what string) *jsonplan.Plan {
	p, err := s.plans.Make(t)
	if err != nil {
		misuse("service " + s.manifest.Service + ": " + what + ": " + err.Error())
	}
	return p
}

// whole refuses a type with a field that encoding would lose.
func (s *Service[S]) whole(t reflect.Type, what string) {
	if field := jsonplan.Lost(t); field != "" {
		misuse("service " + s.manifest.Service + ": " + what + ": field " + field +
			" is not exported, so it would be lost whenever the entity is stored; export it")
	}
}

// unique refuses a name that is malformed or already registered.
func (s *Service[S]) unique(name, kind string) {
	ok := len(name) > 0 && len(name) <= abi.MaxNameSize
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' ||
			c == '-')
	}
	if !ok {
		misuse("service " + s.manifest.Service + ": " + kind + " name \"" + name +
			"\" must be 1 to 128 letters, digits, '.', '_' or '-'")
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

// rejection is the error of a handler that refuses.
type rejection struct{ code, message string }

func (r *rejection) Error() string { return r.code + ": " + r.message }

// Reject returns the error by which a handler refuses a command or a query. Nothing of the
// command is written. The code is for programs: 1 to 128 printable ASCII characters without
// space, and best in stable lower case with underscores. The message is for people. A code of
// another form is a mistake in the service, and Reject panics.
func Reject(code, message string) error {
	ok := len(code) > 0 && len(code) <= abi.MaxCodeSize
	for i := range len(code) {
		ok = ok && code[i] > ' ' && code[i] <= '~'
	}
	if !ok {
		panic("guest: the code \"" + code + "\" of a rejection is not 1 to " + strconv.Itoa(abi.MaxCodeSize) +
			" printable ASCII characters without space")
	}
	return &rejection{code, message}
}
