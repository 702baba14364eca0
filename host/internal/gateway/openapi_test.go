package gateway

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
)

// The document and the mux have the same routes.
func TestOpenAPIListsTheRoutes(t *testing.T) {
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(api.OpenAPI(), &doc); err != nil {
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

// documents finds what the OpenAPI document says of a route's answers: the content types by status, by the
// route's pattern.
var documents = sync.OnceValues(func() (map[string]map[string][]string, error) {
	type answer struct {
		Ref     string `json:"$ref"`
		Content map[string]json.RawMessage
	}
	var doc struct {
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Responses map[string]answer }
	}
	if err := json.Unmarshal(api.OpenAPI(), &doc); err != nil {
		return nil, err
	}
	routes := map[string]map[string][]string{}
	for path, item := range doc.Paths {
		for method, text := range item {
			var op struct{ Responses map[string]answer }
			if method == "parameters" {
				continue
			}
			if err := json.Unmarshal(text, &op); err != nil {
				return nil, err
			}
			types := map[string][]string{}
			for status, a := range op.Responses {
				if name, ok := strings.CutPrefix(a.Ref, "#/components/responses/"); ok {
					a = doc.Components.Responses[name]
				}
				types[status] = slices.Collect(maps.Keys(a.Content))
			}
			routes[strings.ToUpper(method)+" "+path] = types
		}
	}
	return routes, nil
})

// documented checks that the OpenAPI document describes an answer that a test got.
func documented(t *testing.T, req *http.Request, resp *http.Response) {
	t.Helper()
	routes, err := documents()
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for pattern := range routes {
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	}
	_, pattern := mux.Handler(req)
	if pattern == "" { // no route: only a problem is possible
		return
	}
	types, ok := routes[pattern][strconv.Itoa(resp.StatusCode)]
	if !ok {
		types, ok = routes[pattern]["default"]
	}
	got, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if !ok || got != "" && !slices.Contains(types, got) {
		t.Errorf("%s answered %d with %q, which the OpenAPI document does not have (%v)", pattern, resp.StatusCode, got,
			types)
	}
}

func isOpen(method, path string) bool {
	for _, r := range new(Server).routes() {
		if r.method == method && r.path == path {
			return r.door == open
		}
	}
	return false
}
