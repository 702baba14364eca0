package gateway

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
)

// For any exhausted resource a client gets its name, its use and limit, and when to try again.
func TestOverloadsAreNamed(t *testing.T) {
	s := start(t, Options{Streams: 1, Subscriptions: 1, InFlight: 1, Uploads: 1})
	named := func(p *api.Problem, resource string, limit int64) {
		t.Helper()
		if p == nil || p.Kind != "overloaded" || p.Resource != resource || p.Used != limit || p.Limit != limit ||
			p.RetryAfterMS <= 0 {
			t.Errorf("%+v, want that %s has %d of %d in use", p, resource, limit, limit)
		}
	}
	ws := s.raw("/v1/stream", api.ProtocolStream)
	for i, resource := range []string{"", "subscriptions_of_connection"} {
		say(t, ws, `{"op":"subscribe","id":"%d","service":"bank"}`, i)
		if m := hear(t, ws); resource != "" {
			named(m.Problem, resource, 1)
		}
	}
	say(t, ws, `{"op":"command","id":"slow","service":"bank","key":"k","type":"slow"}`)
	say(t, ws, `{"op":"command","id":"more","service":"bank","key":"k","type":"add"}`)
	named(hear(t, ws).Problem, "requests_of_connection", 1)
	close(s.fake.gate)
	hear(t, ws)

	p := s.problem(s.do("GET", "/v1/services/bank/events", "", "Accept", api.ContentSSE), 503, "overloaded")
	named(&p, "streams", 1)
	for range smallUploads {
		s.server.uploads.small.work <- struct{}{}
	}
	p = s.problem(s.do("POST", "/v1/modules", "\x00asm good"), 503, "overloaded")
	named(&p, "uploads_at_work", smallUploads)
	for range maxBackups {
		s.server.backups <- struct{}{}
	}
	p = s.problem(s.do("POST", "/v1/backup", ""), 503, "overloaded")
	named(&p, "backups", maxBackups)
}
