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

// Refused requests are logged at this rate and burst, in lines a second and lines. Anybody who comes near the host can
// make it refuse as many as they like.
const (
	refusalRate  = 10
	refusalBurst = 100
)

// refusals bounds the lines of the log about requests that were refused.
type refusals struct {
	limit *rate.Limiter
	left  atomic.Uint64 // lines that were left out since the last one
}

func newRefusals() *refusals {
	return &refusals{limit: rate.NewLimiter(refusalRate, refusalBurst)}
}

// refused reports whether a request with such an error was turned away by the host. Others were carried out as far as
// their service let them, or their sender has gone.
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

// expectedError is the answer to somebody who asked whether something is so, and no news for the log.
type expectedError struct{ err error }

func (e *expectedError) Error() string { return e.err.Error() }
func (e *expectedError) Unwrap() error { return e.err }

// requested are the attributes of a line that is about a request.
func requested(r *http.Request) []any {
	const most = 200 // bytes of a path
	path := r.URL.Path
	return []any{"method", r.Method, "path", path[:min(len(path), most)], "client", r.RemoteAddr}
}

// logProblem logs why a request was not answered as its sender wished.
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
		// then it is one, whose budget pays for the line
		if e.Service != "" && e.Kind != service.KindNotFound && e.Kind != service.KindInvalid {
			about = append(about, "service", string(e.Service))
		}
	}
	s.log.Log(s.stopping, level, message, about...)
}
