package gateway

import (
	"net/http"
	"runtime"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/describe"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// documentRoom is what a document takes in memory: its parts, and then the whole.
const documentRoom = 2 * describe.MaxDocument

// describeService answers with the OpenAPI document of a service. It is made of the manifest, one document at a
// time, so that clients together keep no more than one processor busy with it.
func (s *Server) describeService(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	status, err := s.observer.Status(name)
	if err != nil {
		return err
	}
	if status.Manifest.ABI == 0 {
		return service.Errorf(service.KindUnavailable, "%s has not run since the host started, so what it takes is "+
			"not known yet", name)
	}
	if err := a.Take(min(documentRoom, int(a.flight.Limit()*3/4))); err != nil {
		return err
	}
	ended := func() error {
		if r.Context().Err() != nil {
			return service.Errorf(service.KindCanceled, "the request has ended")
		}
		return nil
	}
	select {
	case s.describing <- struct{}{}:
		defer func() { <-s.describing }()
	case <-r.Context().Done():
		return ended()
	}
	document, err := describe.OpenAPI(name, &status.Manifest, func() error {
		runtime.Gosched()
		return ended()
	})
	if err != nil {
		return err
	}
	a.send(http.StatusOK, api.ContentJSON, append(document, '\n'))
	return nil
}
