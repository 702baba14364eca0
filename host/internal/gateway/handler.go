package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Handler answers requests within another HTTP server, in place of Start. Connections are that
// server's: Connections, IdleTime and HeaderTime of the options do not bound them, and what may be
// held in memory is counted for each request. Stop ends streams and waits for requests as it does
// after Start; requests that come later are refused.
func (s *Server) Handler() http.Handler {
	own := s.http.Handler
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.stopping.Err() != nil {
			p := api.ProblemOf(flight.Stopping(), "")
			w.Header().Set("Content-Type", api.ContentProblem)
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(p.Status)
			_ = json.NewEncoder(w).Encode(p) // the client may be gone
			return
		}
		own.ServeHTTP(w, r)
	})
}

// arriveElsewhere opens an account for a request that came in by another server.
func (s *Server) arriveElsewhere(
	r *http.Request, control *http.ResponseController,
) (_ *http.Request, _ *flight.Account, ended func()) {
	ctx, cancel := context.WithCancel(service.WithReader(r.Context(), r.RemoteAddr))
	v := &visitor{control: control}
	uncut := context.AfterFunc(s.cut, func() { cancel(); _ = v.Close() })
	f := s.flights.Join(r.RemoteAddr, v)
	return r.WithContext(ctx), f, func() {
		uncut()
		cancel()
		v.leave()
		f.Leave()
	}
}

// visitor is a connection as far as it is known from a request on it.
type visitor struct {
	mu      sync.Mutex               // guards control
	control *http.ResponseController // nil: the request has been answered
}

// Close makes reads and writes of the request fail, and so ends its handler.
func (v *visitor) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.control == nil {
		return nil
	}
	past := time.Unix(1, 0)
	_ = v.control.SetReadDeadline(past) // one that knows no deadlines ends with its client
	return v.control.SetWriteDeadline(past)
}

func (v *visitor) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.control = nil
}
