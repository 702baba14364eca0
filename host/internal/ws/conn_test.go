package ws

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const wait = 10 * time.Second

// serve answers each request with a WebSocket, and dials one.
func serve(t *testing.T, o AcceptOptions, handle func(*Conn)) *Conn {
	t.Helper()
	done := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		c, err := Accept(w, r, o)
		if err != nil {
			t.Error(err)
			return
		}
		handle(c)
	}))
	c, _, err := Dial(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http"), nil, DialOptions{
		Subprotocol: "words", HandshakeTime: wait, Limit: 1 << 20, WriteTime: wait,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		<-done
		s.Close()
	})
	return c
}

func options() AcceptOptions {
	return AcceptOptions{Subprotocols: []string{"words"}, Limit: 1 << 20, WriteTime: wait}
}

func receive(t *testing.T, c *Conn) (string, error) {
	t.Helper()
	r, err := c.NextReader()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	return string(text), err
}

// Small messages leave together when they are flushed. A large one leaves immediately, after those that wait.
func TestWritesAreGathered(t *testing.T) {
	var writes, open atomic.Int64
	o := options()
	o.Writes, o.Wrote = func() { writes.Add(1); open.Add(1) }, func() { open.Add(-1) }
	large := strings.Repeat("x", 3*MaxGathered)
	steps := make(chan int64, 3)
	ended := make(chan struct{})
	c := serve(t, o, func(c *Conn) {
		defer close(ended)
		defer c.Close()
		c.Hold()
		for _, text := range []string{"one", "two", "three"} {
			if err := c.Send([]byte(text)); err != nil {
				t.Error(err)
			}
		}
		steps <- writes.Load()
		if err := c.Flush(wait); err != nil {
			t.Error(err)
		}
		steps <- writes.Load()
		until := func() time.Time { return time.Now().Add(wait) }
		err := errors.Join(c.Send([]byte("before")), c.SendPieces(until, func(w io.Writer) error {
			for rest := large; rest != ""; rest = rest[MaxGathered:] {
				if _, err := io.WriteString(w, rest[:MaxGathered]); err != nil {
					return err
				}
			}
			return nil
		}), c.Flush(wait))
		if err != nil {
			t.Error(err)
		}
		c.Farewell(context.Background(), wait, &Closing{CloseGoingAway, "done"})
	})
	for _, want := range []string{"one", "two", "three", "before", large} {
		if got, err := receive(t, c); err != nil || got != want {
			t.Fatalf("%d bytes instead of %d, %v", len(got), len(want), err)
		}
	}
	if before, after := <-steps, <-steps; before != 0 || after != 1 {
		t.Errorf("three small messages took %d writes before the flush and %d after it", before, after)
	}
	_, err := receive(t, c)
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != CloseGoingAway || closed.Text != "done" {
		t.Errorf("closed with %v", err)
	}
	_ = c.Close()
	<-ended // the client may have a message before its write has returned
	if open.Load() != 0 {
		t.Errorf("%d writes have not ended", open.Load())
	}
}

// Pings are answered without a flush, and show that the client is alive.
func TestPings(t *testing.T) {
	alive := make(chan struct{}, 1)
	c := serve(t, options(), func(c *Conn) {
		defer c.Close()
		c.Hold()
		c.OnControl(wait, func() error { alive <- struct{}{}; return nil })
		_, _ = receive(t, c)
	})
	pong := errors.New("pong")
	c.OnControl(wait, func() error { return pong })
	if err := errors.Join(c.Ping(wait), c.Flush(wait)); err != nil {
		t.Fatal(err)
	}
	if _, err := receive(t, c); !errors.Is(err, pong) {
		t.Errorf("a ping is answered by %v", err)
	}
	<-alive
}

func TestWhatIsNoMessage(t *testing.T) {
	for name, c := range map[string]struct {
		send func(*websocket.Conn) error
		want func(error) bool
	}{
		"binary": {func(c *websocket.Conn) error { return c.WriteMessage(websocket.BinaryMessage, []byte("x")) },
			func(err error) bool { var e *Closing; return errors.As(err, &e) && e.Code == CloseUnsupported }},
		"too large": {func(c *websocket.Conn) error { return c.WriteMessage(websocket.TextMessage, make([]byte, 200)) },
			func(err error) bool { return errors.Is(err, ErrTooLarge) }},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.Limit = 100
			got := make(chan error, 1)
			client := serve(t, o, func(c *Conn) {
				defer c.Close()
				_, err := receive(t, c)
				got <- err
			})
			if err := c.send(client.ws); err != nil {
				t.Fatal(err)
			}
			if err := <-got; !c.want(err) {
				t.Errorf("it is %v", err)
			}
		})
	}
}

// A request that is not a handshake is refused before the connection is taken over.
func TestHandshakesThatAreNone(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Connection", "upgrade")
	r.Header.Set("Upgrade", "websocket")
	_, err := Accept(httptest.NewRecorder(), r, options())
	var refused *HandshakeError
	if !errors.As(err, &refused) || refused.Hijacked || refused.Status != http.StatusMethodNotAllowed {
		t.Errorf("%+v, %v", refused, err)
	}
	s := httptest.NewServer(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer s.Close()
	_, answer, err := Dial(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http"), nil, DialOptions{HandshakeTime: wait})
	if err == nil || answer == nil || answer.StatusCode != http.StatusForbidden {
		t.Errorf("%v, %v", answer, err)
	}
}
