package sandbox

import (
	"bytes"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// FuzzCheckAnswer: any answer of a guest is either refused as a violation, or keeps the rules, as checked
// here independently.
func FuzzCheckAnswer(f *testing.F) {
	event := abi.AppendEvent(nil, 1, 0, 0, []byte(`{}`), abi.Metadata(nil).AppendPair("a", "b"))
	reply := abi.AppendBody(nil, abi.Response{Kind: abi.RespReply, Slot: 1, Aux: 1}, []byte(`[1]`))
	log := abi.AppendBody(nil, abi.Response{Kind: abi.RespLog, Slot: 1}, []byte("line"))
	f.Add([]byte{}, uint8(abi.ReqDrop), uint32(1))
	f.Add(bytes.Join([][]byte{log, event, reply}, nil), uint8(abi.ReqCommand), uint32(1))
	f.Add(abi.AppendRefusal(nil, abi.Response{Kind: abi.RespReject, Slot: 1}, "no", "why"), uint8(abi.ReqQuery),
		uint32(1))
	f.Add(abi.AppendRefusal(nil, abi.Response{Kind: abi.RespFault, Slot: 1, Index: 3}, "no", "why"),
		uint8(abi.ReqApply), uint32(5))
	f.Add(abi.AppendBody(nil, abi.Response{Kind: abi.RespSnapshot, Slot: 1}, []byte("x")), uint8(abi.ReqSnapshot),
		uint32(1))
	f.Add(abi.AppendBody(nil, abi.Response{Kind: abi.RespDescription, Slot: 1}, []byte("{}")), uint8(abi.ReqDescribe),
		uint32(1))
	limits := service.Limits{Events: 3}.WithDefaults()
	f.Fuzz(func(t *testing.T, b []byte, kind uint8, frames uint32) {
		q := question{kind: abi.RequestKind(kind), slot: 1, frames: frames, events: make([]abi.EventType, 2),
			limits: &limits, isJSON: true}
		logs := 0
		var a answer
		err := checkAnswer(b, &q, &a, func(abi.LogLevel, []byte) { logs++ })
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
		n, ends := 0, 0
		for rest := b; len(rest) > 0; n++ {
			r, more, err := abi.DecodeResponse(rest)
			if err != nil || r.Slot != 1 || r.Index >= frames {
				t.Fatalf("accepted frame %d: %+v, %v", n, r, err)
			}
			rest = more
			switch {
			case r.Kind == abi.RespEvent && ends > 0:
				t.Fatalf("accepted an event behind the end")
			case r.Kind != abi.RespEvent && r.Kind != abi.RespLog:
				ends++
			}
		}
		if n != len(a.events)+logs+ends || ends > 1 && q.kind != abi.ReqApply || ends > 0 != (a.terminal != 0) {
			t.Fatalf("%d frames: %d events, %d logs, %d ends, terminal %v", n, len(a.events), logs, ends, a.terminal)
		}
		if ends == 0 && (q.kind == abi.ReqCommand || q.kind == abi.ReqQuery) {
			t.Fatal("no terminal")
		}
	})
}

func TestRefusalIsSafeToPrint(t *testing.T) {
	e := refusal(service.KindRejected, "bank",
		abi.Refusal{Code: []byte("no"), Message: []byte("a\x1b[2J\xff\u202eb\nc")})
	if e.Message != "a\uFFFD[2J\uFFFD\uFFFDb\nc" || e.Code != "no" || e.Service != "bank" ||
		e.Kind != service.KindRejected {
		t.Errorf("%#v", e)
	}
}

// Frames after a Fault in a hydration are handled separately, and may fault, too; the first Fault is
// reported. Log is allowed anywhere.
func TestSeveralFaultsInAHydration(t *testing.T) {
	limits := service.DefaultLimits()
	q := question{kind: abi.ReqApply, slot: 1, frames: 4, limits: &limits}
	fault := func(index uint32, code string) []byte {
		return abi.AppendRefusal(nil, abi.Response{Kind: abi.RespFault, Slot: 1, Index: index}, code, "")
	}
	log := abi.AppendBody(nil, abi.Response{Kind: abi.RespLog, Slot: 1, Index: 2}, []byte("x"))
	var a answer
	err := checkAnswer(bytes.Join([][]byte{fault(1, "first"), fault(2, "second"), log, fault(3, "third")}, nil), &q, &a,
		nil)
	if err != nil || string(a.refusal.Code) != "first" {
		t.Errorf("%+v, %v", a, err)
	}
	if err := checkAnswer(bytes.Join([][]byte{fault(1, "first"), fault(1, "again")}, nil), &q, new(answer),
		nil); err == nil {
		t.Error("two Faults to one frame were accepted")
	}
	q.kind, q.frames = abi.ReqQuery, 1
	reply := abi.AppendBody(nil, abi.Response{Kind: abi.RespReply, Slot: 1}, nil)
	line := abi.AppendBody(nil, abi.Response{Kind: abi.RespLog, Slot: 1}, []byte("x"))
	if err := checkAnswer(append(reply, line...), &q, new(answer), nil); err != nil {
		t.Errorf("a log behind the reply: %v", err)
	}
}

func TestDropAnswersEachSlot(t *testing.T) {
	limits := service.DefaultLimits()
	q := question{kind: abi.ReqDrop, slots: []uint32{5, 9}, frames: 2, limits: &limits}
	line := func(slot, index uint32) []byte {
		return abi.AppendBody(nil, abi.Response{Kind: abi.RespLog, Slot: slot, Index: index}, []byte("x"))
	}
	if err := checkAnswer(append(line(5, 0), line(9, 1)...), &q, new(answer), nil); err != nil {
		t.Error(err)
	}
	if err := checkAnswer(line(9, 0), &q, new(answer), nil); err == nil {
		t.Error("the slot of another frame was accepted")
	}
}

// What outlives an answer does not keep the whole answer in memory.
func TestCompact(t *testing.T) {
	for _, c := range []struct {
		body, event, logs  int
		ownBody, ownEvents bool
	}{
		{1000, 0, 0, false, true},
		{10, 1000, 0, true, false},
		{1000, 10, 0, false, true},
		{500, 480, 0, true, false},
		{500, 200, 0, false, true},
		{10, 10, 1000, true, true},
		{400, 100, 600, true, true},
	} {
		c.body, c.event, c.logs = 10*c.body, 10*c.event, 10*c.logs
		whole := make([]byte, c.body+2*c.event+c.logs)
		for i := range whole {
			whole[i] = byte(i)
		}
		a := answer{body: whole[:c.body], size: len(whole)}
		if c.event > 0 {
			rest := whole[c.body:]
			a.events = []journal.NewEvent{{Data: rest[:c.event-4], Metadata: rest[c.event-4 : c.event]},
				{Data: rest[c.event : 2*c.event]}}
		}
		body, events := bytes.Clone(a.body), slices.Clone(a.events)
		for i := range events {
			events[i].Data, events[i].Metadata = bytes.Clone(events[i].Data), bytes.Clone(events[i].Metadata)
		}
		a.compact()
		if !bytes.Equal(a.body, body) {
			t.Errorf("%+v: the body has changed", c)
		}
		for i := range a.events {
			if !bytes.Equal(a.events[i].Data, events[i].Data) ||
				!bytes.Equal(a.events[i].Metadata, events[i].Metadata) {
				t.Errorf("%+v: event %d has changed", c, i)
			}
		}
		for i := range whole { // anything that still refers to it changes now
			whole[i]++
		}
		if own := bytes.Equal(a.body, body); own != c.ownBody {
			t.Errorf("%+v: the body is its own: %v", c, own)
		}
		for i := range a.events {
			if own := bytes.Equal(a.events[i].Data, events[i].Data); own != c.ownEvents {
				t.Errorf("%+v: event %d is its own: %v", c, i, own)
			}
		}
	}
}
