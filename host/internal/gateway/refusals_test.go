package gateway

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// told are the log lines with a message, as an operator sees them.
func (s *site) told(message string) (all []string) {
	for line := range strings.Lines(s.logged.String()) {
		if strings.Contains(line, "msg="+message) && !strings.Contains(line, "level=DEBUG") {
			all = append(all, line)
		}
	}
	return all
}

// The log says which requests were refused, of which client and why. It does not have rejections by a
// service, nor checks of a host that is not ready.
func TestRefusedRequestsAreLogged(t *testing.T) {
	s := start(t, Options{Token: secret})
	s.problem(s.do("GET", "/v1/services?hidden=1", "", "Authorization", "Bearer wrong"), 401, "unauthorized")
	s.problem(s.do("POST", commands+"reject", "", "Authorization", "Bearer "+secret), 422, "rejected")
	s.fake.mu.Lock()
	s.fake.ready = service.Errorf(service.KindUnavailable, "not yet")
	s.fake.mu.Unlock()
	s.problem(s.do("GET", "/readyz", ""), 503, "unavailable")
	all := append(s.told(`"request refused"`), s.told(`"request failed"`)...)
	if len(all) != 1 {
		t.Fatalf("the log has the lines %q", all)
	}
	for _, want := range []string{"level=INFO", "status=401", "kind=unauthorized", "method=GET", "path=/v1/services ",
		"client=127.0.0.1:", "request=", "err="} {
		if !strings.Contains(all[0], want) {
			t.Errorf("%q does not have %s", all[0], want)
		}
	}
	if strings.Contains(all[0], "hidden") || strings.Contains(all[0], "wrong") {
		t.Errorf("%q has what is the client's own", all[0])
	}
}

func TestRefusedRequestsAreLoggedAtARate(t *testing.T) {
	s := start(t, Options{})
	s.server.refusals.limit = rate.NewLimiter(0, 3)
	for range 20 {
		s.problem(s.do("GET", "/nothing", ""), 404, "not_found")
	}
	if all := s.told(`"request refused"`); len(all) != 3 {
		t.Errorf("of 20 refused requests the log has %d: %q", len(all), all)
	}
	s.server.refusals.limit = rate.NewLimiter(rate.Every(time.Hour), 1)
	s.problem(s.do("GET", "/nothing", ""), 404, "not_found")
	if all := s.told(`"request refused"`); len(all) != 4 || !strings.Contains(all[3], "refused_and_not_logged=17") {
		t.Errorf("the next line is in %q", all)
	}
}
