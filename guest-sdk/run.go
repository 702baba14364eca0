package guest

import (
	"errors"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/jsonplan"
)

// slot holds an entity that is in memory.
type slot[S any] struct {
	state   S
	key     string
	version uint64
	open    bool
	broken  bool // the entity could not be rebuilt; until the slot is opened again or dropped
}

// maxSlot bounds slot numbers. The host numbers slots densely.
const maxSlot = 1 << 24

// exchange runs the request frames in request and returns the response frames, which are
// valid until the next call. The module's export and test kits call it, from one goroutine
// at a time.
func (s *Service[S]) exchange(request []byte) []byte {
	if !s.sealed {
		s.seal()
	}
	s.out = s.out[:0]
	s.goroutines = runtime.NumGoroutine()
	at := cursor{rest: request}
	for len(at.rest) > 0 {
		s.frames(&at)
	}
	return s.out
}

// cursor is the guest's position in a request.
type cursor struct {
	rest  []byte
	frame abi.Request
	index uint32
	start int // where the current frame's response begins in out
}

// frames runs frames until the end or a panic. A deferred call costs about as much as a small
// command, so there is one for each request, not for each frame.
func (s *Service[S]) frames(at *cursor) {
	finished := false
	defer func() {
		if finished {
			return
		}
		message := s.rebuilding(at) + panicText(recover())
		logLine(abi.LogError, "panic: "+message+panicPlace())
		s.refuse(at, abi.RespFault, abi.CodePanic, message)
		at.index++
	}()
	for len(at.rest) > 0 {
		var err error
		at.start = len(s.out)
		at.frame, at.rest, err = abi.DecodeRequest(at.rest)
		if err != nil {
			at.rest = nil
			s.refuse(at, abi.RespFault, abi.CodeBadFrame, err.Error())
			break
		}
		if err := s.one(at); err != nil {
			at.rest = nil
			s.refuse(at, abi.RespFault, abi.CodeBadFrame, err.Error())
			break
		}
		at.index++
	}
	finished = true
}

// one runs one frame. An error means that its payload is malformed.
func (s *Service[S]) one(at *cursor) error {
	r := &at.frame
	switch r.Kind {
	case abi.ReqCommand:
		c, err := abi.DecodeCommand(r)
		if err != nil {
			return err
		}
		s.handle(at, c)
	case abi.ReqQuery:
		q, err := abi.DecodeQuery(r)
		if err != nil {
			return err
		}
		s.query(at, q)
	case abi.ReqOpen:
		o, err := abi.DecodeOpen(r)
		if err != nil {
			return err
		}
		s.open(at, o)
	case abi.ReqApply:
		a, err := abi.DecodeApply(r)
		if err != nil {
			return err
		}
		s.apply(at, a)
	case abi.ReqSnapshot:
		s.snapshot(at)
	case abi.ReqDrop:
		s.drop(r.Slot)
	case abi.ReqDescribe:
		s.out = abi.AppendBody(s.out, abi.Response{Kind: abi.RespDescription, Slot: r.Slot, Index: at.index},
			s.manifest.AppendJSON(nil))
	default:
		s.refuse(at, abi.RespFault, abi.CodeBadFrame, "unknown request kind "+strconv.Itoa(int(r.Kind)))
	}
	return nil
}

// entity returns the open entity in the frame's slot. If there is none, it answers so and
// returns nil.
func (s *Service[S]) entity(at *cursor) *slot[S] {
	e, why := s.slotOf(at), " is not open"
	if e != nil {
		if !e.broken {
			return e
		}
		why = " has no entity, as it could not be rebuilt"
	}
	s.refuse(at, abi.RespFault, abi.CodeNoEntity, "slot "+strconv.FormatUint(uint64(at.frame.Slot), 10)+why)
	return nil
}

// slotOf returns what is in the current frame's slot, or nil if the slot is not open.
func (s *Service[S]) slotOf(at *cursor) *slot[S] {
	if n := at.frame.Slot; uint64(n) < uint64(len(s.slots)) {
		return s.slots[n]
	}
	return nil
}

// rebuilding describes a frame that rebuilds an entity: the entity, its version and the event.
// It returns "" for other frames.
func (s *Service[S]) rebuilding(at *cursor) string {
	r, e := &at.frame, s.slotOf(at)
	if e == nil || r.Kind != abi.ReqApply && r.Kind != abi.ReqOpen {
		return ""
	}
	about := "entity " + strconv.Quote(e.key) + ", version " + strconv.FormatUint(r.Version, 10)
	switch {
	case r.Kind == abi.ReqOpen:
		return about + ", snapshot: "
	case int(r.Type) < len(s.events):
		return about + ", event " + s.manifest.Events[r.Type].Name + ": "
	}
	return about + ": "
}

func (s *Service[S]) handle(at *cursor, c abi.Command) {
	e := s.entity(at)
	if e == nil {
		return
	}
	if int(at.frame.Type) >= len(s.commands) {
		s.refuse(at, abi.RespFault, abi.CodeUnknownType, "there is no command type "+strconv.Itoa(int(at.frame.Type)))
		return
	}
	s.begin(at, e)
	s.tx.command = c
	err := s.commands[at.frame.Type].run(&s.tx, c.Body)
	s.finish(at, err)
}

func (s *Service[S]) query(at *cursor, q abi.Query) {
	e := s.entity(at)
	if e == nil {
		return
	}
	if int(at.frame.Type) >= len(s.queries) {
		s.refuse(at, abi.RespFault, abi.CodeUnknownType, "there is no query type "+strconv.Itoa(int(at.frame.Type)))
		return
	}
	s.begin(at, e)
	err := s.queries[at.frame.Type].run(&s.tx, q.Body)
	s.finish(at, err)
}

