package gateway

import (
	"errors"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// handler answers one request, or returns why it did not.
type handler func(*answer, *http.Request) error

// route is one row of the HTTP interface.
type route struct {
	method string
	path   string // as http.ServeMux has it
	door   door
	takes  takes
	handle handler
}

// door is who may come in by a route, beside what holds for all.
type door int

const (
	guarded door = iota // needs the token, if there is one
	open                // for everybody
	running             // as guarded, but runs a guest: no link of another site leads here
)

// routes is the whole HTTP interface: those of each interface that the gateway needs of a host stand
// beside it. The OpenAPI document has exactly these.
func (s *Server) routes() []route {
	return slices.Concat(s.deployerRoutes(), s.moduleRoutes(), s.observerRoutes(), s.commanderRoutes(),
		s.readerRoutes(),
		s.keeperRoutes(), s.meterRoutes(), s.ownRoutes())
}

// ownRoutes are of the gateway itself.
func (s *Server) ownRoutes() []route {
	return []route{
		{"GET", "/openapi.json", open, takes{}, s.openAPI},
		{"GET", "/healthz", open, takes{}, s.healthz},
		{"GET", "/readyz", open, takes{}, s.readyz},
		{"GET", "/metrics", guarded, takes{answers: plainText}, s.showMetrics},
	}
}

// elsewhere is the route of what is no route, for the metrics.
const elsewhere = "/"

// handler puts the routes behind what is the same for all: an id, a bound on
// who may come in, problems for errors, and a count.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	params := map[string][]string{} // by pattern
	for _, r := range s.routes() {
		params[r.method+" "+r.path] = r.takes.params
		mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) {
			a := w.(*answer)
			err := s.access.check(req, r.door)
			if err == nil {
				err = r.takes.admit(a, req)
			}
			if err == nil {
				err = r.handle(a, req)
			}
			if err != nil {
				s.fail(a, err)
			}
		})
	}
	mux.HandleFunc(elsewhere, func(w http.ResponseWriter, req *http.Request) {
		a := w.(*answer)
		if err := s.elsewhere(a, req, mux, params); err != nil {
			s.fail(a, err)
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			panic(http.ErrAbortHandler) // its connection is being closed
		}
		defer s.handlers.Done()
		start := time.Now()
		r, control, flight, ended := s.arrive(w, r)
		if flight == nil {
			panic(http.ErrAbortHandler) // its connection has been closed
		}
		defer ended()
		a := &answer{ResponseWriter: w, server: s, control: control, writeTime: s.options.WriteTime, id: s.requestID(),
			about: requested(r), flight: flight}
		defer a.end()
		if r.ContentLength != 0 {
			// What a handler does not read of a body, the server reads behind its back before it
			// answers, and has no limit of its own for that.
			// one that fails is found by who reads the body
			_ = a.control.SetReadDeadline(start.Add(s.options.BodyTime))
		}
		h := a.Header()
		if len(r.TransferEncoding) > 0 {
			// It may have had a Content-Length too, which is dropped; a proxy in front may have
			// gone by that. So nothing that follows on this connection is taken for a request (RFC 9112, 6.1).
			h.Set("Connection", "close")
		}
		h.Set(api.HeaderRequestID, a.id)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		defer func() {
			took := time.Since(start)
			if a.stream {
				took = 0
			}
			_, pattern, _ := strings.Cut(r.Pattern, " ")
			s.metrics.Request(or(pattern, elsewhere), a.status, took)
		}()
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.log.Error("handler panicked", "request", a.id, "panic", p, "stack", string(debug.Stack()))
				s.fail(a, service.Errorf(service.KindInternal, "panic"))
			}
		}()
		s.access.crossOrigin(h, r)
		var err error
		if r.RequestURI == "*" && r.Method == http.MethodOptions { // which the mux refuses
			err = s.elsewhere(a, r, mux, params)
		} else if err = unclean(r); err == nil {
			mux.ServeHTTP(a, r)
		}
		if err != nil {
			s.fail(a, err)
		}
	})
}

