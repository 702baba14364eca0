package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Upload verifies and stores a module. progress, if not nil, is called one call at a time, and not after
// Upload has returned: first with uploading, in bytes, then with what the host reports. It must not block for
// long.
func (c *Client) Upload(ctx context.Context, module []byte, progress func(service.Progress)) (service.Module, error) {
	told := tell(progress)
	defer told.end()
	last, err := c.lines(ctx, request{
		method: http.MethodPost, path: "/v1/modules", header: contentType(api.ContentWasm),
		body: told.counted(module), length: int64(len(module)),
	}, told)
	if err != nil {
		return service.Module{}, err
	}
	if last.Module == nil {
		return service.Module{}, c.garbled(errors.New("the last line is of something else"), false)
	}
	return last.Module.Value(), nil
}

// line is one line of an upload or a deployment.
type line struct {
	api.DeployLine
	Module *api.Module `json:"module"`
}

// lines makes a request that is answered in lines, and returns the last one.
func (c *Client) lines(ctx context.Context, r request, told *told) (line, error) {
	r.accept = api.ContentLines
	resp, err := c.do(ctx, r)
	if err != nil {
		return line{}, err
	}
	defer drain(resp.Body)
	all := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var l line
		if err := all.Decode(&l); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return line{}, service.Errorf(service.KindUnknown, "the connection ended before the host was through; "+
				"ask for the service's status, or do it again: %w", err)
		}
		switch {
		case l.Problem != nil:
			return line{}, l.Problem.Err()
		case l.Service != nil || l.Module != nil || l.Verification != nil:
			return l, nil
		case l.Progress != nil:
			told.tell(*l.Progress)
		}
	}
}

// Deploy makes a module a service, or swaps the module of a running one, and
// returns when it runs. Progress is as that of Upload. Of d.Verify, the mode, the timeout and RequireSame are
// sent; the other bounds are the host's own.
func (c *Client) Deploy(ctx context.Context, d service.Deployment) (service.Status, error) {
	told := tell(d.Progress)
	defer told.end()
	if len(d.Module) > 0 {
		r, err := deployRequest(&d, told)
		if err != nil {
			return service.Status{}, err
		}
		return c.deployed(ctx, r, told)
	}
	text, err := json.Marshal(api.Deployment{Module: d.Digest, Limits: d.Limits, Settings: d.Settings,
		Verify: api.VerifyOf(d.Verify)})
	if err != nil {
		return service.Status{}, service.Errorf(service.KindInvalid, "deployment: %w", err)
	}
	return c.deployed(ctx, request{
		method: http.MethodPut, path: servicePath(d.Service, ""), header: contentType(api.ContentJSON),
		body: body(text), length: int64(len(text)),
	}, told)
}

// deployRequest is a deployment with the bytes of a module.
func deployRequest(d *service.Deployment, told *told) (request, error) {
	query, err := deploymentQuery(d)
	return request{
		method: http.MethodPost, path: servicePath(d.Service, "/deployments"), query: query,
		header: contentType(api.ContentWasm), body: told.counted(d.Module), length: int64(len(d.Module)),
	}, err
}

// Verify verifies a module, whose bytes are in d, against the log of a service, as a deployment does, and
// changes nothing. An error is the one with which the deployment would be refused.
func (c *Client) Verify(ctx context.Context, d service.Deployment) (service.Verification, error) {
	told := tell(d.Progress)
	defer told.end()
	r, err := deployRequest(&d, told)
	if err != nil {
		return service.Verification{}, err
	}
	r.query.Set("dry_run", "true")
	last, err := c.lines(ctx, r, told)
	if err != nil {
		return service.Verification{}, err
	}
	if last.Verification == nil {
		return service.Verification{}, c.garbled(errors.New("the last line is of something else"), false)
	}
	return *last.Verification, nil
}

// deployed makes a request that deploys, and returns the service that runs then.
func (c *Client) deployed(ctx context.Context, r request, told *told) (service.Status, error) {
	last, err := c.lines(ctx, r, told)
	if err != nil {
		return service.Status{}, err
	}
	if last.Service == nil {
		return service.Status{}, c.garbled(errors.New("the last line is of something else"), false)
	}
	return last.Service.Value(), nil
}

