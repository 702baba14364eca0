package sandbox

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/jsoncheck"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// question is what was asked, as far as it decides which answers are allowed.
type question struct {
	kind   abi.RequestKind // the kind of all frames; ReqApply also covers Open
	slot   uint32
	slots  []uint32 // one per frame, if they differ
	frames uint32
	events []abi.EventType // the manifest's
	limits *service.Limits
	isJSON bool   // bodies must be JSON
	typ    string // content type of bodies; empty for JSON
}

// answer is a checked answer of a guest. Its slices refer to the checked bytes.
type answer struct {
	events   []journal.NewEvent
	terminal abi.ResponseKind // 0 if there is none
	body     []byte           // of Reply, Snapshot or Description
	refusal  abi.Refusal      // of Reject or Fault; of the first Fault, if there are several
	ended    uint32           // index of the request frame that the terminal answers
	faulted  uint32           // index of the request frame that the refusal answers
	size     int              // total bytes checked
}

// smallAnswer is the size, in bytes, up to which an answer is kept as it is. The bookkeeping for one event
// takes almost as much.
const smallAnswer = 1 << 10

// compact copies the parts that outlive the answer if they are less than half of it. Events stay in memory
// for subscribers, and a reply until its client has taken it; neither should keep the logs of the whole
// answer in memory.
func (a *answer) compact() {
	if a.size <= smallAnswer {
		return
	}
	if len(a.body) < a.size/2 {
		a.body = bytes.Clone(a.body)
	}
	size := 0
	for i := range a.events {
		size += len(a.events[i].Data) + len(a.events[i].Metadata)
	}
	if size >= a.size/2 {
		return
	}
	own := make([]byte, 0, size)
	for i := range a.events {
		e := &a.events[i]
		own = append(own, e.Data...)
		e.Data = own[len(own)-len(e.Data) : len(own) : len(own)]
		if len(e.Metadata) > 0 {
			own = append(own, e.Metadata...)
			e.Metadata = own[len(own)-len(e.Metadata) : len(own) : len(own)]
		}
	}
}

// checkAnswer decodes b into a, which must be empty, by the rules of the ABI. It is total: either a keeps
// every rule, or a stays empty and the error, of KindProtocol or KindOutcomeTooLarge, names the frame and the
// rule. Log frames go to log.
func checkAnswer(b []byte, q *question, a *answer, log func(abi.LogLevel, []byte)) *service.Error {
	err := a.read(b, q, log)
	if err != nil {
		*a = answer{}
	}
	return err
}

func (a *answer) read(b []byte, q *question, log func(abi.LogLevel, []byte)) *service.Error {
	index := uint32(0) // of the last request frame that was answered
	for n := 0; len(b) > 0; n++ {
		r, rest, e := abi.DecodeResponse(b)
		if e != nil {
			return broken(n, "%v", e)
		}
		b = rest
		switch {
		case r.Index >= q.frames:
			return broken(n, "%v answers request frame %d; the request has %d", r.Kind, r.Index, q.frames)
		case r.Index < index:
			return broken(n, "%v answers request frame %d after an answer to frame %d; indexes do not decrease", r.Kind,
				r.Index, index)
		case r.Slot != q.slotOf(r.Index):
			return broken(n, "%v is for slot %d; the request is for slot %d", r.Kind, r.Slot, q.slotOf(r.Index))
		case a.terminal != 0 && r.Kind != abi.RespLog && (q.kind != abi.ReqApply || r.Index == a.ended):
			// A hydration may have one Fault per frame; any other request has one terminal.
			return broken(n, "%v comes after %v, which ends the answer", r.Kind, a.terminal)
		}
		index = r.Index
		if err := a.take(n, &r, q, log); err != nil {
			return err
		}
	}
	if a.terminal == 0 && q.kind != abi.ReqApply && q.kind != abi.ReqDrop {
		return broken(-1, "the answer to %v has no %s", q.kind, expected(q.kind))
	}
	return nil
}

func (q *question) slotOf(index uint32) uint32 {
	if int64(index) < int64(len(q.slots)) {
		return q.slots[index]
	}
	return q.slot
}

// expected names the frames that may end an answer.
func expected(k abi.RequestKind) string {
	switch k {
	case abi.ReqCommand, abi.ReqQuery:
		return "Reply, Reject or Fault"
	case abi.ReqSnapshot:
		return "Snapshot or Fault"
	case abi.ReqDescribe:
		return "Description"
	case abi.ReqDrop:
		return "answer at all"
	}
	return "more than a Fault"
}

