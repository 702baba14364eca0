package sandbox

import (
	"bytes"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// FuzzCheckAnswer: whatever a guest answers is either refused as a violation or
// keeps the rules, seen from outside of the checker.
func FuzzCheckAnswer(f *testing.F) {
	event := abi.AppendEvent(nil, 1, 0, 0, []byte(`{}`), abi.Metadata(nil).AppendPair("a", "b"))
	reply := abi.AppendBody(nil, abi.Response{Kind: abi.RespReply, Slot: 1, Aux: 1}, []byte(`[1]`))
	log := abi.AppendBody(nil, abi.Response{Kind: abi.RespLog, Slot: 1}, []byte("line"))
	f.Add([]byte{}, uint8(abi.ReqDrop), uint32(1))
	f.Add(bytes.Join([][]byte{log, event, reply}, nil), uint8(abi.ReqCommand), uint32(1))
	f.Add(abi.AppendRefusal(nil, abi.Response{Kind: abi.RespReject, Slot: 1}, "no", "why"), uint8(abi.ReqQuery), uint32(1))
	f.Add(abi.AppendRefusal(nil, abi.Response{Kind: abi.RespFault, Slot: 1, Index: 3}, "no", "why"), uint8(abi.ReqApply), uint32(5))
	f.Add(abi.AppendBody(nil, abi.Response{Kind: abi.RespSnapshot, Slot: 1}, []byte("x")), uint8(abi.ReqSnapshot), uint32(1))
	f.Add(abi.AppendBody(nil, abi.Response{Kind: abi.RespDescription, Slot: 1}, []byte("{}")), uint8(abi.ReqDescribe), uint32(1))
	limits := service.Limits{Events: 3}.WithDefaults()
	f.Fuzz(func(t *testing.T, b []byte, kind uint8, frames uint32) {
		q := question{kind: abi.RequestKind(kind), slot: 1, frames: frames, events: make([]abi.EventType, 2), limits: &limits, isJSON: true}
		logs := 0
		a, err := checkAnswer(b, &q, func(abi.LogLevel, []byte) { logs++ })
		if err != nil {
			if err.Kind != service.KindProtocol && err.Kind != service.KindOutcomeTooLarge || err.Message == "" {
				t.Fatalf("%#v", err)
			}
			if a.events != nil || a.terminal != 0 {
				t.Fatal("an answer beside an error")
			}
			return
		}
		if len(a.events) > limits.Events || len(a.events) > 0 && q.kind != abi.ReqCommand {
			t.Fatalf("%d events in answer to %v", len(a.events), q.kind)
		}
		for _, e := range a.events {
			if !validBody(e.Data) || abi.Metadata(e.Metadata).Valid() != nil {
				t.Fatalf("event %+v", e)
			}
		}
		// Count frames again, naively.
		n, last := 0, abi.ResponseKind(0)
		for rest := b; len(rest) > 0; n++ {
			r, more, err := abi.DecodeResponse(rest)
			if err != nil || r.Slot != 1 || r.Index >= frames {
				t.Fatalf("accepted frame %d: %+v, %v", n, r, err)
			}
			rest, last = more, r.Kind
		}
		terminals := 0
		if a.terminal != 0 {
			terminals = 1
			if last != a.terminal {
				t.Fatalf("%v is not the last frame, %v is", a.terminal, last)
			}
		}
		if n != len(a.events)+logs+terminals {
			t.Fatalf("%d frames: %d events, %d logs, terminal %v", n, len(a.events), logs, a.terminal)
		}
		if terminals == 0 && (q.kind == abi.ReqCommand || q.kind == abi.ReqQuery) {
			t.Fatal("no terminal")
		}
	})
}

func TestRefusalIsSafeToPrint(t *testing.T) {
	e := refusal(service.KindRejected, "bank", abi.Refusal{Code: []byte("no"), Message: []byte("a\x1b[2J\xff\u202eb\nc")})
	if e.Message != "a\uFFFD[2J\uFFFD\uFFFDb\nc" || e.Code != "no" || e.Service != "bank" || e.Kind != service.KindRejected {
		t.Errorf("%#v", e)
	}
}

func TestDropAnswersEachSlot(t *testing.T) {
	limits := service.DefaultLimits()
	q := question{kind: abi.ReqDrop, slots: []uint32{5, 9}, frames: 2, limits: &limits}
	line := func(slot, index uint32) []byte {
		return abi.AppendBody(nil, abi.Response{Kind: abi.RespLog, Slot: slot, Index: index}, []byte("x"))
	}
	if _, err := checkAnswer(append(line(5, 0), line(9, 1)...), &q, nil); err != nil {
		t.Error(err)
	}
	if _, err := checkAnswer(line(9, 0), &q, nil); err == nil {
		t.Error("the slot of another frame was accepted")
	}
}
