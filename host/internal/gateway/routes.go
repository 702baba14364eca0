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

// handler answers one request, or returns the reason why not.
type handler func(*answer, *http.Request) error

// route is one row of the HTTP interface.
type route struct {
	method string
	path   string // a pattern of http.ServeMux
	door   door
	takes  takes
	handle handler
}

// door says who may use a route, in addition to the rules for all routes.
type door int

const (
	guarded door = iota // needs the token, if there is one
	open                // for everybody
	running             // as guarded, but it runs a guest: links from other sites are refused
)

// routes is the whole HTTP interface. The routes of each interface that the gateway needs of a host are
// beside that interface. The OpenAPI document has exactly these routes.
func (s *Server) routes() []route {
	return slices.Concat(s.deployerRoutes(), s.moduleRoutes(), s.observerRoutes(), s.commanderRoutes(),
		s.readerRoutes(),
		s.keeperRoutes(), s.quarantineRoutes(), s.meterRoutes(), s.ownRoutes())
}

// ownRoutes are those of the gateway itself.
func (s *Server) ownRoutes() []route {
	return []route{
		{"GET", "/openapi.json", open, takes{}, s.openAPI},
		{"GET", "/healthz", open, takes{}, s.healthz},
		{"GET", "/readyz", open, takes{}, s.readyz},
		{"GET", "/metrics", guarded, takes{answers: plainText}, s.showMetrics},
	}
}

// elsewhere stands for unknown routes in the metrics.
const elsewhere = "/"

// handler adds to the routes what is common to all: an id, the check of access, problems for errors, and a
// count.
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
			// The server would read the rest of a body before it answers, without a limit. A failed
			// connection is found by reading.
			_ = a.control.SetReadDeadline(start.Add(s.options.BodyTime))
		}
		h := a.Header()
		if len(r.TransferEncoding) > 0 {
			// The request may also have had a Content-Length, which was dropped; a proxy may have used it. So
			// nothing that follows on this connection is taken for a request (RFC 9112, 6.1).
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
		if r.RequestURI == "*" && r.Method == http.MethodOptions { // the mux refuses it
			err = s.elsewhere(a, r, mux, params)
		} else if err = unclean(r); err == nil {
			mux.ServeHTTP(a, r)
		}
		if err != nil {
			s.fail(a, err)
		}
	})
}

// unclean returns why a path cannot be one of ours. The mux would redirect it, which would send a command
// elsewhere.
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

// elsewhere answers requests without a route. params are the parameters of the routes, by pattern.
func (s *Server) elsewhere(a *answer, r *http.Request, mux *http.ServeMux, params map[string][]string) error {
	d := guarded
	if r.Method == http.MethodOptions { // it changes nothing, and tells nothing that openapi.json does not
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
		if asksFirst(r) { // the parameters are those of the request that follows
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

// methodsAt are the methods that a path supports, sorted, and the patterns of its routes; for "*" all
// methods.
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

// readyz says whether the host accepts commands. The names of services that do not are only for clients that
// may list services; their number is for everyone.
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
	return a.json(http.StatusOK, api.ReadinessOf(s.owner.States(), s.quarantine.Quarantined(), named))
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
