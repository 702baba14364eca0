package gateway

import (
	"net/http"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// journal answers with what the journal counted, and, if asked to, with what it
// counts now: the sizes of its logs.
func (s *Server) journal(a *answer, r *http.Request) error {
	q, err := query(r, "measure")
	if err != nil {
		return err
	}
	measure := q.Get("measure")
	if measure != "" && measure != "true" && measure != "false" {
		return service.Errorf(service.KindInvalid, "measure is %.80q; it is true or false", measure)
	}
	stats, logs := s.backend.Stats(), s.backend.Logs()
	readers := s.backend.Readers()
	out := api.Journal{Stats: stats, WriteAmplification: stats.WriteAmplification(), Readers: &readers, Logs: []api.JournalLog{}}
	for _, l := range logs {
		log := api.JournalLog{LogInfo: l}
		if measure == "true" {
			size, err := s.backend.Measure(r.Context(), l.Name)
			if err != nil {
				return err
			}
			log = api.JournalLog{LogInfo: size.LogInfo, Commits: &size.Commits, Events: &size.Events, Bytes: &size.Bytes}
		}
		out.Logs = append(out.Logs, log)
	}
	return a.json(http.StatusOK, out)
}
