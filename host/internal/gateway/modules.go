package gateway

import (
	"net/http"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func (s *Server) listModules(a *answer, _ *http.Request) error {
	m, err := s.backend.Modules()
	if err != nil {
		return err
	}
	if m.Modules == nil {
		m.Modules = []service.StoredModule{}
	}
	for i := range m.Modules {
		for _, names := range []*[]service.Name{&m.Modules[i].Services, &m.Modules[i].Earlier} {
			if *names == nil {
				*names = []service.Name{}
			}
		}
	}
	return a.json(http.StatusOK, m)
}

func (s *Server) deleteModule(a *answer, r *http.Request) error {
	d, err := service.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return err
	}
	if err := s.backend.DeleteModule(d); err != nil {
		return err
	}
	a.limitWrite(0)
	a.WriteHeader(http.StatusNoContent)
	return nil
}
