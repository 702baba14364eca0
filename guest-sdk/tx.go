package guest

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"time"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/jsonplan"
)

// View is an entity as a handler sees it. It is valid only during the handler's call, and is
// for the handler's goroutine.
type View[S any] struct {
	service *Service[S]
	slot    *slot[S]
	time    uint64
	frame   abi.Request
	index   uint32
}

// State is the entity's current state. Only read it: changes belong into Apply.
func (v *View[S]) State() *S { return &v.slot.state }

// Key is the entity's key.
func (v *View[S]) Key() string { return v.slot.key }

// Version is the number of the entity's events.
func (v *View[S]) Version() uint64 { return v.slot.version }

// Now is the time of the command or query, in UTC. It is the same at each call, and when the
// command is executed again.
func (v *View[S]) Now() time.Time { return instant(v.time) }

// LogLevel is the importance of a log line.
type LogLevel = abi.LogLevel

// The levels of log lines.
const (
	LogDebug = abi.LogDebug
	LogInfo  = abi.LogInfo
	LogWarn  = abi.LogWarn
	LogError = abi.LogError
)

// Metadata are pairs of texts that travel with a body. Add one with AppendPair.
type Metadata = abi.Metadata

// Log writes a line to the service's log.
func (v *View[S]) Log(level LogLevel, text string) { logLine(level, text) }

// Tx is a command in progress. It is valid only during the handler's call, and is for the
// handler's goroutine.
type Tx[S any] struct {
	View[S]
	command abi.Command
	random  *rand.Rand
	events  uint32
}

// CommandID is the command's id.
func (tx *Tx[S]) CommandID() string { return string(tx.command.ID) }

// Metadata returns a value of the command's metadata; ok is false if there is none of the name.
func (tx *Tx[S]) Metadata(name string) (value string, ok bool) {
	v, ok := abi.Metadata(tx.command.Metadata).Get(name)
	return string(v), ok
}

// Rand returns a source of random numbers that is seeded by the command. The numbers cannot be
// predicted from outside, and are the same when the command is executed again.
func (tx *Tx[S]) Rand() *rand.Rand {
	if tx.random == nil {
		seed := tx.command.Seed
		tx.random = rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:8]), binary.LittleEndian.Uint64(seed[8:])))
	}
	return tx.random
}

// Emit records that e happened and applies it to the state at once. It applies what it has
// recorded: if the event's JSON differs from e, for example because a string is not UTF-8, the
// state gets what the JSON says. The state shares no memory with e. A handler that fails after
// Emit costs the host a rebuild of the entity, so check first and emit last. Emit panics if
// the event's type is not registered or its value has no JSON form.
func (tx *Tx[S]) Emit(e Event[S]) { tx.EmitWith(e, nil) }

// EmitWith is Emit with metadata, which are stored with the event and which all its readers
// get. Do not copy the command's metadata: the host keeps them with its events. EmitWith panics
// if the metadata are larger than 16 KiB, or have an empty name or text that is not UTF-8.
func (tx *Tx[S]) EmitWith(e Event[S], metadata Metadata) {
	s := tx.service
	t := s.eventOf(reflect.TypeOf(e))
	if t == nil {
		why := " is not registered with Events"
		if s.upcasters[reflect.TypeOf(e)] != nil {
			why = " is an old type, which an upcaster takes; emit the type that it gives"
		}
		panic("guest: event " + reflect.TypeOf(e).String() + why)
	}
	frame := abi.Response{Kind: abi.RespEvent, Type: t.id, Slot: tx.frame.Slot, Index: tx.index}
	t.value.Set(reflect.ValueOf(e))
	var body []byte
	if len(metadata) > 0 {
		if err := metadata.Valid(); err != nil {
			panic("guest: metadata of event " + reflect.TypeOf(e).String() + ": " + err.Error())
		}
		b, err := t.plan.Append(s.scratch[:0], t.place)
		if err != nil {
			panic(err)
		}
		body, s.scratch = b, b
		s.out = abi.AppendEvent(s.out, frame.Slot, frame.Index, frame.Type, body, metadata)
	} else {
		b, at := abi.BeginBody(s.out)
		start := len(b)
		b, err := t.plan.Append(b, t.place)
		if err != nil {
			panic(err)
		}
		body = b[start:]
		s.out = abi.EndBody(b, at, frame)
	}
	if t.sees {
		s.inform(tx.slot, tx.slot.version+1, tx.time, metadata)
	}
	if t.exact == jsonplan.Exact || t.exact == jsonplan.ExactText && !jsonplan.Replaced(body) {
		t.applier.Apply(&tx.slot.state) // decoding would give the same value
	} else if err := t.apply(&tx.slot.state, body); err != nil {
		panic("guest: event " + s.manifest.Events[t.id].Name + " cannot be read as it is written: " + err.Error())
	}
	tx.slot.version++
	tx.events++
}

// reply appends the Reply frame.
func (tx *Tx[S]) reply(p *jsonplan.Plan, v unsafe.Pointer) error {
	s := tx.service
	b, at := abi.BeginBody(s.out)
	b, err := p.Append(b, v)
	if err != nil {
		return err
	}
	s.out = abi.EndBody(b, at, abi.Response{Kind: abi.RespReply, Slot: tx.frame.Slot, Index: tx.index, Aux: tx.events})
	return nil
}
