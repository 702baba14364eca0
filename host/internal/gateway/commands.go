package gateway

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/streams"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// commander carries out commands and queries.
type commander interface {
	streams.Commander
	// Send returns when the command's events are on disk.
	Send(ctx context.Context, c service.Command) (service.Reply, error)
}

// commanderRoutes are the routes of a commander.
func (s *Server) commanderRoutes() []route {
	return []route{
		{
			"POST", "/v1/services/{service}/entities/{key}/commands/{type}", guarded,
			takes{body: dataBody}, s.sendCommand,
		},
		{
			"GET", "/v1/services/{service}/entities/{key}/queries/{type}", running,
			takes{params: []string{"data"}}, s.queryEntity,
		},
		{"POST", "/v1/services/{service}/entities/{key}/queries/{type}", running, takes{body: dataBody}, s.queryEntity},
		{"GET", "/v1/stream", guarded, takes{answers: nothing}, s.openStream},
	}
}

// smallBody is the size, in bytes, up to which a body is read without asking for the service's limit. The
// host checks the limit in any case.
const smallBody = 64 << 10

// call is the common part of commands and queries.
type call struct {
	service  service.Name
	key      service.Key
	typ      service.Type
	data     []byte
	deadline time.Time
}

// readCall reads everything of a command or query but its data.
func readCall(r *http.Request) (call, error) {
	var c call
	var err error
	if c.service, c.key, err = pathEntity(r); err != nil {
		return c, err
	}
	if c.typ, err = service.ParseType(r.PathValue("type")); err != nil {
		return c, err
	}
	if h := r.Header.Get(api.HeaderDeadline); h != "" {
		left, err := api.ParseDeadline(h)
		if err != nil {
			return c, err
		}
		if left == 0 {
			return c, flight.TooLate()
		}
		c.deadline = time.Now().Add(left)
	}
	return c, nil
}

// readData reads the body of a command or query.
func (s *Server) readData(a *answer, r *http.Request, c *call) error {
	limit := int64(smallBody)
	if large := r.ContentLength < 0 || r.ContentLength > smallBody; large || a.bodyType != "" &&
		a.bodyType != api.ContentJSON {
		accepts, err := s.commander.Accepts(c.service)
		if err != nil {
			return err
		}
		if err := mayBe(a.bodyType, c.service, accepts); err != nil && r.ContentLength != 0 {
			return err
		}
		if large {
			limit = int64(accepts.CommandBytes)
		}
	}
	var err error
	if c.data, err = s.readBody(a, r, limit); err != nil || len(c.data) == 0 {
		return err
	}
	if a.bodyType == "" {
		return a.flight.CheckUndeclared(s.commander, c.service, c.data)
	}
	if service.IsJSON(a.bodyType) {
		return a.flight.CheckJSON(c.data)
	}
	return nil
}

// mayBe reports whether a service may understand data of a media type. Every service may understand JSON. A
// special JSON type is accepted only by a service with exactly that encoding, and other types only by
// services whose encoding is not JSON.
func mayBe(t string, name service.Name, accepts service.Accepts) error {
	if t == "" || t == api.ContentJSON {
		return nil
	}
	want, err := flight.EncodingOf(name, accepts)
	if err != nil {
		return err
	}
	if speaks, _, _ := mime.ParseMediaType(want); t == speaks || !service.IsJSON(speaks) && !service.IsJSON(t) {
		return nil
	}
	return service.Errorf(service.KindUnsupported, "%s takes %s, not %.80q", name, want, t)
}

// wait bounds the wait for an answer that may have a deadline.
func (s *Server) wait(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	return flight.Await(ctx, s.options.RequestTime, deadline)
}

// openStream turns a request into a WebSocket.
func (s *Server) openStream(a *answer, r *http.Request) error { return s.streams.Serve(a, r) }

func (s *Server) sendCommand(a *answer, r *http.Request) error {
	c, err := readCall(r)
	if err != nil {
		return err
	}
	cmd := service.Command{Service: c.service, Key: c.key, Type: c.typ, Deadline: c.deadline}
	if err := commandHeaders(r.Header, &cmd); err != nil {
		return err
	}
	if err := s.readData(a, r, &c); err != nil {
		return err
	}
	carried, err := a.carry()
	if err != nil {
		return &commandError{err, cmd.ID}
	}
	defer carried.Free()
	cmd.Data, cmd.Carrier = c.data, carried
	ctx, cancel := s.wait(r.Context(), c.deadline)
	defer cancel()
	reply, err := s.commander.Send(ctx, cmd)
	cmd.Data = nil
	if err != nil {
		return &commandError{withRetry(err), cmd.ID}
	}
	a.Header().Set("ETag", api.FormatETag(reply.Version))
	a.pacer = s.traffic.Pace(ctx, c.service, len(reply.Data))
	text := api.ReplyText(nil, &reply)
	a.sendTexts(http.StatusOK, api.ContentJSON, text, api.Text(newline))
	return nil
}

