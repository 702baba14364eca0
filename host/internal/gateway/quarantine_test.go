package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A client reads the quarantined entities page by page, and releases one.
func TestQuarantine(t *testing.T) {
	s := start(t, Options{})
	var keys []service.Key
	for after := service.Key(""); ; {
		p, err := s.client.Quarantine(t.Context(), "bank", after, 2)
		if err != nil || p.Count != 3 {
			t.Fatalf("%+v, %v", p, err)
		}
		for _, e := range p.Entities {
			keys = append(keys, e.Key)
		}
		if after = p.After; after == "" {
			break
		}
	}
	if fmt.Sprint(keys) != "[a b/c d]" {
		t.Errorf("keys %v", keys)
	}
	for key, want := range map[service.Key]bool{"b/c": true, "x": false} {
		if r, err := s.client.Release(t.Context(), "bank", key); err != nil || r.Quarantined != want {
			t.Errorf("%s: %+v, %v", key, r, err)
		}
	}
	if _, err := s.client.Release(t.Context(), "bank", "d"); service.KindOf(err) != service.KindFault {
		t.Errorf("it still fails: %v", err)
	}
	p := decode[service.QuarantinePage](s, s.do("GET", "/v1/services/bank/quarantine?after=d", ""))
	if p.Entities == nil || len(p.Entities) != 0 || p.Count != 3 {
		t.Errorf("after the last: %+v", p)
	}
	for _, bad := range []string{"limit=0", "limit=1001", "after=%00", "before=a"} {
		s.problem(s.do("GET", "/v1/services/bank/quarantine?"+bad, ""), 400, "invalid")
	}
	s.problem(s.do("GET", "/v1/services/none/quarantine", ""), 404, "not_found")
	s.problem(s.do("POST", "/v1/services/none/entities/a/release", ""), 404, "not_found")
	s.problem(s.do("POST", "/v1/services/bank/entities/a/release", "{}"), 400, "invalid")
}

// Quarantined entities are counted in the answer about readiness, and do not make the host unready.
func TestReadinessCountsQuarantinedEntities(t *testing.T) {
	const token = "0123456789abcdef"
	s := start(t, Options{Token: token})
	s.fake.mu.Lock()
	s.fake.quarantined = map[service.Name]int{"bank": 2, "blob": 1}
	s.fake.mu.Unlock()
	r := decode[api.Readiness](s, s.do("GET", "/readyz", "", "Authorization", "Bearer "+token))
	if q := r.Quarantined; q == nil || q.Count != 3 || q.Services["bank"] != 2 || q.Services["blob"] != 1 {
		t.Errorf("%+v", q)
	}
	if g := s.do("GET", "/readyz", ""); g.status != 200 || !strings.Contains(string(g.body), `"quarantined":{"count":3}`) {
		t.Errorf("without the token: %d %s", g.status, g.body)
	}
}
