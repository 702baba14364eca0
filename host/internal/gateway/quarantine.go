package gateway

import (
	"context"
	"net/http"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// quarantiner has the entities that modules cannot hydrate.
type quarantiner interface {
	// Quarantine is a page of those of a service, by key, and Quarantined the number of those of each service.
	Quarantine(name service.Name, after service.Key, limit int) (service.QuarantinePage, error)
	Quarantined() map[service.Name]int
	// Release tries to hydrate one at once.
	Release(ctx context.Context, name service.Name, key service.Key) (service.Released, error)
}

// quarantineRoutes are the routes of a quarantiner.
func (s *Server) quarantineRoutes() []route {
	return []route{
		{
			"GET", "/v1/services/{service}/quarantine", guarded,
			takes{params: []string{"after", "limit"}}, s.listQuarantine,
		},
		{"POST", "/v1/services/{service}/entities/{key}/release", guarded, takes{}, s.release},
	}
}

// faultRoom is what a quarantined entity takes in memory, as a structure and as JSON, in bytes.
const faultRoom = 8 << 10

// listQuarantine answers with a page of the quarantined entities of a service.
func (s *Server) listQuarantine(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	limit, err := parseLimit(a.params.Get("limit"))
	if err != nil {
		return err
	}
	after := service.Key("")
	if text := a.params.Get("after"); text != "" {
		if after, err = service.ParseKey(text); err != nil {
			return err
		}
	}
	if err := a.Take(limit * faultRoom); err != nil {
		return err
	}
	page, err := s.quarantine.Quarantine(name, after, limit)
	if err != nil {
		return err
	}
	if page.Entities == nil {
		page.Entities = []service.EntityFault{}
	}
	return a.json(http.StatusOK, page)
}

// release tries to hydrate an entity at once.
func (s *Server) release(a *answer, r *http.Request) error {
	name, key, err := pathEntity(r)
	if err != nil {
		return err
	}
	released, err := s.quarantine.Release(r.Context(), name, key)
	if err != nil {
		return err
	}
	return a.json(http.StatusOK, released)
}
