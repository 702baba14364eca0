package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// against is a client of a server that answers with handle.
func against(t *testing.T, handle http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(handle)
	c, err := New(Options{URL: s.URL + "/behind/a/proxy/", Token: "the token", Retries: 3, Backoff: time.Microsecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c
}

var cmd = service.Command{Service: "bank", Key: "a/b", Type: "add", ID: `i"d`}

func TestRequests(t *testing.T) {
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != "/behind/a/proxy/v1/services/bank/entities/a%2Fb/commands/add" ||
			r.Header.Get("Authorization") != "Bearer the token" ||
			r.Header.Get("Idempotency-Key") != `"i\"d"` || r.Header.Get("Bulkhead-Deadline-Ms") == "" {
			t.Errorf("%s %v", r.URL, r.Header)
		}
		fmt.Fprint(w, `{"service":"bank","key":"a/b","reply_base64":"/w==","version":3}`)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if r, err := c.Send(ctx, cmd); err != nil || r.Version != 3 || string(r.Data) != "\xff" {
		t.Errorf("%+v %v", r, err)
	}
	for _, bad := range []string{"", "localhost:8080", "ftp://x", "http://", "://"} {
		if _, err := New(Options{URL: bad}); service.KindOf(err) != service.KindInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// If the answer to a command does not come, the error depends on whether the command may have arrived.
func TestBrokenConnections(t *testing.T) {
	hangUp := against(t, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := hangUp.Send(t.Context(), cmd); service.KindOf(err) != service.KindUnknown {
		t.Errorf("hung up: %v", err)
	}
	if _, err := hangUp.Services(t.Context(), false); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("hung up: %v", err)
	}
	if _, err := hangUp.Stream(t.Context()); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("hung up: %v", err)
	}
	half := against(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, `{"service":`)
	})
	if _, err := half.Send(t.Context(), cmd); service.KindOf(err) != service.KindUnknown {
		t.Errorf("half an answer: %v", err)
	}
	if _, err := half.Deploy(t.Context(), service.Deployment{Service: "bank"}); service.KindOf(
		err) != service.KindUnknown {
		t.Errorf("half a deployment: %v", err)
	}
	strange := against(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") })
	if _, err := strange.Send(t.Context(), cmd); service.KindOf(err) != service.KindUnknown {
		t.Errorf("a strange answer: %v", err)
	}
	proxy := against(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) })
	if _, err := proxy.Send(t.Context(), cmd); service.KindOf(err) != service.KindUnknown {
		t.Errorf("a proxy's answer: %v", err)
	}
	away := against(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
	})
	if _, err := away.Send(t.Context(), cmd); err == nil {
		t.Error("followed a redirect")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken, err := net.Dial("tcp", l.Addr().String()) // so no one can listen on the port of its own end
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	nobody, err := New(Options{URL: "http://" + taken.LocalAddr().String(), Retries: 2, Backoff: time.Microsecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.Send(t.Context(), cmd); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("nobody there: %v", err)
	}
	if err := nobody.Follow(t.Context(), service.Selection{Service: "bank"},
		nil); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("nobody there: %v", err)
	}
	silent, arrived := make(chan struct{}), make(chan struct{})
	hangs := against(t, func(w http.ResponseWriter, r *http.Request) { arrived <- struct{}{}; <-silent })
	defer close(silent)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := hangs.Send(ctx, cmd); service.KindOf(err) != service.KindUnknown {
		t.Errorf("given up after it was sent: %v", err)
	}
	if _, err := hangs.Send(ctx, cmd); service.KindOf(err) != service.KindCanceled {
		t.Errorf("given up before it was sent: %v", err)
	}
	ctx, cancel = context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	if _, err := hangs.Services(ctx, false); service.KindOf(err) != service.KindDeadline {
		t.Errorf("too late: %v", err)
	}
}

func event(n int) string {
	return fmt.Sprintf("id: c%d\ndata: {\"specversion\":\"1.0\",\"position\":\"%d\"}\n\n", n, n)
}

// Each connection returns two events and breaks in the middle of a third, which comes complete with the next.
func TestFollowResumes(t *testing.T) {
	var tries atomic.Int64
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		n := 0
		if last := r.Header.Get("Last-Event-Id"); last != "" {
			if _, err := fmt.Sscanf(last, "c%d", &n); err != nil {
				t.Error(err)
			}
		}
		if r.URL.Query().Get("keys") != "a,b" {
			t.Errorf("query %s", r.URL.RawQuery)
		}
		if tries.Add(1)%3 == 0 {
			w.WriteHeader(503)
			return
		}
		io.WriteString(w, ": hello\r\nretry: 5\n\n"+event(n+1)+event(n+2)+strings.TrimSuffix(event(n+3), "\n"))
	})
	want := service.Position(1)
	enough := errors.New("enough")
	err := c.Follow(t.Context(), service.Selection{Service: "bank", Keys: []service.Key{"a,b"}}, func(e Event) error {
		if e.Position != want {
			t.Errorf("position %d; want %d", e.Position, want)
		}
		if want++; want > 20 {
			return enough
		}
		return nil
	})
	if err != enough {
		t.Error(err)
	}
}

