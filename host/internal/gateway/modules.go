package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// moduleStore has the uploaded modules.
type moduleStore interface {
	// Modules lists the stored modules. DeleteModule removes one without references.
	Modules() (service.Modules, error)
	DeleteModule(d service.Digest) error
}

// moduleRoutes are the routes of a module store.
func (s *Server) moduleRoutes() []route {
	return []route{
		{"GET", "/v1/modules", guarded, takes{}, s.listModules},
		{"DELETE", "/v1/modules/{digest}", guarded, takes{answers: nothing}, s.deleteModule},
	}
}

// What a line of the list of modules takes in memory while it is encoded, in bytes: the line, and each name
// in it, both as a value and as JSON.
const (
	moduleRoom = 512
	nameRoom   = 256
)

// listModules answers with one module after the other, as listServices does.
func (s *Server) listModules(a *answer, _ *http.Request) error {
	m, err := s.modules.Modules()
	if err != nil {
		return err
	}
	names, longest := 0, 0
	for i := range m.Modules {
		n := len(m.Modules[i].Services) + len(m.Modules[i].Earlier)
		names, longest = names+n, max(longest, n)
	}
	// The list, the longest line, and the buffer.
	if err := a.Take(moduleRoom/2*len(m.Modules) + nameRoom/2*names + moduleRoom + nameRoom*longest +
		statusRoom); err != nil {
		return err
	}
	around := m
	around.Modules = []service.StoredModule{}
	text, err := json.Marshal(around)
	const begin = `{"modules":[`
	end, ok := bytes.CutPrefix(text, []byte(begin))
	if err != nil || !ok {
		return service.Errorf(service.KindInternal, "answer: the list of modules is encoded as %.80q: %w", text, err)
	}
	return a.sendList(begin, string(end), len(m.Modules), func(i int) any {
		for _, names := range []*[]service.Name{&m.Modules[i].Services, &m.Modules[i].Earlier} {
			if *names == nil {
				*names = []service.Name{}
			}
		}
		return &m.Modules[i]
	})
}

func (s *Server) deleteModule(a *answer, r *http.Request) error {
	d, err := service.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return err
	}
	if err := s.modules.DeleteModule(d); err != nil {
		return err
	}
	a.LimitWrite()
	a.WriteHeader(http.StatusNoContent)
	return nil
}
