package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/streams"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// late is a host whose log is slow to read: each read goes on until the context ends, and advances by one.
type late struct {
	reader
	comesOn bool
}

func (l *late) Events(ctx context.Context, s service.Selection, _ int) (service.Page, error) {
	if after(&s) > 0 || !l.comesOn {
		<-ctx.Done()
		return service.Page{}, ctx.Err()
	}
	return service.Page{Next: after(&s) + 7}, nil
}

// A page that is not full in time ends with the cursor that it has reached; if it has reached none, the
// request fails.
func TestAPageEndsInTime(t *testing.T) {
	for _, comesOn := range []bool{true, false} {
		s := start(t, Options{RequestTime: 50 * time.Millisecond})
		s.server.reader = &late{s.fake, comesOn}
		r := s.do("GET", "/v1/services/bank/events?keys=nobody", "")
		if !comesOn {
			s.problem(r, http.StatusGatewayTimeout, "deadline_exceeded")
			continue
		}
		page := decode[api.Page](s, r)
		if r.status != http.StatusOK || len(page.Events) != 0 || !page.More || page.Next != cursorOf("bank", 7) {
			t.Errorf("%d: %+v", r.status, page)
		}
	}
}

// The memory of a subscription's filter is counted as long as it lasts, on streams of every kind. A filter
// that does not fit is refused by name.
func TestFiltersAreCounted(t *testing.T) {
	var keys []string
	for i := range streams.MaxFilter {
		keys = append(keys, fmt.Sprintf("%0*d", abi.MaxKeySize, i))
	}
	list, _ := json.Marshal(keys)
	size := int64(streams.MaxFilter * 2 * abi.MaxKeySize)

	s := startWithin(t, little, within())
	ws := s.raw("/v1/stream", api.ProtocolStream)
	say(t, ws, `{"op":"ping","id":"p"}`)
	hear(t, ws)
	before, _ := s.used()
	say(t, ws, `{"op":"subscribe","id":"1","service":"bank","keys":%s}`, list)
	if m := hear(t, ws); m.Op != api.OpSubscribed {
		t.Fatalf("%+v %+v", m, m.Problem)
	}
	if now, _ := s.used(); now-before < size {
		t.Errorf("a subscription with %d bytes of keys takes %d", size/2, now-before)
	}
	say(t, ws, `{"op":"unsubscribe","id":"1"}`)
	if m := hear(t, ws); m.Op != api.OpUnsubscribed {
		t.Fatalf("%+v %+v", m, m.Problem)
	}
	s.until("the subscription gives back what it held", func() bool { now, _ := s.used(); return now < before+size/2 })

	refused := 0
	for i := range 64 {
		say(t, ws, `{"op":"subscribe","id":"%d","service":"bank","keys":%s}`, i, list)
		m := hear(t, ws)
		switch {
		case m.Op == api.OpSubscribed && refused == 0:
		case m.Op == api.OpError && m.Problem.Kind == "overloaded" && m.Problem.Resource == "bytes_in_flight":
			refused++
		default:
			t.Fatalf("%+v %+v", m, m.Problem)
		}
	}
	if refused == 0 {
		t.Error("as many subscriptions as may be, with the longest filters, fit into little")
	}
	ws.Close()
	s.until("the connection gives back what it held", func() bool { now, _ := s.used(); return now < size })

	held := int64(flight.StreamBytes + flight.ReaderRoom(&service.Selection{}) + 20*2*abi.MaxKeySize)
	query := "/v1/services/bank/events?keys=" + strings.Join(keys[:20], ",")
	a := s.attacker()
	a.put("GET " + query + " HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
	s.until("server-sent events take their filter", func() bool {
		now, _ := s.used()
		return now >= held
	})
	a.Close()
	s.until("they give it back", func() bool { now, _ := s.used(); return now < size/2 })
	ws = s.raw(query, api.ProtocolCloudEvents)
	s.until("CloudEvents take their filter", func() bool {
		now, _ := s.used()
		return now >= held
	})
	ws.Close()
}
