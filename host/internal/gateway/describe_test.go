package gateway

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A service has a document once its manifest is known.
func TestServiceDocuments(t *testing.T) {
	s := start(t, Options{})
	type doc struct {
		OpenAPI string
		Info    struct{ Title string }
		Paths   map[string]any
	}
	got := decode[doc](s, s.do("GET", "/v1/services/bank/openapi.json", ""))
	if got.OpenAPI != "3.1.0" || got.Info.Title != "bank" || got.Paths["/v1/services/bank/events"] == nil {
		t.Errorf("%+v", got)
	}
	s.problem(s.do("GET", "/v1/services/bakery/openapi.json", ""), 404, "not_found")
	s.problem(s.do("POST", "/v1/services/bank/openapi.json", ""), 405, "unsupported")

	s.fake.mu.Lock()
	status := &s.fake.services["bank"].status
	known := status.Manifest
	status.State, status.Manifest = service.StateStarting, abi.Manifest{}
	s.fake.mu.Unlock()
	s.problem(s.do("GET", "/v1/services/bank/openapi.json", ""), 503, "unavailable")

	// One that is too large is refused, and leaves room for the next.
	s.fake.mu.Lock()
	status.State, status.Manifest = service.StateRunning, known
	status.Manifest.Commands = nil
	for i := range abi.MaxTypes {
		status.Manifest.Commands = append(status.Manifest.Commands, abi.CommandType{Name: fmt.Sprint("c", i)})
	}
	s.fake.mu.Unlock()
	s.problem(s.do("GET", "/v1/services/bank/openapi.json", ""), http.StatusRequestEntityTooLarge, "too_large")
	s.fake.mu.Lock()
	status.Manifest = known
	s.fake.mu.Unlock()
	if g := s.do("GET", "/v1/services/bank/openapi.json", ""); g.status != 200 {
		t.Errorf("%d %s", g.status, g.body)
	}
}
