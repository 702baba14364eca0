package gateway

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
)

// The document and the mux have the same routes.
func TestOpenAPIListsTheRoutes(t *testing.T) {
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(api.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s", doc.OpenAPI)
	}
	var documented, served []string
	for path, item := range doc.Paths {
		for method, text := range item {
			if method == "parameters" {
				continue
			}
			documented = append(documented, strings.ToUpper(method)+" "+path)
			var op struct{ Security []any }
			if err := json.Unmarshal(text, &op); err != nil {
				t.Errorf("%s %s: %v", method, path, err)
			}
			if open := op.Security != nil; open != isOpen(strings.ToUpper(method), path) {
				t.Errorf("%s %s: that it needs no token is said in one place and not in the other", method, path)
			}
		}
	}
	for _, r := range new(Server).routes() {
		served = append(served, r.method+" "+r.path)
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented:\n%s\nserved:\n%s", strings.Join(documented, "\n"), strings.Join(served, "\n"))
	}
}

func isOpen(method, path string) bool {
	for _, r := range new(Server).routes() {
		if r.method == method && r.path == path {
			return r.open
		}
	}
	return false
}
