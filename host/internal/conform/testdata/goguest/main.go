//go:build wasip1

// Goguest is a service in Go without an SDK: it uses only package abi. All its bodies are JSON numbers. It
// keeps every rule; the tests of package conform check this.
package main

import (
	"math"
	"strconv"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

func main() {}

var manifest = abi.Manifest{
	ABI: abi.Version, Service: "goguest", Version: "1", SDK: "none",
	Commands: []abi.CommandType{{Name: "add", Input: `{"type":"integer"}`}, {Name: "clear"}},
	Queries:  []abi.QueryType{{Name: "sum"}},
	Events:   []abi.EventType{{Name: "added"}, {Name: "cleared"}},
}

// sum is the state of an entity.
type sum struct {
	open bool
	n    int64
}

func (s *sum) evolve(typ uint16, body []byte) bool {
	if typ == 1 {
		s.n = 0
		return true
	}
	by, err := strconv.ParseInt(string(body), 10, 64)
	if err != nil || overflows(s.n, by) {
		return false
	}
	s.n += by
	return true
}

func overflows(a, b int64) bool {
	return b > 0 && a > math.MaxInt64-b || b < 0 && a < math.MinInt64-b
}

var (
	sums    []sum // by slot
	mailbox = make([]byte, 64<<10)
	out     = make([]byte, 0, 4<<10)
)

//go:wasmexport bulkhead_v1_reserve
func reserve(n uint32) unsafe.Pointer {
	if int(n) > len(mailbox) {
		mailbox = make([]byte, max(int(n), 2*len(mailbox)))
	}
	return unsafe.Pointer(&mailbox[0]) // Go's heap is aligned and does not move
}

//go:wasmexport bulkhead_v1_call
func call(n uint32) uint64 {
	out = out[:0]
	for in, index := mailbox[:n], uint32(0); len(in) > 0; index++ {
		r, rest, err := abi.DecodeRequest(in)
		if err != nil {
			fault(&abi.Request{}, index, abi.CodeBadFrame, err.Error())
			break
		}
		answer(&r, index)
		in = rest
	}
	if len(out) == 0 {
		return 0
	}
	return abi.PackRange(uint32(uintptr(unsafe.Pointer(&out[0]))), uint32(len(out)))
}

func fault(r *abi.Request, index uint32, code, message string) {
	out = abi.AppendRefusal(out, abi.Response{Kind: abi.RespFault, Slot: r.Slot, Index: index}, code, message)
}

func reject(r *abi.Request, index uint32, code, message string) {
	out = abi.AppendRefusal(out, abi.Response{Kind: abi.RespReject, Slot: r.Slot, Index: index}, code, message)
}

func body(r *abi.Request, index uint32, kind abi.ResponseKind, events uint32, b []byte) {
	out = abi.AppendBody(out, abi.Response{Kind: kind, Slot: r.Slot, Index: index, Aux: events}, b)
}

func number(n int64) []byte { return strconv.AppendInt(nil, n, 10) }

func answer(r *abi.Request, index uint32) {
	var s *sum
	if int(r.Slot) < len(sums) && sums[r.Slot].open {
		s = &sums[r.Slot]
	}
	switch r.Kind {
	case abi.ReqDescribe:
		body(r, index, abi.RespDescription, 0, manifest.AppendJSON(nil))
		return
	case abi.ReqDrop:
		if s != nil {
			*s = sum{}
		}
		return
	case abi.ReqOpen:
		open(r, index)
		return
	case abi.ReqApply, abi.ReqCommand, abi.ReqQuery, abi.ReqSnapshot:
	default:
		return // added by a later version
	}
	if s == nil {
		fault(r, index, abi.CodeNoEntity, "the slot is not open")
		return
	}
	switch r.Kind {
	case abi.ReqApply:
		a, err := abi.DecodeApply(r)
		switch {
		case err != nil:
			fault(r, index, abi.CodeBadFrame, err.Error())
		case int(r.Type) >= len(manifest.Events):
			fault(r, index, abi.CodeUnknownType, "no such event")
		case !s.evolve(r.Type, a.Body):
			fault(r, index, abi.CodeBadEvent, "want a number that fits")
		}
	case abi.ReqCommand:
		command(r, index, s)
	case abi.ReqQuery:
		switch _, err := abi.DecodeQuery(r); {
		case err != nil:
			fault(r, index, abi.CodeBadFrame, err.Error())
		case r.Type > 0:
			reject(r, index, abi.CodeUnknownType, "no such query")
		default:
			body(r, index, abi.RespReply, 0, number(s.n))
		}
	case abi.ReqSnapshot:
		body(r, index, abi.RespSnapshot, 0, number(s.n))
	}
}

func open(r *abi.Request, index uint32) {
	o, err := abi.DecodeOpen(r)
	if err != nil {
		fault(r, index, abi.CodeBadFrame, err.Error())
		return
	}
	s := sum{open: true}
	if o.Snapshot != nil {
		if s.n, err = strconv.ParseInt(string(o.Snapshot), 10, 64); err != nil {
			fault(r, index, abi.CodeBadSnapshot, "want a number")
			return
		}
	}
	for int(r.Slot) >= len(sums) {
		sums = append(sums, sum{})
	}
	sums[r.Slot] = s
}

func command(r *abi.Request, index uint32, s *sum) {
	c, err := abi.DecodeCommand(r)
	if err != nil {
		fault(r, index, abi.CodeBadFrame, err.Error())
		return
	}
	data := c.Body
	switch r.Type {
	case 0:
		by, err := strconv.ParseInt(string(data), 10, 64)
		switch {
		case err != nil:
			reject(r, index, abi.CodeBadCommand, "want a number")
			return
		case overflows(s.n, by):
			reject(r, index, "too_large", "the sum has 64 bits")
			return
		}
		data = number(by) // as in the event: "+1" is not JSON
	case 1:
		data = nil
	default:
		reject(r, index, abi.CodeUnknownType, "no such command")
		return
	}
	out = abi.AppendEvent(out, r.Slot, index, r.Type, data, nil)
	s.evolve(r.Type, data)
	body(r, index, abi.RespReply, 1, number(s.n))
}
