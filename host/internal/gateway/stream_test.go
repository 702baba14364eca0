package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func (s *site) stream() *client.Stream {
	s.Helper()
	st, err := s.client.Stream(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { st.Close() })
	return st
}

func (s *site) add(n int) {
	s.Helper()
	for i := range n {
		if _, err := s.client.Send(s.Context(), service.Command{Service: "bank",
			Key: service.Key(fmt.Sprintf("k%d", i%3)), Type: "add", Data: fmt.Appendf(nil, "%d", i)}); err != nil {
			s.Fatal(err)
		}
	}
}

func TestStreamCommands(t *testing.T) {
	s := start(t, Options{})
	st := s.stream()
	zero := service.Version(0)
	r, err := st.Send(t.Context(), service.Command{
		Service: "bank", Key: "a/\"b", Type: "add", ID: "id-1", Data: []byte(`{"n": 1}`), Expected: &zero,
		Metadata: abi.Metadata(nil).AppendPair("actor", "té"), Deadline: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Service != "bank" || r.Key != "a/\"b" || r.CommandID != "id-1" || string(r.Data) != `{"ok":true}` || r.Version != 1 || r.Position != 1 || r.Events != 1 || r.Fuel != 7 {
		t.Errorf("reply %+v", r)
	}
	c := s.fake.seen[0]
	if v, _ := c.Metadata.Get("actor"); string(v) != "té" || string(c.Data) != `{"n": 1}` || c.Expected == nil || c.Deadline.IsZero() {
		t.Errorf("command %+v", c)
	}
	q, err := st.Query(t.Context(), service.Query{Service: "bank", Key: "a/\"b", Type: "look"})
	if err != nil || string(q.Data) != `{"ok":true}` || q.Version != 1 {
		t.Errorf("query %+v %v", q, err)
	}
	r, err = st.Send(t.Context(), service.Command{Service: "blob", Key: "k", Type: "binary", Data: []byte{0xff, 0}})
	if err != nil || string(r.Data) != "\xff\"}" {
		t.Errorf("reply %+v %v", r, err)
	}
	if d := s.fake.seen[2].Data; string(d) != "\xff\x00" {
		t.Errorf("data %q", d)
	}
	for typ, kind := range map[service.Type]service.Kind{"reject": service.KindRejected,
		"refuse": service.KindOverloaded, "nothing": service.KindUnknownType,
		"fail-unknown_outcome": service.KindUnknown, "fail-trap": service.KindTrap,
		"fail-internal": service.KindInternal} {
		_, err := st.Send(t.Context(), service.Command{Service: "bank", Key: "k", Type: typ})
		if service.KindOf(err) != kind || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", typ, err)
		}
	}
	if _, err := st.Query(t.Context(), service.Query{Service: "bank", Key: "k", Type: "reject"}); service.KindOf(
		err) != service.KindRejected {
		t.Error(err)
	}
	if _, err := st.Send(t.Context(), service.Command{Service: "bank", Key: "..", Type: "add"}); service.KindOf(
		err) != service.KindInvalid {
		t.Error(err)
	}
	if _, err := st.Send(t.Context(), service.Command{Service: "bank", Key: "k", Type: "add",
		Deadline: time.Unix(1, 0)}); service.KindOf(err) != service.KindDeadline {
		t.Error(err)
	}
}

func TestStreamManyAtOnce(t *testing.T) {
	s := start(t, Options{InFlight: 16})
	st := s.stream()
	var wait sync.WaitGroup
	for g := range 64 {
		wait.Go(func() {
			for i := range 50 {
				id := service.CommandID(fmt.Sprintf("%d-%d", g, i))
				r, err := st.Send(t.Context(), service.Command{Service: "bank", Key: "k", Type: "add", ID: id})
				if err != nil || r.CommandID != id {
					t.Errorf("%s: %+v %v", id, r, err)
					return
				}
			}
		})
	}
	wait.Wait()
	if head := s.fake.services["bank"].status.Head; head != 64*50 {
		t.Errorf("%d events", head)
	}
}

// More requests in flight than the connection may have are refused, each with an answer.
func TestStreamInFlight(t *testing.T) {
	s := start(t, Options{InFlight: 2})
	ws := s.raw("/v1/stream", api.ProtocolStream)
	for i := range 4 {
		say(t, ws, `{"op":"command","id":"%d","service":"bank","key":"k","type":"slow"}`, i)
	}
	for range 2 {
		if m := hear(t, ws); m.Op != api.OpError || m.Problem.Kind != "overloaded" || m.Problem.RetryAfterMS == 0 ||
			m.ID != "2" && m.ID != "3" {
			t.Errorf("message %+v", m)
		}
	}
	close(s.fake.gate)
	for range 2 {
		if m := hear(t, ws); m.Op != api.OpReply || m.ID != "0" && m.ID != "1" {
			t.Errorf("message %+v", m)
		}
	}
}

// raw dials and reads the hello.
func (s *site) raw(path string, protocol string) *websocket.Conn {
	s.Helper()
	ws, _, err := dial(s, path, nil, protocol)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(2 * time.Minute)) // no test takes that long
	if protocol == api.ProtocolStream {
		if m := hear(s.T, ws); m.Op != api.OpHello || m.Protocol != api.ProtocolStream || m.Limits.InFlight == 0 {
			s.Fatalf("hello %+v", m)
		}
	}
	return ws
}

