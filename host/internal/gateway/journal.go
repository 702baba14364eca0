package gateway

import (
	"context"
	"net/http"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// meter reports counters.
type meter interface {
	// Stats are the journal's counters, and Logs all logs, by name. Measure counts the content of one log,
	// which may take a while.
	Stats() journal.Stats
	Logs() []journal.LogInfo
	Measure(ctx context.Context, log journal.LogName) (journal.LogSize, error)
	// Readers describes the readers of logs.
	Readers() service.Readers
	// Resources is how much of each of the host's resources is in use, and by whom.
	Resources() []service.ResourceUsage
}

// meterRoutes are the routes of a meter.
func (s *Server) meterRoutes() []route {
	return []route{
		{"GET", "/v1/journal", guarded, takes{params: []string{"measure"}}, s.journal},
		{"GET", "/v1/resources", guarded, takes{}, s.resources},
	}
}

// resources answers with the use of the host's resources, one line each.
func (s *Server) resources(a *answer, _ *http.Request) error {
	return a.json(http.StatusOK, api.Resources{Resources: s.meter.Resources()})
}

// logRoom is what one log in a list of logs takes in memory, as a structure and as JSON, in bytes.
const logRoom = 512

// journal answers with the journal's counters and, if requested, with the present sizes of its logs.
func (s *Server) journal(a *answer, r *http.Request) error {
	measure := a.params.Get("measure")
	if measure != "" && measure != "true" && measure != "false" {
		return service.Errorf(service.KindInvalid, "measure is %.80q; it is true or false", measure)
	}
	stats, logs := s.meter.Stats(), s.meter.Logs()
	if err := a.Take(len(logs) * logRoom); err != nil {
		return err
	}
	readers := s.meter.Readers()
	out := service.JournalStats{Stats: stats, WriteAmplification: stats.WriteAmplification(), Readers: &readers,
		Logs: []service.LogStats{}}
	for _, l := range logs {
		log := service.LogStats{LogInfo: l}
		if measure == "true" {
			size, err := s.meter.Measure(r.Context(), l.Name)
			if err != nil {
				return err
			}
			log = service.MeasuredLog(size)
		}
		out.Logs = append(out.Logs, log)
	}
	return a.json(http.StatusOK, out)
}