// unclean says what keeps a path from being one of ours. The mux would redirect it, which would
// send a command elsewhere.
func unclean(r *http.Request) error {
	p := r.URL.EscapedPath()
	switch {
	case strings.HasPrefix(p, "/") && p == path.Clean(p):
		return nil
	case strings.HasPrefix(p, "/") && p == path.Clean(p)+"/":
		return service.Errorf(service.KindNotFound, "there is nothing at this path, which ends in a slash; without "+
			"it there may be")
	}
	return service.Errorf(service.KindInvalid, "the path must begin with / and have no segment that is empty, . or ..")
}

// elsewhere answers what no route takes. params are those of the routes, by pattern.
func (s *Server) elsewhere(a *answer, r *http.Request, mux *http.ServeMux, params map[string][]string) error {
	d := guarded
	if r.Method == http.MethodOptions { // it does nothing, and says nothing that openapi.json does not
		d = open
	}
	if err := s.access.check(r, d); err != nil {
		return err
	}
	methods, patterns := methodsAt(r, mux)
	if len(methods) == 0 {
		return service.Errorf(service.KindNotFound, "there is nothing at this path; /openapi.json lists what there is")
	}
	allow := strings.Join(methods, ", ")
	a.Header().Set("Allow", allow)
	if r.Method == http.MethodOptions {
		t := takes{answers: nothing}
		for _, pattern := range patterns {
			t.params = append(t.params, params[pattern]...)
		}
		admit := t.admit
		if asksFirst(r) { // the parameters are of the request that follows, and its answer is shown
			admit = t.form
		}
		if err := admit(a, r); err != nil {
			return err
		}
		a.LimitWrite()
		a.WriteHeader(http.StatusNoContent)
		return nil
	}
	return api.WithStatus(http.StatusMethodNotAllowed, service.Errorf(service.KindUnsupported, "this takes %s only",
		allow))
}

// methodsAt are the methods that a path takes, in order, and the patterns of its routes; all methods that there
// are for "*".
func methodsAt(r *http.Request, mux *http.ServeMux) (all, patterns []string) {
	for _, m := range []string{http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut} {
		other := *r
		other.Method = m
		if _, pattern := mux.Handler(&other); r.RequestURI == "*" || pattern != elsewhere && pattern != "" {
			all, patterns = append(all, m), append(patterns, pattern)
		}
	}
	if len(all) > 0 {
		all = append(all, http.MethodOptions)
		slices.Sort(all)
	}
	return all, patterns
}

func (s *Server) openAPI(a *answer, _ *http.Request) error {
	a.send(http.StatusOK, api.ContentJSON, s.document)
	return nil
}

func (s *Server) healthz(a *answer, _ *http.Request) error {
	return a.json(http.StatusOK, api.Health{Status: "ok"})
}

// readyz says whether the host takes commands. Which services do not is told to those
// who may ask for services, and how many to everybody.
func (s *Server) readyz(a *answer, r *http.Request) error {
	if s.stopping.Err() != nil {
		return flight.Stopping()
	}
	if err := s.owner.Ready(); err != nil {
		message := "the host is not ready"
		var why *service.Error
		switch kind := service.KindOf(err); {
		case kind != service.KindUnavailable && kind != service.KindFull:
			s.log.Warn("host is not ready", "request", a.id, "err", err)
		case errors.As(err, &why):
			message += ": " + why.Message
		}
		return &expectedError{&service.Error{Kind: service.KindUnavailable, Message: message, Err: err}}
	}
	named := s.access.check(r, guarded) == nil
	return a.json(http.StatusOK, api.ReadinessOf(s.owner.States(), named))
}

func (s *Server) showMetrics(a *answer, r *http.Request) error {
	h := s.metrics.Handler()
	if h == nil {
		return service.Errorf(service.KindNotFound, "this host keeps no metrics")
	}
	a.LimitWrite()
	h.ServeHTTP(a, r)
	return nil
}