func TestFollowEnds(t *testing.T) {
	var tries atomic.Int64
	problem := `{"kind":"not_found","detail":"gone"}`
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		switch tries.Add(1) {
		case 1: // a comment within the stream
			io.WriteString(w, "event: problem\ndata: "+problem+"\n\n")
		case 2: // a refusal
			w.Header().Set("Content-Type", api.ContentProblem)
			w.WriteHeader(404)
			io.WriteString(w, problem)
		case 3: // an invalid event
			io.WriteString(w, "data: nonsense\n\n")
		default: // nothing, again and again
		}
	})
	for i, kind := range []service.Kind{service.KindNotFound, service.KindNotFound, service.KindInternal,
		service.KindUnavailable} {
		if err := c.Follow(t.Context(), service.Selection{Service: "bank"},
			func(Event) error { return nil }); service.KindOf(err) != kind {
			t.Errorf("%d: %v", i, err)
		}
	}
	if n := tries.Load(); n != 3+1+3 {
		t.Errorf("%d tries", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Follow(ctx, service.Selection{Service: "bank"}, nil); service.KindOf(err) != service.KindCanceled {
		t.Error(err)
	}
}

// A server that breaks the protocol ends the stream, and everything that waits gets an error.
func TestStreamOfAStrangeServer(t *testing.T) {
	for name, tt := range map[string]struct {
		hello, answer string
		kind          service.Kind
	}{
		"no hello":          {`{"op":"pong"}`, "", service.KindUnavailable},
		"no JSON":           {"hello", "", service.KindUnavailable},
		"garbage later":     {hello, "garbage", service.KindUnknown},
		"an error for all":  {hello, `{"op":"error","problem":{"kind":"invalid"}}`, service.KindUnknown},
		"unasked answers":   {hello, `{"op":"reply","id":"zz"}`, service.KindUnknown}, // ignored; then it closes the connection
		"events of nothing": {hello, `{"op":"event","sub":"zz","event":{}}`, service.KindUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			c := against(t, func(w http.ResponseWriter, r *http.Request) {
				u := websocket.Upgrader{Subprotocols: []string{api.ProtocolStream}}
				ws, err := u.Upgrade(w, r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer ws.Close()
				_ = ws.WriteMessage(websocket.TextMessage, []byte(tt.hello))
				if _, _, err := ws.ReadMessage(); err == nil {
					_ = ws.WriteMessage(websocket.TextMessage, []byte(tt.answer))
				}
			})
			s, err := c.Stream(t.Context())
			if err == nil {
				_, err = s.Send(t.Context(), cmd)
				<-s.Done()
				if _, later := s.Send(t.Context(), cmd); service.KindOf(later) != service.KindUnavailable {
					t.Errorf("after the end: %v", later)
				}
				s.Close()
			}
			if service.KindOf(err) != tt.kind {
				t.Errorf("%v; want %s", err, tt.kind)
			}
		})
	}
}

const hello = `{"op":"hello","protocol":"bulkhead.v1.json","limits":{"message_bytes":1000,"in_flight":10,"subscriptions":1,"credits":10}}`

// A server that sends more than it was granted takes no more memory.
func TestTooManyEvents(t *testing.T) {
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		u := websocket.Upgrader{Subprotocols: []string{api.ProtocolStream}}
		ws, err := u.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.Close()
		_ = ws.WriteMessage(websocket.TextMessage, []byte(hello))
		_, _, _ = ws.ReadMessage()
		_ = ws.WriteMessage(websocket.TextMessage, []byte(`{"op":"subscribed","id":"1","cursor":"c0"}`))
		for range 5 {
			_ = ws.WriteMessage(websocket.TextMessage, []byte(`{"op":"event","sub":"1","event":{}}`))
		}
		_, _, _ = ws.ReadMessage()
	})
	s, err := c.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Subscribe(t.Context(), service.Selection{Service: "bank"},
		11); service.KindOf(err) != service.KindInvalid {
		t.Error(err)
	}
	if _, err := s.Subscribe(t.Context(), service.Selection{Service: "bank"}, 2); err != nil {
		t.Error(err)
	}
	<-s.Done()
	if !strings.Contains(s.Err().Error(), "more events than it was granted") {
		t.Error(s.Err())
	}
}

// Events that were in flight when a subscription was closed are not returned later.
func TestNothingAfterClose(t *testing.T) {
	for range 100 { // if both are ready, either may be taken first
		s := &Stream{out: make(chan []byte, 1), closing: make(chan struct{})}
		sub := &Subscription{stream: s, window: 3, events: make(chan json.RawMessage, 3), ended: make(chan struct{})}
		for range 2 {
			if err := sub.take(&api.ServerMessage{Op: api.OpEvent, Event: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
		}
		if err := sub.take(&api.ServerMessage{Op: api.OpUnsubscribed}); err != nil {
			t.Fatal(err)
		}
		if err := sub.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if e, err := sub.Next(t.Context()); service.KindOf(err) != service.KindCanceled {
			t.Fatalf("%+v, %v", e, err)
		}
	}
}

func FuzzSSEReader(f *testing.F) {
	f.Add([]byte(": c\n\nid: 1\ndata: a\ndata: b\n\nevent: problem\ndata\n\n"))
	f.Add([]byte("data: a\r\n\r\n\n\nid\n\n"))
	f.Add(bytes.Repeat([]byte("x"), 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := sseReader{r: bufio.NewReaderSize(bytes.NewReader(b), 16)}
		for range len(b) + 1 {
			m, err := r.next()
			if err != nil {
				return
			}
			if m.data == nil && m.id == "" && !bytes.Contains(b, []byte("id")) && !bytes.Contains(b, []byte("data")) {
				t.Fatalf("%q gives %+v", b, m)
			}
		}
		t.Fatalf("%q gives more messages than it has bytes", b)
	})
}
