package conform

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// fake is a counter service in Go. An honest one keeps every rule, and each lie breaks one.
type fake struct {
	lie     string
	started int
}

func (f *fake) Manifest() abi.Manifest {
	return abi.Manifest{
		ABI: abi.Version, Service: "fake", SDK: "fake",
		Commands: []abi.CommandType{{Name: "add", Input: `{"type":"object","properties":{"by":{"type":"integer"}}}`},
			{Name: "refuse"}},
		Queries: []abi.QueryType{{Name: "value"}},
		Events:  []abi.EventType{{Name: "added"}},
	}
}

func (f *fake) Instantiate(context.Context) (Instance, error) {
	f.started++
	return &fakeInstance{fake: f, open: map[uint32]*counter{}}, nil
}

type counter struct {
	N    int    `json:"n"`
	Last string `json:"last"` // what the last event was applied with
	hide int    // state that a snapshot leaves out
	live int    // number of commands
	runs int    // number of events since it was opened
}

type fakeInstance struct {
	*fake
	open  map[uint32]*counter
	calls int
	total int // sum of all entities
	out   []byte
}

func (i *fakeInstance) Close(context.Context) error { return nil }

func (i *fakeInstance) Exchange(_ context.Context, request []byte) ([]byte, error) {
	i.calls++
	i.out = nil
	if i.lie == "small mailbox" && len(request) > 32<<10 {
		return nil, service.Errorf(service.KindProtocol, "reserve returned 0 for %d bytes", len(request))
	}
	if i.lie == "medium mailbox" && len(request) > 100<<10 {
		return nil, service.Errorf(service.KindProtocol, "reserve returned 0 for %d bytes", len(request))
	}
	if i.lie == "chatty" && len(request) == 0 {
		return abi.AppendBody(nil, abi.Response{Kind: abi.RespLog}, []byte("hello")), nil
	}
	for index := uint32(0); len(request) > 0; index++ {
		r, rest, err := abi.DecodeRequest(request)
		if err != nil {
			if i.lie != "ignores malformed" {
				i.refuse(abi.RespFault, abi.Request{}, index, abi.CodeBadFrame)
			}
			break
		}
		request = rest
		if err := i.frame(r, index); err != nil {
			return nil, err
		}
		if r.Kind > abi.ReqDescribe && i.lie == "stops at unknown kinds" {
			break
		}
	}
	if i.lie == "half a frame" && len(i.out) > 0 {
		return i.out[:len(i.out)-8], nil
	}
	return i.out, nil
}

func (i *fakeInstance) refuse(kind abi.ResponseKind, r abi.Request, index uint32, code string) {
	i.out = abi.AppendRefusal(i.out, abi.Response{Kind: kind, Slot: r.Slot, Index: index}, code, "")
}

func (i *fakeInstance) body(kind abi.ResponseKind, r abi.Request, index, aux uint32, body string) {
	slot := r.Slot
	if i.lie == "wrong slot" {
		slot++
	}
	if i.lie == "wrong index" {
		index++
	}
	i.out = abi.AppendBody(i.out, abi.Response{Kind: kind, Slot: slot, Index: index, Aux: aux}, []byte(body))
}

func (i *fakeInstance) frame(r abi.Request, index uint32) error {
	if i.lie == "strict flags" && r.Flags > 1 {
		i.refuse(abi.RespFault, r, index, abi.CodeBadFrame)
		return nil
	}
	e := i.open[r.Slot]
	switch r.Kind {
	case abi.ReqDescribe:
		m := i.Manifest()
		if i.lie == "restless manifest" {
			m.Version = strconv.Itoa(i.calls)
		}
		if i.lie == "bad manifest" {
			m.Service = "No Name"
		}
		i.body(abi.RespDescription, r, index, 0, string(m.AppendJSON(nil)))
		return nil
	case abi.ReqOpen:
		return i.opened(r, index, e)
	case abi.ReqDrop:
		if i.lie != "never drops" {
			delete(i.open, r.Slot)
		}
		if i.lie == "faults at Drop" && e == nil {
			i.refuse(abi.RespFault, r, index, abi.CodeNoEntity)
		}
		if i.lie == "answers Drop" {
			i.body(abi.RespReply, r, index, 0, "{}")
		}
		return nil
	case abi.ReqApply, abi.ReqCommand, abi.ReqQuery, abi.ReqSnapshot:
	default:
		i.refuse(abi.RespFault, r, index, abi.CodeBadFrame)
		return nil
	}
	if e == nil {
		if i.lie == "opens on demand" {
			e = &counter{}
			i.open[r.Slot] = e
		} else {
			i.refuse(abi.RespFault, r, index, abi.CodeNoEntity)
			return nil
		}
	}
	switch r.Kind {
	case abi.ReqApply:
		return i.apply(r, index, e)
	case abi.ReqCommand:
		return i.command(r, index, e)
	case abi.ReqQuery:
		q, err := abi.DecodeQuery(&r)
		switch {
		case err != nil:
			i.refuse(abi.RespFault, r, index, abi.CodeBadFrame)
		case r.Type > 0:
			i.refuse(abi.RespReject, r, index, abi.CodeUnknownType)
		default:
			if i.lie == "query writes" {
				e.N++
			}
			if i.lie == "query emits" {
				i.out = abi.AppendEvent(i.out, r.Slot, index, 0, nil, nil)
			}
			if i.lie == "echoes trailing" && len(r.Payload) > 8+len(q.Body) {
				e.hide++
			}
			i.body(abi.RespReply, r, index, 0, fmt.Sprintf(`{"n":%d}`, e.N+e.hide))
		}
	case abi.ReqSnapshot:
		shown := *e
		if i.lie == "differs for a while" && e.live > 2 && e.live < 5 {
			shown.N++
		}
		b, _ := json.Marshal(shown)
		if i.lie == "no snapshot" {
			return nil
		}
		if i.lie == "odd snapshot" {
			b = append(b, ' ')
		}
		i.body(abi.RespSnapshot, r, index, 0, string(b))
	}
	return nil
}

