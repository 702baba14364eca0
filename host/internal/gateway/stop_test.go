package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Requests in flight get their answers, streams get a close message, and new requests are refused.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	st := s.stream()
	sub, err := st.Subscribe(t.Context(), service.Selection{Service: "bank", From: service.From{Kind: service.FromEnd}},
		5)
	if err != nil {
		t.Fatal(err)
	}
	one := s.raw("/v1/services/bank/events", api.ProtocolCloudEvents)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", s.server.URL()+"/v1/services/bank/events", nil)
	req.Header.Set("Accept", api.ContentSSE)
	sse, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer sse.Body.Close()

	answers := make(chan error, 2)
	go func() {
		_, err := s.client.Send(t.Context(), service.Command{Service: "bank", Key: "k", Type: "slow"})
		answers <- err
	}()
	if err := st.SendAsync(t.Context(), service.Command{Service: "bank", Key: "k", Type: "slow"},
		func(_ service.Reply, err error) { answers <- err }); err != nil {
		t.Fatal(err)
	}
	<-s.fake.slow
	<-s.fake.slow
	stopped := make(chan error)
	go func() { stopped <- s.server.Stop(context.Background()) }()
	// The streams end while the commands are still at work.
	if text, err := io.ReadAll(sse.Body); err != nil {
		t.Errorf("%s %v", text, err)
	}
	_, _, err = one.ReadMessage()
	var c *websocket.CloseError
	if !errors.As(err, &c) || c.Code != websocket.CloseGoingAway {
		t.Error(err)
	}
	if _, err := sub.Next(t.Context()); err == nil {
		t.Error("the subscription goes on")
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped with commands in flight: %v", err)
	default:
	}
	close(s.fake.gate)
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	<-st.Done()
	if !errors.As(st.Err(), &c) || c.Code != websocket.CloseGoingAway {
		t.Error(st.Err())
	}
	if _, err := s.client.Services(t.Context(), false); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("after the stop: %v", err)
	}
	if err := s.server.Stop(t.Context()); err != nil { // a second Stop does nothing
		t.Error(err)
	}
}

// When its time is over, a stop cuts off what is left, and returns an error.
func TestStopCutsOff(t *testing.T) {
	slow := service.Command{Service: "bank", Key: "k", Type: "slow", ID: "a"}
	for way, send := range map[string]func(s *site, answer func(service.Reply, error)){
		"HTTP": func(s *site, answer func(service.Reply, error)) {
			go func() { answer(s.client.Send(s.Context(), slow)) }()
		},
		"WebSocket": func(s *site, answer func(service.Reply, error)) {
			if err := s.stream().SendAsync(s.Context(), slow, answer); err != nil {
				s.Fatal(err)
			}
		},
	} {
		t.Run(way, func(t *testing.T) {
			s := start(t, Options{})
			answered := make(chan error, 1)
			send(s, func(_ service.Reply, err error) { answered <- err })
			<-s.fake.slow
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			s.cutOff = true
			if err := s.server.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("stop: %v", err)
			}
			if err := <-answered; service.KindOf(err) != service.KindUnknown {
				t.Errorf("a command that was cut off: %v", err)
			}
			close(s.fake.gate) // the fake's own goroutine ends
		})
	}
}

func TestStopBeforeStart(t *testing.T) {
	s, err := New(newFake(), Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Start(t.Context()); err == nil {
		t.Error("started after the stop")
	}
}

func TestPortTaken(t *testing.T) {
	s := start(t, Options{})
	other, err := New(newFake(), Options{Listen: s.server.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(t.Context()); service.KindOf(err) != service.KindUnavailable {
		t.Error(err)
	}
	if err := other.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