var newline = []byte("\n")

// withRetry gives a temporary status to an outcome that will be known later: the command was carried out, but
// there was no room for its reply.
func withRetry(err error) error {
	var e *service.Error
	if errors.As(err, &e) && e.Kind == service.KindUnknown && e.Resource != "" {
		return api.WithStatus(http.StatusServiceUnavailable, err)
	}
	return err
}

// commandHeaders reads the headers of a command.
func commandHeaders(h http.Header, cmd *service.Command) error {
	var err error
	switch ids := h.Values(api.HeaderCommandID); len(ids) {
	case 0: // the gateway chooses it, so that an unknown outcome can be resolved by a repetition
		cmd.ID = service.NewCommandID()
	case 1:
		if cmd.ID, err = api.ParseIdempotencyKey(ids[0]); err != nil {
			return err
		}
	default:
		return service.Errorf(service.KindInvalid, "%s is there %d times", api.HeaderCommandID, len(ids))
	}
	match, none := h.Values(api.HeaderExpected), h.Values("If-None-Match")
	switch {
	case len(match)+len(none) > 1:
		return service.Errorf(service.KindInvalid, "If-Match and If-None-Match are there more than once together")
	case len(match) == 1:
		v, err := api.ParseIfMatch(match[0])
		if err != nil {
			return err
		}
		cmd.Expected = &v
	case len(none) == 1:
		if none[0] != "*" {
			return service.Errorf(service.KindInvalid, "If-None-Match takes * only: the entity must be new")
		}
		cmd.Expected = new(service.Version)
	}
	cmd.Metadata, err = headerMetadata(h)
	return err
}

// headerMetadata collects trace context and metadata. A trace context that is malformed or repeated is left
// out, as its standard requires. A member of the metadata with the same name as the trace context is refused.
func headerMetadata(h http.Header) (abi.Metadata, error) {
	var m abi.Metadata
	if text := h.Get(api.HeaderMetadata); text != "" {
		var err error
		if m, err = api.ParseMetadata([]byte(text)); err != nil {
			return nil, err
		}
	}
	traces := h.Values(api.HeaderTraceparent)
	if len(traces) != 1 || !api.ValidTraceparent(traces[0]) {
		return m, nil
	}
	if names(m, "traceparent") {
		return nil, service.Errorf(service.KindInvalid, "traceparent is both a header and in the metadata")
	}
	m = m.AppendPair("traceparent", traces[0])
	// A repeated header is a list in parts.
	if state := strings.Join(h.Values(api.HeaderTracestate), ","); api.ValidTracestate(state) &&
		!names(m, "tracestate") {
		m = m.AppendPair("tracestate", state)
	}
	if len(m) > abi.MaxMetadataSize {
		return nil, service.Errorf(service.KindTooLarge, "metadata is larger than %d bytes", abi.MaxMetadataSize)
	}
	return m, nil
}

// names reports whether metadata has a name, in any case.
func names(m abi.Metadata, name string) bool {
	for {
		n, _, rest, ok := m.Next()
		if !ok {
			return false
		}
		if strings.EqualFold(string(n), name) {
			return true
		}
		m = rest
	}
}

func (s *Server) queryEntity(a *answer, r *http.Request) error {
	c, err := readCall(r)
	if err != nil {
		return err
	}
	if r.Method == http.MethodPost {
		if err := s.readData(a, r, &c); err != nil {
			return err
		}
	} else if data := a.params.Get("data"); data != "" {
		c.data = []byte(data)
		if err := a.flight.CheckJSON(c.data); err != nil {
			return err
		}
	}
	carried, err := a.carry()
	if err != nil {
		return err
	}
	defer carried.Free()
	ctx, cancel := s.wait(r.Context(), c.deadline)
	defer cancel()
	reply, err := s.commander.Query(ctx, service.Query{Service: c.service, Key: c.key, Type: c.typ, Data: c.data,
		Deadline: c.deadline, Carrier: carried})
	if err != nil {
		return err
	}
	if r.Method != http.MethodPost {
		tag := queryTag(reply.Version, reply.Data)
		a.Header().Set("ETag", tag)
		a.Header().Set("Cache-Control", "private, no-cache") // it may be cached, but must be revalidated
		if matches(r.Header.Values("If-None-Match"), tag) {
			a.LimitWrite()
			a.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	a.pacer = s.traffic.Pace(ctx, c.service, len(reply.Data))
	a.sendTexts(http.StatusOK, api.ContentJSON, api.QueryReplyText(nil, &reply), api.Text(newline))
	return nil
}