func say(t *testing.T, ws *websocket.Conn, format string, args ...any) {
	t.Helper()
	if err := ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...)); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, ws *websocket.Conn) (m api.ServerMessage) {
	t.Helper()
	kind, text, err := ws.ReadMessage()
	if err != nil || kind != websocket.TextMessage {
		t.Fatalf("kind %d: %v", kind, err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return m
}

// An invalid message is answered; the connection goes on.
func TestStreamRefusals(t *testing.T) {
	s := start(t, Options{Subscriptions: 1, Credits: 100})
	ws := s.raw("/v1/stream", api.ProtocolStream)
	say(t, ws, `{"op":"subscribe","id":"s","service":"bank"}`)
	if m := hear(t, ws); m.Op != api.OpSubscribed || m.ID != "s" || m.Cursor != cursorOf("bank", 0) {
		t.Fatalf("message %+v", m)
	}
	for _, tt := range []struct{ id, kind, text string }{
		{"", "invalid", `x`}, {"", "invalid", ``}, {"", "invalid", `[]`}, {"", "invalid", `{"op":"ping"} {}`}, {"", "invalid", strings.Repeat("[", 20_000)},
		{"1", "invalid", `{"id":"1","op":"query","data":` + strings.Repeat(`{"a":`, 20_000) + `1` + strings.Repeat("}", 20_000) + `}`},
		{"1", "unsupported", `{"op":"dance","id":"1"}`}, {"", "unsupported", `{}`}, {"1", "invalid", `{"id":"1","op":"command","expected_verison":1}`},
		{"", "invalid", `{"op":"command","service":"bank","key":"k","type":"add"}`},
		{"", "invalid", `{"op":"ping","id":"` + strings.Repeat("i", 129) + `"}`},
		{"1", "invalid", `{"op":"command","id":"1","service":"Bank","key":"k","type":"add"}`},
		{"1", "invalid", `{"op":"command","id":"1","service":"bank","key":"","type":"add"}`},
		{"1", "invalid", `{"op":"command","id":"1","service":"bank","key":"\u0000","type":"add"}`},
		{"1", "invalid", `{"op":"command","id":"1","service":"bank","key":"k","type":"a/b"}`},
		{"1", "invalid", `{"op":"command","id":"1","service":"bank","key":"k","type":"add","command_id":"a b"}`},
		{"1", "invalid", `{"op":"command","id":"1","service":"bank","key":"k","type":"add","data":1,"data_base64":"AA=="}`},
		{"1", "invalid", `{"op":"command","id":"1","service":"bank","key":"k","type":"add","metadata":{"a":1}}`},
		{"1", "invalid", `{"op":"command","id":"1","service":"bank","key":"k","type":"add","data_base64":"ew=="}`},
		{"1", "invalid", `{"op":"subscribe","id":"1","service":"bank","key":"k"}`},
		{"1", "invalid", `{"op":"query","id":"1","service":"bank","key":"k","type":"look","expected_version":1}`},
		{"1", "invalid", `{"op":"credit","id":"1","credits":-1}`},
		{"1", "deadline_exceeded", `{"op":"command","id":"1","service":"bank","key":"k","type":"add","timeout_ms":0}`},
		{"1", "not_found", `{"op":"command","id":"1","service":"none","key":"k","type":"add"}`},
		{"1", "not_found", `{"op":"query","id":"1","service":"none","key":"k","type":"look"}`},
		{"1", "not_found", `{"op":"query","id":"1","service":"none","key":"k","type":"look","data_base64":"ew=="}`},
		{"1", "not_found", `{"op":"credit","id":"1","credits":1}`}, {"1", "not_found", `{"op":"unsubscribe","id":"1"}`},
		{"s", "invalid", `{"op":"subscribe","id":"s","service":"bank"}`}, {"t", "overloaded", `{"op":"subscribe","id":"t","service":"bank"}`},
		{"s", "invalid", `{"op":"credit","id":"s","credits":101}`}, {"s", "invalid", `{"op":"credit","id":"s","credits":18446744073709551615}`},
	} {
		say(t, ws, "%s", tt.text)
		m := hear(t, ws)
		if m.Op != api.OpError || m.ID != tt.id || m.Problem == nil || m.Problem.Kind != tt.kind {
			t.Errorf("%.80s: %+v %+v", tt.text, m, m.Problem)
		}
	}
	say(t, ws, `{"op":"unsubscribe","id":"s"}`)
	if m := hear(t, ws); m.Op != api.OpUnsubscribed || m.ID != "s" || m.Problem != nil {
		t.Errorf("message %+v", m)
	}
	for text, kind := range map[string]string{`"from":"garbage"`: "bad_cursor", `"from":"0"`: "invalid", `"from":"-1w"`: "invalid", `"from":"` + cursorOf("bank", 9) + `"`: "bad_cursor", `"types":["a b"]`: "invalid", `"keys":[".."]`: "invalid", `"credits":101`: "invalid"} {
		say(t, ws, `{"op":"subscribe","id":"t","service":"bank",%s}`, text)
		if m := hear(t, ws); m.Op != api.OpError || m.ID != "t" || m.Problem.Kind != kind {
			t.Errorf("%s: %+v", text, m)
		}
	}
	say(t, ws, `{"op":"ping","id":"p"}`)
	if m := hear(t, ws); m.Op != api.OpPong || m.ID != "p" {
		t.Errorf("message %+v", m)
	}
	if head := s.fake.services["bank"].status.Head; head != 0 {
		t.Errorf("%d events were written", head)
	}
}

func TestSubscription(t *testing.T) {
	s := start(t, Options{})
	st := s.stream()
	s.add(10)
	sub, err := st.Subscribe(t.Context(), service.Selection{Service: "bank", Keys: []service.Key{"k0", "k1"}}, 3)
	if err != nil {
		t.Fatal(err)
	}
	end, err := st.Subscribe(t.Context(), service.Selection{Service: "bank", From: service.From{Kind: service.FromEnd}},
		100)
	if err != nil || end.Cursor() != cursorOf("bank", 10) {
		t.Fatal(err, end)
	}
	var last client.Event
	for i, want := range []service.Position{1, 2, 4, 5, 7, 8, 10} {
		if last, err = sub.Next(t.Context()); err != nil || last.Position != want {
			t.Fatalf("event %d: %+v %v", i, last, err)
		}
	}
	s.add(2)
	if e, err := end.Next(t.Context()); err != nil || e.Position != 11 || string(e.Data) != "0" {
		t.Errorf("%+v %v", e, err)
	}
	resumed, err := st.Subscribe(t.Context(), service.Selection{Service: "bank", From: service.AfterCursor(last.ID)}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := resumed.Next(t.Context()); err != nil || e.Position != 11 {
		t.Errorf("%+v %v", e, err)
	}
	if err := sub.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := sub.Next(t.Context()); service.KindOf(err) != service.KindCanceled {
		t.Error(err)
	}
	// The end of its service ends a subscription, with the reason.
	if err := s.client.Delete(t.Context(), "bank"); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err = resumed.Next(t.Context()); err != nil {
			break
		}
	}
	if service.KindOf(err) != service.KindNotFound {
		t.Error(err)
	}
}

// A subscription gets no more than it has granted.
func TestCredits(t *testing.T) {
	s := start(t, Options{})
	s.add(10)
	ws := s.raw("/v1/stream", api.ProtocolStream)
	say(t, ws, `{"op":"subscribe","id":"s","service":"bank","credits":2}`)
	ops := func(n int) (ops []string) {
		for range n {
			m := hear(t, ws)
			op := string(m.Op)
			if m.Op == api.OpEvent {
				e, err := api.DecodeEvent(m.Event)
				if err != nil || m.Sub != "s" {
					t.Errorf("message %+v %v", m, err)
				}
				op = fmt.Sprint(e.Position)
			}
			ops = append(ops, op)
		}
		return ops
	}
	if got := ops(3); fmt.Sprint(got) != "[subscribed 1 2]" {
		t.Error(got)
	}
	say(t, ws, `{"op":"ping"}`)
	if got := ops(1); got[0] != "pong" {
		t.Error(got)
	}
	say(t, ws, `{"op":"credit","id":"s","credits":3}`)
	if got := ops(3); fmt.Sprint(got) != "[3 4 5]" {
		t.Error(got)
	}
	say(t, ws, `{"op":"unsubscribe","id":"s"}`)
	if got := ops(1); got[0] != "unsubscribed" {
		t.Error(got)
	}
}

func TestCloudEvents(t *testing.T) {
	s := start(t, Options{PingTime: time.Second / 2}) // two lost pings and a second more of silence are allowed
	s.add(3)
	ws := s.raw("/v1/services/bank/events?keys=k1", api.ProtocolCloudEvents)
	if ws.Subprotocol() != api.ProtocolCloudEvents {
		t.Error(ws.Subprotocol())
	}
	read := func() api.Event {
		t.Helper()
		_, text, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		e, err := api.DecodeCloudEvent(text)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if p := read().Position; p != 2 {
		t.Errorf("position %d", p)
	}
	// The id of the last event seen takes precedence over from, as with server-sent events.
	resumed, _, err := dial(s, "/v1/services/bank/events?from=start",
		http.Header{api.HeaderLastEventID: {cursorOf("bank", 2)}})
	if err != nil {
		t.Fatal(err)
	}
	defer resumed.Close()
	if _, text, err := resumed.ReadMessage(); err != nil || !strings.Contains(string(text), `"position":"3"`) {
		t.Errorf("resumed with %s, %v", text, err)
	}
	pinged := make(chan struct{}, 100)
	pong := ws.PingHandler()
	ws.SetPingHandler(func(text string) error { pinged <- struct{}{}; return pong(text) })
	go func() {
		<-pinged
		s.fake.carryOut(context.Background(), service.Command{Service: "bank", Key: "k1", Type: "add"})
	}()
	// Without events it sends how far it has read, past events that are not selected.
	if c := read(); c.Type != api.TypeCheckpoint || c.ID != cursorOf("bank", 3) ||
		c.Source != "/services/bank/checkpoints" || c.Time.IsZero() {
		t.Errorf("a checkpoint is %+v", c)
	}
	if p := read().Position; p != 4 {
		t.Errorf("position %d", p)
	}
	if err := s.client.Delete(t.Context(), "bank"); err != nil {
		t.Fatal(err)
	}
	_, _, err = ws.ReadMessage()
	var c *websocket.CloseError
	if !errors.As(err, &c) || c.Code != websocket.CloseInternalServerErr || !strings.HasPrefix(c.Text, "not_found") {
		t.Error(err)
	}
	if _, status, err := dial(s, "/v1/services/blob/events", nil, "other"); err == nil || status != 400 {
		t.Errorf("another subprotocol: %d %v", status, err)
	}
	if _, status, err := dial(s, "/v1/services/blob/events?from="+cursorOf("bank", 1), nil); err == nil ||
		status != 400 {
		t.Errorf("another service's cursor: %d %v", status, err)
	}
}

// A client with a narrow filter learns how far it has read, so that it need not read all of that again.
func TestSSETellsWhatWasPassedBy(t *testing.T) {
	s := start(t, Options{PingTime: time.Millisecond})
	s.add(3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", s.server.URL()+"/v1/services/bank/events?from=start&keys=nobody",
		nil)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got []string
	for lines := bufio.NewScanner(resp.Body); len(got) < 4 && lines.Scan(); {
		if lines.Text() != "" {
			got = append(got, lines.Text())
		}
	}
	if want := []string{"retry: 1000", "id: " + cursorOf("bank", 0), "id: " + cursorOf("bank", 3),
		": "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSSE(t *testing.T) {
	s := start(t, Options{PingTime: 10 * time.Millisecond})
	s.add(3)
	s.fake.mu.Lock()
	s.fake.services["bank"].append("k9", "", 1, "{\r\n\"a\":\n1\r}") // JSON with line breaks
	s.fake.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", s.server.URL()+"/v1/services/bank/events?from=start", nil)
	req.Header.Set("Accept", "text/html, text/event-stream;q=0.9")
	req.Header.Set("Last-Event-ID", cursorOf("bank", 2))
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") != api.ContentSSE {
		t.Fatalf("header %v", resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	var text strings.Builder
	for pings := 0; pings < 2 && lines.Scan(); { // pings go on after the events
		switch {
		case !strings.HasPrefix(lines.Text(), ":"):
			text.WriteString(lines.Text() + "\n")
		case strings.Contains(text.String(), "id: "+cursorOf("bank", 4)+"\n"):
			pings++
		}
	}
	for _, want := range []string{"retry: 1000\nid: " + cursorOf("bank", 2) + "\n\nid: " + cursorOf("bank", 3) + "\ndata: {", "\n\nid: " + cursorOf("bank", 4) + "\ndata: {", `"data":{"a":1},`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in %q", want, text.String())
		}
	}
	cancel()
	// An id is only that: a text that is a place in from could be mistaken for another event's id.
	for _, last := range []string{cursorOf("bank", 99), "1", "end", "-1h", "2026-01-31T08:00:00Z"} {
		for _, path := range []string{"/v1/services/bank/events", "/v1/services/bank/entities/k1/events"} {
			s.problem(s.do("GET", path, "", "Accept", "text/event-stream", "Last-Event-ID", last), 400, "bad_cursor")
		}
	}
}

func TestFollow(t *testing.T) {
	s := start(t, Options{})
	s.add(5)
	done := errors.New("enough")
	var seen []string
	err := s.client.Follow(t.Context(), service.Selection{Service: "bank"}, func(e client.Event) error {
		seen = append(seen, fmt.Sprint(e.Position))
		if e.Position == 5 {
			s.add(1)
		}
		if e.Position == 6 {
			return done
		}
		return nil
	})
	if err != done || strings.Join(seen, " ") != "1 2 3 4 5 6" {
		t.Errorf("%v %v", seen, err)
	}
}

func TestTooManyStreams(t *testing.T) {
	s := start(t, Options{Streams: 1})
	s.raw("/v1/stream", api.ProtocolStream)
	if _, status, err := dial(s, "/v1/stream", nil); err == nil || status != 503 {
		t.Errorf("%d %v", status, err)
	}
	s.problem(s.do("GET", "/v1/services/bank/events", "", "Accept", "text/event-stream"), 503, "overloaded")
}