// legal reports whether the answer to a request may have frames of kind r. Log is always legal.
func legal(k abi.RequestKind, r abi.ResponseKind) bool {
	switch r {
	case abi.RespLog:
		return true
	case abi.RespEvent:
		return k == abi.ReqCommand
	case abi.RespReply, abi.RespReject:
		return k == abi.ReqCommand || k == abi.ReqQuery
	case abi.RespFault:
		return k != abi.ReqDrop && k != abi.ReqDescribe
	case abi.RespSnapshot:
		return k == abi.ReqSnapshot
	case abi.RespDescription:
		return k == abi.ReqDescribe
	}
	return false
}

// take adds one frame to the answer.
func (a *answer) take(n int, r *abi.Response, q *question, log func(abi.LogLevel, []byte)) *service.Error {
	if r.Kind == abi.RespEffect {
		return broken(n, "an Effect is unknown to ABI version %d", abi.Version)
	}
	if !legal(q.kind, r.Kind) {
		if r.Kind == 0 || r.Kind > abi.RespEffect {
			return broken(n, "unknown kind %d", r.Kind)
		}
		return broken(n, "%v does not answer %v; expected is %s", r.Kind, q.kind, expected(q.kind))
	}
	switch r.Kind {
	case abi.RespLog:
		body, err := abi.DecodeBody(r)
		if err != nil {
			return broken(n, "Log: %v", err)
		}
		if log != nil {
			log(abi.LogLevel(r.Aux), body)
		}
		return nil
	case abi.RespEvent:
		return a.event(n, r, q)
	case abi.RespReply:
		if int64(r.Aux) != int64(len(a.events)) {
			return broken(n, "Reply counts %d events, but %d came before it", r.Aux, len(a.events))
		}
		fallthrough
	case abi.RespSnapshot, abi.RespDescription:
		body, err := abi.DecodeBody(r)
		if err != nil {
			return broken(n, "%v: %v", r.Kind, err)
		}
		if q.isJSON && r.Kind == abi.RespReply && !validBody(body) {
			return broken(n, "Reply: the body is not JSON, though the manifest says so")
		}
		a.body = body
	case abi.RespReject, abi.RespFault:
		x, err := abi.DecodeRefusal(r)
		if err != nil {
			return broken(n, "%v: %v", r.Kind, err)
		}
		if !printable(x.Code) {
			return broken(n, "%v: the code %.40q is not 1 to %d bytes of printable ASCII without space", r.Kind, x.Code,
				abi.MaxCodeSize)
		}
		if r.Kind == abi.RespReject && len(a.events) > 0 {
			return broken(n, "Reject comes after %d events; an error after an event is a Fault", len(a.events))
		}
		if a.terminal == 0 {
			a.refusal, a.faulted = x, r.Index
		}
	}
	a.terminal, a.ended = r.Kind, r.Index
	return nil
}

func (a *answer) event(n int, r *abi.Response, q *question) *service.Error {
	if int(r.Type) >= len(q.events) {
		return broken(n, "Event of type %d; the manifest has %d", r.Type, len(q.events))
	}
	if len(a.events) >= q.limits.Events {
		e := broken(n, "more than %d events", q.limits.Events)
		e.Kind = service.KindOutcomeTooLarge
		return e
	}
	x, err := abi.DecodeEvent(r)
	if err == nil {
		err = abi.Metadata(x.Metadata).Valid()
	}
	if err != nil {
		return broken(n, "Event: %v", err)
	}
	if q.isJSON && !validBody(x.Body) {
		return broken(n, "Event: the body is not JSON, though the manifest says so")
	}
	e := journal.NewEvent{Type: q.events[r.Type].Name, ContentType: q.typ, Data: x.Body}
	if len(x.Metadata) > 0 {
		e.Metadata = x.Metadata
	}
	a.events = append(a.events, e)
	return nil
}

// validBody also accepts an empty body: an event may have no data.
func validBody(b []byte) bool { return len(b) == 0 || jsoncheck.Valid(b) }

// broken makes the error for a violation in response frame n; -1 is the answer as a whole.
func broken(n int, format string, args ...any) *service.Error {
	e := service.Errorf(service.KindProtocol, format, args...)
	if n >= 0 {
		e.Message = fmt.Sprintf("response frame %d: %s", n, e.Message)
	}
	return e
}

// printable reports whether a code is one or more bytes of visible ASCII.
func printable(code []byte) bool {
	for _, c := range code {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(code) > 0
}

// refusal makes an error from a Reject or Fault. The message is the guest's own, made safe to print; it may
// have several lines.
func refusal(kind service.Kind, name service.Name, x abi.Refusal) *service.Error {
	text := strings.ToValidUTF8(string(x.Message), "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if r != '\n' && safetext.Unsafe(r) {
			return utf8.RuneError
		}
		return r
	}, text)
	return &service.Error{Service: name, Kind: kind, Code: string(x.Code), Message: text}
}