// OpenAPI reads the OpenAPI 3.1 document of a service: its commands, queries and events. It is JSON.
func (c *Client) OpenAPI(ctx context.Context, name service.Name) ([]byte, error) {
	var document json.RawMessage
	err := c.call(ctx, request{method: http.MethodGet, path: servicePath(name, "/openapi.json")}, &document)
	return document, err
}

// Rollback deploys an earlier deployment of a service again, with the same checks as any deployment.
func (c *Client) Rollback(ctx context.Context, r service.Rollback) (service.Status, error) {
	told := tell(r.Progress)
	defer told.end()
	text, err := json.Marshal(api.Rollback{To: r.To, Verify: api.VerifyOf(r.Verify)})
	if err != nil {
		return service.Status{}, service.Errorf(service.KindInvalid, "rollback: %w", err)
	}
	return c.deployed(ctx, request{
		method: http.MethodPost, path: servicePath(r.Service, "/rollback"), header: contentType(api.ContentJSON),
		body: body(text), length: int64(len(text)),
	}, told)
}

// Deployments reads a page of a service's history, the newest deployment first: at most limit (0: as many as the host
// chooses) of those with a number below before (0: all).
func (c *Client) Deployments(
	ctx context.Context, name service.Name, before service.Version, limit int,
) (service.DeploymentPage, error) {
	q := url.Values{}
	if before > 0 {
		q.Set("before", strconv.FormatUint(uint64(before), 10))
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var p service.DeploymentPage
	err := c.call(ctx, request{method: http.MethodGet, path: servicePath(name, "/deployments"), query: q}, &p)
	return p, err
}

// deploymentQuery encodes limits, settings and how to verify as the parameters of a deployment. They have the
// names of the JSON members.
func deploymentQuery(d *service.Deployment) (url.Values, error) {
	query := url.Values{}
	for _, v := range []any{d.Limits, d.Settings, api.VerifyOf(d.Verify)} {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, service.Errorf(service.KindInvalid, "deployment: %w", err)
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		members := map[string]any{}
		if err := d.Decode(&members); err != nil {
			return nil, service.Errorf(service.KindInvalid, "deployment: %w", err)
		}
		for name, value := range members {
			query.Set(name, fmt.Sprint(value))
		}
	}
	return query, nil
}

// Service returns the status of a service.
func (c *Client) Service(ctx context.Context, name service.Name) (service.Status, error) {
	var s api.Service
	err := c.call(ctx, request{method: http.MethodGet, path: servicePath(name, "")}, &s)
	return s.Value(), err
}

// EventTypes is the event catalogue of a service: the types of its readable events, by name.
func (c *Client) EventTypes(ctx context.Context, name service.Name) ([]journal.EventType, error) {
	var got api.EventTypes
	err := c.call(ctx, request{method: http.MethodGet, path: servicePath(name, "/event-types")}, &got)
	return got.Types, err
}

// Services returns the status of all services, sorted by name; with manifests, which can be large, on
// request.
func (c *Client) Services(ctx context.Context, manifests bool) ([]service.Status, error) {
	var s api.Services
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/services",
		query: url.Values{"manifest": {strconv.FormatBool(manifests)}}}, &s)
	if err != nil {
		return nil, err
	}
	all := make([]service.Status, len(s.Services))
	for i := range all {
		all[i] = s.Services[i].Value()
	}
	return all, nil
}

// Resources is how much of each of the host's resources is in use, and who holds most of it.
func (c *Client) Resources(ctx context.Context) ([]service.ResourceUsage, error) {
	var r api.Resources
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/resources"}, &r)
	return r.Resources, err
}

// Delete stops a service. Its log is kept.
func (c *Client) Delete(ctx context.Context, name service.Name) error {
	return c.call(ctx, request{method: http.MethodDelete, path: servicePath(name, "")}, nil)
}

// Modules lists the stored modules, and what refers to them.
func (c *Client) Modules(ctx context.Context) (service.Modules, error) {
	var m service.Modules
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/modules"}, &m)
	return m, err
}

// DeleteModule removes a stored module to which no service refers.
func (c *Client) DeleteModule(ctx context.Context, d service.Digest) error {
	return c.call(ctx, request{method: http.MethodDelete, path: "/v1/modules/" + d.String()}, nil)
}

