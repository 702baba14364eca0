package gateway

import (
	"slices"
	"testing"
	"time"

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

// How to verify a module is said by parameters of an upload, and by members of the bodies of a deployment and a
// rollback; the client says it so. A dry run deploys nothing.
func TestVerificationsAndDryRuns(t *testing.T) {
	s := start(t, Options{})
	verified := func() service.Verify {
		s.fake.mu.Lock()
		defer s.fake.mu.Unlock()
		defer func() { s.fake.verify = service.Verify{} }()
		return s.fake.verify
	}
	want := service.Verify{Mode: service.VerifyAll, Timeout: 1500 * time.Millisecond, RequireSame: true}
	const members = `"verify":"all","verify_timeout_ms":1500,"require_same":true`
	const path, query = "/v1/services/shop/deployments", "verify=all&verify_timeout_ms=1500&require_same=true"
	digest := service.DigestOf([]byte("\x00asm"))
	for _, r := range [][3]string{
		{"POST", path + "?" + query, "\x00asm"},
		{"POST", path + "?dry_run=false&" + query, "\x00asm"},
		{"POST", path + "?dry_run=true&" + query, "\x00asm"},
		{"PUT", "/v1/services/shop", `{"module":"` + digest.String() + `",` + members + `}`},
		{"POST", "/v1/services/bank/rollback", `{"to":3,` + members + `}`},
	} {
		if g := s.do(r[0], r[1], r[2]); g.status != 200 {
			t.Fatalf("%v: %d %s", r, g.status, g.body)
		}
		if got := verified(); got != want {
			t.Errorf("%v: %+v", r, got)
		}
	}
	var stages []string
	d := service.Deployment{Service: "other", Module: []byte("\x00asm"), Verify: want,
		Progress: func(p service.Progress) { stages = append(stages, p.Stage) }}
	v, err := s.client.Verify(t.Context(), d)
	if err != nil || v.Mode != service.VerifySample || v.Entities != 2 || verified() != want ||
		!slices.Contains(stages, "replaying") {
		t.Errorf("%+v, %v, %v", v, err, stages)
	}
	s.problem(s.do("GET", "/v1/services/other", ""), 404, "not_found")
	for _, deploy := range []func(){
		func() { _, err = s.client.Deploy(t.Context(), d) },
		func() {
			_, err = s.client.Deploy(t.Context(), service.Deployment{Service: "other", Digest: digest, Verify: want})
		},
		func() {
			_, err = s.client.Rollback(t.Context(), service.Rollback{Service: "bank", To: 3, Verify: want})
		},
	} {
		if deploy(); err != nil || verified() != want {
			t.Errorf("%v; it did not say how to verify", err)
		}
	}
	if got := decode[api.DryRun](s, s.do("POST", path+"?dry_run=true", "\x00asm")); got.Verification.Entities != 2 {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"verify=some", "verify_timeout_ms=-1", "verify_timeout_ms=1s", "require_same=1",
		"dry_run=yes", "dry_run=true&dry_run=true", "verify_timeout_ms=9223372036855"} {
		s.problem(s.do("POST", path+"?"+bad, "\x00asm"), 400, "invalid")
	}
	s.problem(s.do("PUT", "/v1/services/shop?dry_run=true", `{"module":"`+digest.String()+`"}`), 400, "invalid")
	s.problem(s.do("POST", "/v1/services/bank/rollback", `{"verify":"some"}`), 400, "invalid")
	s.fake.deployErr = service.Errorf(service.KindConflicting, "does not fit")
	s.problem(s.do("POST", path+"?dry_run=true", "\x00asm"), 409, "conflict")
	if _, err := s.client.Verify(t.Context(), d); service.KindOf(err) != service.KindConflicting {
		t.Errorf("got %v", err)
	}
}
