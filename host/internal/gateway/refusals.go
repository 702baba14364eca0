package gateway

import (
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"golang.org/x/time/rate"
)

// Refused requests are logged with this rate limit and burst, in lines per second and lines. Any client that
// reaches the host can cause any number of refusals.
const (
	refusalRate  = 10
	refusalBurst = 100
)

// refusals limits the log lines about refused requests.
type refusals struct {
	limit *rate.Limiter
	left  atomic.Uint64 // lines dropped since the last one
}

func newRefusals() *refusals {
	return &refusals{limit: rate.NewLimiter(refusalRate, refusalBurst)}
}

// refused reports whether the host refused a request with such an error. Other requests were carried out as
// far as their service let them, or their sender has gone.
func refused(k service.Kind) bool {
	switch k {
	case service.KindInvalid, service.KindTooLarge, service.KindUnauthorized, service.KindNotFound,
		service.KindUnknownType, service.KindUnsupported, service.KindBadModule,
		service.KindConflicting, service.KindIDReused, service.KindOverloaded, service.KindUnavailable,
		service.KindBadCursor, service.KindFull, service.KindDamaged, service.KindQuota:
		return true
	}
	return false
}

// expectedError is a negative answer to a client that asked for a state. It is not logged.
type expectedError struct{ err error }

func (e *expectedError) Error() string { return e.err.Error() }
func (e *expectedError) Unwrap() error { return e.err }

// requested are the attributes of a log line about a request.
func requested(r *http.Request) []any {
	const maxBytes = 200 // bytes of a path
	path := r.URL.Path
	return []any{"method", r.Method, "path", path[:min(len(path), maxBytes)], "client", r.RemoteAddr}
}

// logProblem logs why a request did not succeed.
func (s *Server) logProblem(p *api.Problem, err error, id string, about []any) {
	message, level := "request failed", slog.LevelDebug
	kind := service.KindOf(err)
	var expected *expectedError
	switch {
	case errors.As(err, &expected):
	case p.Kind == service.KindInternal.String():
		level = slog.LevelError
	case refused(kind):
		message, level = "request refused", slog.LevelInfo
		if !s.refusals.limit.Allow() {
			s.refusals.left.Add(1)
			return
		}
		if left := s.refusals.left.Swap(0); left > 0 {
			about = append(about, "refused_and_not_logged", left)
		}
	case p.Status >= 500:
		level = slog.LevelInfo // of a service
	}
	about = append([]any{"request", id, "status", p.Status, "kind", p.Kind, "err", err}, about...)
	var e *service.Error
	if errors.As(err, &e) {
		if e.Detail != "" {
			about = append(about, "detail", e.Detail)
		}
		// only if it is valid: its budget pays for the line
		if e.Service != "" && e.Kind != service.KindNotFound && e.Kind != service.KindInvalid {
			about = append(about, "service", string(e.Service))
		}
	}
	s.log.Log(s.stopping, level, message, about...)
}