func (i *fakeInstance) opened(r abi.Request, index uint32, e *counter) error {
	o, err := abi.DecodeOpen(&r)
	fresh := &counter{}
	if err == nil && o.Snapshot != nil {
		err = json.Unmarshal(o.Snapshot, fresh)
		if i.lie == "odd snapshot" {
			fresh.N++
		}
	}
	if err != nil {
		i.refuse(abi.RespFault, r, index, abi.CodeBadSnapshot)
		return nil
	}
	if e == nil || i.lie != "keeps the opened" {
		i.open[r.Slot] = fresh
	}
	return nil
}

func (i *fakeInstance) apply(r abi.Request, index uint32, e *counter) error {
	a, err := abi.DecodeApply(&r)
	var body struct{ By int }
	switch {
	case err != nil:
		i.refuse(abi.RespFault, r, index, abi.CodeBadFrame)
	case r.Type > 0 && i.lie == "applies anything":
	case r.Type > 0:
		i.refuse(abi.RespFault, r, index, abi.CodeUnknownType)
	case json.Unmarshal(a.Body, &body) != nil:
		i.refuse(abi.RespFault, r, index, abi.CodeBadEvent)
	default:
		e.N += body.By
		e.apply(r.Version, r.Time, a.Metadata)
		i.forget(e)
	}
	return nil
}

// apply notes what an event was applied with, besides its data.
func (e *counter) apply(version, time uint64, m abi.Metadata) {
	e.Last = fmt.Sprint(version, time, string(m))
}

// forget makes an event do something else if the event before it was in a snapshot.
func (i *fakeInstance) forget(e *counter) {
	if e.runs++; i.lie == "forgets by snapshot" && e.runs > 1 && e.runs < 4 {
		e.N++
	}
}

func (i *fakeInstance) command(r abi.Request, index uint32, e *counter) error {
	c, err := abi.DecodeCommand(&r)
	var body struct{ By int }
	switch {
	case err != nil:
		i.refuse(abi.RespFault, r, index, abi.CodeBadFrame)
		return nil
	case r.Type > 1 && i.lie == "traps on unknown types":
		return service.Errorf(service.KindTrap, "unreachable")
	case r.Type > 1:
		i.refuse(abi.RespReject, r, index, abi.CodeUnknownType)
		return nil
	case json.Unmarshal(c.Body, &body) != nil:
		if i.lie == "traps on garbage" {
			return service.Errorf(service.KindTrap, "out of bounds memory access")
		}
		i.refuse(abi.RespReject, r, index, abi.CodeBadCommand)
		return nil
	case r.Type == 1 && i.lie == "spaced code":
		i.refuse(abi.RespReject, r, index, "not so")
		return nil
	case r.Type == 1:
		if i.lie == "rejecting writes" {
			e.N++
		}
		if i.lie == "rejects after an event" {
			i.out = abi.AppendEvent(i.out, r.Slot, index, 0, []byte(`{}`), nil)
		}
		i.refuse(abi.RespReject, r, index, "no")
		return nil
	}
	i.total += body.By
	event, typ, aux := fmt.Sprintf(`{"by":%d}`, body.By), uint16(0), uint32(1)
	e.N += body.By
	e.live++
	version, time, metadata := r.Version+1, r.Time, abi.Metadata(nil).AppendPair("id", string(c.ID))
	switch i.lie {
	case "applies at another version":
		version = r.Version
	case "applies at another time":
		time++
	case "applies without metadata":
		metadata = nil
	case "applies with the command's metadata":
		metadata = c.Metadata
	}
	e.apply(version, time, metadata)
	i.forget(e)
	switch i.lie {
	case "no JSON":
		event = "by 5"
	case "hidden state":
		e.hide++
	case "changes without event":
		e.N++
	case "sum of all":
		e.N = i.total
	case "ambient randomness":
		event = fmt.Sprintf(`{"by":%d,"salt":%d}`, body.By, i.started)
	case "wrong count":
		aux = 2
	case "unknown event":
		typ = 1
	}
	i.out = abi.AppendEvent(i.out, r.Slot, index, typ, []byte(event),
		abi.Metadata(nil).AppendPair("id", string(c.ID)))
	if i.lie == "no terminal" {
		return nil
	}
	if i.lie == "effect" {
		b, at := abi.BeginBody(i.out)
		i.out = abi.EndBody(b, at, abi.Response{Kind: abi.RespEffect, Slot: r.Slot, Index: index})
	}
	i.body(abi.RespReply, r, index, aux, fmt.Sprintf(`{"n":%d}`, e.N))
	if i.lie == "two terminals" {
		i.body(abi.RespReply, r, index, aux, `{}`)
	}
	return nil
}