// begin sets tx for the current frame.
func (s *Service[S]) begin(at *cursor, e *slot[S]) {
	s.tx = Tx[S]{View: View[S]{service: s, slot: e, time: at.frame.Time, frame: at.frame, index: at.index}}
}

// finish turns a handler's error into a refusal, and finds goroutines that are still running.
func (s *Service[S]) finish(at *cursor, err error) {
	switch refused, ok := errors.AsType[*rejection](err); {
	case leaked(s.goroutines):
		// The goroutine would continue in the middle of another entity's command.
		s.refuse(at, abi.RespFault, abi.CodeGoroutineLeak, "the handler left a goroutine behind")
	case err == nil:
	case s.tx.events > 0:
		s.refuse(at, abi.RespFault, abi.CodeErrorAfterEmit,
			"the handler emitted an event and then failed: "+err.Error())
	case ok:
		s.refuse(at, abi.RespReject, refused.code, refused.message)
	default:
		s.refuse(at, abi.RespFault, abi.CodeError, err.Error())
	}
}

func (s *Service[S]) open(at *cursor, o abi.Open) {
	n := at.frame.Slot
	if n >= maxSlot {
		s.refuse(at, abi.RespFault, abi.CodeBadFrame, "slot numbers are below "+strconv.Itoa(maxSlot))
		return
	}
	for uint64(n) >= uint64(len(s.slots)) {
		s.slots = append(s.slots, nil)
	}
	s.drop(n)
	var e *slot[S]
	if last := len(s.free) - 1; last >= 0 {
		e, s.free = s.free[last], s.free[:last]
	} else {
		e = new(slot[S])
	}
	*e = slot[S]{key: string(o.Key), version: at.frame.Version, open: true}
	s.slots[n] = e
	if o.Snapshot == nil {
		return
	}
	e.broken = true // in case of a panic
	var err error
	switch earlier := at.frame.Flags&abi.FlagEarlier != 0 && len(s.schemas) > 0; {
	case !earlier:
		err = s.state.DecodeWhole(o.Snapshot, unsafe.Pointer(&e.state))
	case int(at.frame.Type) < len(s.schemas):
		err = s.restore(at.frame.Type, o.Snapshot, &e.state)
	default:
		err = errors.New("there is no earlier state schema " + strconv.Itoa(int(at.frame.Type)))
	}
	if err != nil {
		s.refuse(at, abi.RespFault, abi.CodeBadSnapshot, s.rebuilding(at)+err.Error())
		return
	}
	e.broken = false
}

func (s *Service[S]) drop(n uint32) {
	if uint64(n) >= uint64(len(s.slots)) || s.slots[n] == nil {
		return
	}
	e := s.slots[n]
	s.slots[n] = nil
	*e = slot[S]{}
	if len(s.free) < 256 {
		s.free = append(s.free, e)
	}
}

func (s *Service[S]) apply(at *cursor, a abi.Apply) {
	e := s.slotOf(at)
	switch {
	case e == nil:
		s.entity(at) // answers that there is none
		return
	case e.broken:
		return // the first fault was reported; a later one would only hide it
	}
	e.broken = true // in case of a panic
	if int(at.frame.Type) >= len(s.events) {
		s.refuse(at, abi.RespFault, abi.CodeUnknownType,
			s.rebuilding(at)+"there is no event type "+strconv.Itoa(int(at.frame.Type)))
		return
	}
	event := &s.events[at.frame.Type]
	if event.sees {
		s.inform(e, at.frame.Version, at.frame.Time, a.Metadata)
	}
	if err := event.apply(&e.state, a.Body); err != nil {
		s.refuse(at, abi.RespFault, abi.CodeBadEvent, s.rebuilding(at)+err.Error())
		return
	}
	e.version, e.broken = at.frame.Version, false
}

func (s *Service[S]) snapshot(at *cursor) {
	e := s.entity(at)
	if e == nil {
		return
	}
	b, begin := abi.BeginBody(s.out)
	start := len(b)
	b, err := s.state.Append(b, unsafe.Pointer(&e.state))
	if err == nil && jsonplan.Replaced(b[start:]) {
		err = jsonplan.ErrText // restoring it would give another state
	}
	if err != nil {
		s.refuse(at, abi.RespFault, abi.CodeError, "the state cannot be encoded: "+err.Error())
		return
	}
	s.out = abi.EndBody(b, begin, abi.Response{Kind: abi.RespSnapshot, Slot: at.frame.Slot, Index: at.index})
}

// refuse replaces the answer to the current frame by a Reject or a Fault.
func (s *Service[S]) refuse(at *cursor, kind abi.ResponseKind, code, message string) {
	s.out = abi.AppendRefusal(s.out[:at.start], abi.Response{Kind: kind, Slot: at.frame.Slot, Index: at.index}, code,
		message)
}

// panicText formats the value of a panic, without package fmt.
func panicText(v any) string {
	switch v := v.(type) {
	case nil:
		return "runtime.Goexit was called"
	case error:
		return v.Error()
	case string:
		return v
	case interface{ String() string }:
		return v.String()
	case int:
		return strconv.Itoa(v)
	}
	return "a value of type " + reflect.TypeOf(v).String()
}

// panicPlace returns the innermost place outside the runtime and this package, as
// " at file:line", or "" if there is none.
func panicPlace() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") && !strings.Contains(f.Function, "/guest-sdk.") &&
			f.Function != "" {
			return " at " + f.File + ":" + strconv.Itoa(f.Line)
		}
		if !more {
			return ""
		}
	}
}