// Ready returns nil if the host accepts commands.
func (c *Client) Ready(ctx context.Context) error {
	return c.call(ctx, request{method: http.MethodGet, path: "/readyz"}, nil)
}

// Send sends a command and returns when its events are on disk.
func (c *Client) Send(ctx context.Context, cmd service.Command) (service.Reply, error) {
	h := http.Header{}
	if cmd.ID != "" {
		h.Set(api.HeaderCommandID, api.FormatIdempotencyKey(cmd.ID))
	}
	if cmd.Expected != nil {
		h.Set(api.HeaderExpected, api.FormatETag(*cmd.Expected))
	}
	if len(cmd.Metadata) > 0 {
		text, err := api.Metadata(cmd.Metadata).MarshalJSON()
		if err != nil {
			return service.Reply{}, service.Errorf(service.KindInvalid, "metadata: %w", err)
		}
		h.Set(api.HeaderMetadata, string(text))
	}
	setContent(h, cmd.Data)
	setDeadline(ctx, h, cmd.Deadline)
	var r api.Reply
	err := c.call(ctx, request{
		method: http.MethodPost, path: entityPath(cmd.Service, cmd.Key, "/commands/"+url.PathEscape(string(cmd.Type))),
		header: h, body: body(cmd.Data), length: int64(len(cmd.Data)), command: true,
	}, &r)
	return r.Value(), err
}

// Query sends a query to an entity and returns the answer.
func (c *Client) Query(ctx context.Context, q service.Query) (service.QueryReply, error) {
	h := http.Header{}
	setContent(h, q.Data)
	setDeadline(ctx, h, q.Deadline)
	var r api.QueryReply
	err := c.call(ctx, request{
		method: http.MethodPost, path: entityPath(q.Service, q.Key, "/queries/"+url.PathEscape(string(q.Type))),
		header: h, body: body(q.Data), length: int64(len(q.Data)),
	}, &r)
	return r.Value(), err
}

// selectionQuery is a selection as parameters of a request.
func selectionQuery(s *service.Selection) url.Values {
	q := url.Values{}
	if s.From.Kind != service.FromStart { // the default
		q.Set("from", s.From.String())
	}
	for _, t := range s.Types {
		q.Add("types", string(t))
	}
	for _, k := range s.Keys {
		q.Add("keys", string(k))
	}
	return q
}

// Events reads one page of a service's events: at most limit, or, if limit is 0, as many as the host chooses.
func (c *Client) Events(ctx context.Context, s service.Selection, limit int) (Page, error) {
	q := selectionQuery(&s)
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var p Page
	err := c.call(ctx, request{method: http.MethodGet, path: servicePath(s.Service, "/events"), query: q}, &p)
	return p, err
}

// EntityEvents reads one page of an entity's events: after a version in digits or a cursor or, if after is
// empty, from the start.
func (c *Client) EntityEvents(
	ctx context.Context, name service.Name, key service.Key, after string, limit int,
) (EntityPage, error) {
	q := url.Values{}
	if after != "" {
		q.Set("after", after)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var p EntityPage
	err := c.call(ctx, request{method: http.MethodGet, path: entityPath(name, key, "/events"), query: q}, &p)
	return p, err
}

// setContent declares data that is not JSON; JSON is the default.
func setContent(h http.Header, data []byte) {
	switch {
	case len(data) == 0:
	case isJSON(data):
		h.Set("Content-Type", api.ContentJSON)
	default:
		h.Set("Content-Type", "application/octet-stream")
	}
}

// setDeadline sends the host the earlier of the command's deadline and the caller's, so that it does not
// carry out a command that no one waits for.
func setDeadline(ctx context.Context, h http.Header, deadline time.Time) {
	if left, ok := left(ctx, deadline); ok {
		h.Set(api.HeaderDeadline, api.FormatDeadline(left))
	}
}

// isJSON reports whether data can be embedded in JSON.
func isJSON(data []byte) bool { return utf8.Valid(data) && json.Valid(data) }

func left(ctx context.Context, deadline time.Time) (time.Duration, bool) {
	if d, ok := ctx.Deadline(); ok && (deadline.IsZero() || d.Before(deadline)) {
		deadline = d
	}
	if deadline.IsZero() {
		return 0, false
	}
	return time.Until(deadline), true
}

func contentType(t string) http.Header { return http.Header{"Content-Type": {t}} }
