package gateway

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A client reads a history page by page, and rolls back.
func TestDeploymentsAndRollback(t *testing.T) {
	s := start(t, Options{})
	var numbers []service.Version
	for before := service.Version(0); ; {
		p, err := s.client.Deployments(t.Context(), "bank", before, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range p.Deployments {
			numbers = append(numbers, e.Number)
		}
		if before = p.Before; before == 0 {
			break
		}
	}
	if len(numbers) != 5 || numbers[0] != 5 || numbers[4] != 1 {
		t.Errorf("numbers %v", numbers)
	}
	var stages []string
	st, err := s.client.Rollback(t.Context(), service.Rollback{Service: "bank", To: 3,
		Progress: func(p service.Progress) { stages = append(stages, p.Stage) }})
	if err != nil || st.Spec.Service != "bank" || len(stages) != 1 {
		t.Errorf("%+v, %v, %v", st, err, stages)
	}
	for _, name := range []service.Name{"bank", "bakery"} {
		_, err := s.client.Rollback(t.Context(), service.Rollback{Service: name, To: 6})
		if service.KindOf(err) != service.KindNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"before=x", "limit=0", "limit=1001", "after=3"} {
		s.problem(s.do("GET", "/v1/services/bank/deployments?"+bad, ""), 400, "invalid")
	}
	s.problem(s.do("GET", "/v1/services/none/deployments", ""), 404, "not_found")
	if got := decode[api.Service](s, s.do("POST", "/v1/services/bank/rollback", "{}")); got.Spec.Service != "bank" {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"", `{"to":-1}`, `{"number":1}`, "[]"} {
		s.problem(s.do("POST", "/v1/services/bank/rollback", bad), 400, "invalid")
	}
}
