package gateway

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/limitlistener"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Handler answers requests within another HTTP server, in place of Start. That server owns the connections:
// Connections, IdleTime and HeaderTime of the options have no effect, and memory is counted for each request.
// Stop ends streams and waits for requests, as it does after Start; later requests are refused.
func (s *Server) Handler() http.Handler {
	own := s.http.Handler
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.stopping.Err() != nil {
			p := api.ProblemOf(flight.Stopping(), "")
			w.Header().Set("Content-Type", api.ContentProblem)
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(p.Status)
			_ = json.NewEncoder(w).Encode(p) // the client may have gone
			return
		}
		own.ServeHTTP(w, r)
	})
}

// arrive finds the account of a request: that of its connection or, if the connection belongs to another
// server, a new one. Call ended when the request has been answered. There is no account if the connection has
// been closed.
func (s *Server) arrive(
	w http.ResponseWriter, r *http.Request,
) (_ *http.Request, _ *http.ResponseController, _ *flight.Account, ended func()) {
	c := limitlistener.Of(r.Context())
	if c == nil {
		return s.arriveElsewhere(w, r)
	}
	f, ended := c.Begin()
	return r, http.NewResponseController(w), f, ended
}

// arriveElsewhere opens an account for a request that came in through another server.
func (s *Server) arriveElsewhere(
	w http.ResponseWriter, r *http.Request,
) (_ *http.Request, _ *http.ResponseController, _ *flight.Account, ended func()) {
	ctx, cancel := context.WithCancel(service.WithReader(r.Context(), r.RemoteAddr))
	v := &visitor{ResponseWriter: w, control: http.NewResponseController(w)}
	uncut := context.AfterFunc(s.cut, func() { cancel(); _ = v.Close() })
	f := s.flights.Join(r.RemoteAddr, v)
	return r.WithContext(ctx), http.NewResponseController(v), f, func() {
		uncut()
		cancel()
		v.leave()
		f.Leave()
	}
}

// visitor is a connection of another server, as far as a request shows it. When it is closed, nothing more is
// read from it, and the answer has lastWord.
type visitor struct {
	http.ResponseWriter

	mu      sync.Mutex               // guards all below
	control *http.ResponseController // nil: the request has been answered
	closed  time.Time                // zero: it is open
}

// Unwrap gives http.ResponseController access to the underlying writer.
func (v *visitor) Unwrap() http.ResponseWriter { return v.ResponseWriter }

// lastWord is how long an answer may take that begins after the connection was closed.
const lastWord = time.Second

// SetReadDeadline is that of an http.ResponseController.
func (v *visitor) SetReadDeadline(t time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.control == nil || !v.closed.IsZero() {
		return net.ErrClosed
	}
	return v.control.SetReadDeadline(t)
}

// SetWriteDeadline is that of an http.ResponseController.
func (v *visitor) SetWriteDeadline(t time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.control == nil {
		return net.ErrClosed
	}
	if end := v.closed.Add(lastWord); !v.closed.IsZero() && t.After(end) {
		t = end
	}
	return v.control.SetWriteDeadline(t)
}

// Close makes reads and writes of the request fail, and so ends its handler.
func (v *visitor) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.control == nil {
		return nil
	}
	v.closed = time.Now()
	past := time.Unix(1, 0)
	_ = v.control.SetReadDeadline(past) // without support for deadlines it ends with its client
	return v.control.SetWriteDeadline(past)
}

func (v *visitor) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.control = nil
}
