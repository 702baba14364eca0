package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// deployer changes the set of services and their modules.
type deployer interface {
	// Upload verifies and stores a module. progress may be nil; it is called until Upload returns, and must
	// not block.
	Upload(ctx context.Context, module []byte, progress func(service.Progress)) (service.Module, error)
	// Deploy returns when the service runs.
	Deploy(ctx context.Context, d service.Deployment) (service.Status, error)
	Verify(ctx context.Context, d service.Deployment) (service.Verification, error)
	// Delete stops a service.
	Delete(ctx context.Context, name service.Name) error
	// Deployments reads a page of a service's history, the newest first. Rollback deploys an entry of it again.
	Deployments(
		ctx context.Context, name service.Name, before service.Version, limit int,
	) (service.DeploymentPage, error)
	Rollback(ctx context.Context, r service.Rollback) (service.Status, error)
}

// deployerRoutes are the routes of a deployer.
func (s *Server) deployerRoutes() []route {
	return []route{
		{"POST", "/v1/modules", guarded, takes{body: moduleBody, answers: lines}, s.uploadModule},
		{"PUT", "/v1/services/{service}", guarded, takes{body: jsonBody, answers: lines}, s.deployService},
		{"DELETE", "/v1/services/{service}", guarded, takes{answers: nothing}, s.deleteService},
		{
			"POST", "/v1/services/{service}/deployments", guarded,
			takes{deploymentNames, moduleBody, lines}, s.uploadAndDeploy,
		},
		{
			"GET", "/v1/services/{service}/deployments", guarded,
			takes{params: []string{"before", "limit"}}, s.listDeployments,
		},
		{"POST", "/v1/services/{service}/rollback", guarded, takes{body: jsonBody, answers: lines}, s.rollback},
	}
}

// observer reports the services and their states.
type observer interface {
	// Services is the status of all services, by name, and Status that of one; KindNotFound if there is none.
	Services() []service.Status
	Status(name service.Name) (service.Status, error)
	// EventTypes is the event catalogue of a service: the types of its readable events, by name.
	EventTypes(ctx context.Context, name service.Name) ([]journal.EventType, error)
}

// observerRoutes are the routes of an observer.
func (s *Server) observerRoutes() []route {
	return []route{
		{"GET", "/v1/services", guarded, takes{params: []string{"manifest"}}, s.listServices},
		{"GET", "/v1/services/{service}", guarded, takes{}, s.getService},
		{"GET", "/v1/services/{service}/event-types", guarded, takes{}, s.eventTypes},
		{"GET", "/v1/services/{service}/openapi.json", guarded, takes{}, s.describeService},
	}
}

// What the status of a service takes in memory while it is encoded, in bytes: its manifest as a structure, as
// JSON, and within the answer; and the rest.
const (
	manifestRoom = 4 * abi.MaxManifestSize
	statusRoom   = 8 << 10
	shardRoom    = 256
)

// listServices answers with one service after the other, so that a list takes no more memory than its longest
// line. Manifests, which can be large, are only included on request.
func (s *Server) listServices(a *answer, _ *http.Request) error {
	manifests := a.params.Get("manifest")
	if manifests != "" && manifests != "true" && manifests != "false" {
		return service.Errorf(service.KindInvalid, "manifest is %.80q; it is true or false", manifests)
	}
	room := statusRoom
	if manifests == "true" {
		room = manifestRoom
	}
	all := s.observer.Services()
	for i := range all {
		room += shardRoom * len(all[i].Shards)
	}
	if err := a.Take(room + len(all)*shardRoom); err != nil {
		return err
	}
	return a.sendList(`{"services":[`, "]}", len(all), func(i int) any {
		if manifests != "true" {
			all[i].Manifest = abi.Manifest{}
		}
		return api.ServiceOf(all[i])
	})
}

func (s *Server) getService(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	status, err := s.observer.Status(name)
	if err != nil {
		return err
	}
	if err := a.takeStatus(len(status.Shards)); err != nil {
		return err
	}
	return s.showService(a, status)
}

// takeStatus takes the memory for an answer about a module, or a service with so many shards. On a host whose
// connections may hold little, it takes most of that, as most manifests are far from the maximum.
func (a *answer) takeStatus(shards int) error {
	room := manifestRoom + statusRoom + shardRoom*min(max(shards, 0), service.GreatestShards)
	return a.Take(min(room, int(a.flight.Limit()*3/4)))
}

// showService answers with the whole status of a service. The memory for it has been taken.
func (s *Server) showService(a *answer, status service.Status) error {
	body, err := json.Marshal(api.ServiceOf(status))
	if err != nil {
		return service.Errorf(service.KindInternal, "answer: %w", err)
	}
	a.send(http.StatusOK, api.ContentJSON, append(body, '\n'))
	return nil
}

// typeRoom is what an event type in a list takes in memory, as a structure and as JSON, in bytes.
const typeRoom = 512

// eventTypes answers with the event catalogue of a service. It reads a few entries of the index. A module had
// to know all these types, so their number is bounded by the size of a manifest.
func (s *Server) eventTypes(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	types, err := s.observer.EventTypes(r.Context(), name)
	if err != nil {
		return err
	}
	if err := a.Take(len(types) * typeRoom); err != nil {
		return err
	}
	return a.sendList(`{"types":[`, "]}", len(types), func(i int) any { return types[i] })
}

func (s *Server) deleteService(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	if err := s.deployer.Delete(r.Context(), name); err != nil {
		return err
	}
	a.LimitWrite()
	a.WriteHeader(http.StatusNoContent)
	return nil
}

// readModule reads an uploaded module of at most limit bytes. The returned function ends the upload; until
// then it counts as one.
func (s *Server) readModule(a *answer, r *http.Request, limit int64) (module []byte, ended func(), err error) {
	u := s.uploads.begin()
	module, err = s.readInto(a, r, limit, u.hold)
	if err == nil && len(module) == 0 {
		err = &service.Error{Kind: service.KindBadModule, Message: "the body is empty; it should be a WebAssembly " +
			"module", Reasons: []string{"no bytes"}}
	}
	if err == nil {
		err = u.work(int64(len(module)))
	}
	if err != nil {
		u.end()
		return nil, nil, err
	}
	return module, u.end, nil
}

func (s *Server) uploadModule(a *answer, r *http.Request) error {
	module, ended, err := s.readModule(a, r, s.options.ModuleBytes)
	if err != nil {
		return err
	}
	defer ended()
	if prefers(r, api.ContentLines) {
		return s.streamProgress(a, r, 0, func(ctx context.Context, progress func(service.Progress)) (any, error) {
			m, err := s.deployer.Upload(ctx, module, progress)
			module := api.ModuleOf(m)
			return api.UploadLine{Module: &module}, err
		})
	}
	if err := a.takeStatus(0); err != nil {
		return err
	}
	m, err := s.deployer.Upload(r.Context(), module, nil)
	if err != nil {
		return err
	}
	return a.json(http.StatusOK, api.ModuleOf(m))
}

// maxDeployment is the maximum size of the JSON of a deployment, in bytes.
const maxDeployment = 64 << 10

func (s *Server) deployService(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	body, err := s.readBody(a, r, maxDeployment)
	if err != nil {
		return err
	}
	var d api.Deployment
	if err := service.DecodeJSON(body, &d); err != nil {
		return prefixError("the deployment", err)
	}
	if d.Module == (service.Digest{}) {
		return service.Errorf(service.KindInvalid, "the deployment names no module")
	}
	verify, err := d.Verify.Value()
	if err != nil {
		return err
	}
	return s.deploy(a, r, d.Settings.Shards, s.deploying(service.Deployment{Service: name, Digest: d.Module,
		Limits: d.Limits, Settings: d.Settings, Verify: verify}))
}

func (s *Server) uploadAndDeploy(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	verify, dry, err := verifyParams(a.params)
	if err != nil {
		return err
	}
	limits, settings, err := deploymentParams(a.params)
	if err != nil {
		return err
	}
	// The module must keep the deployer's limits and the operator's.
	module, ended, err := s.readModule(a, r, min(or(limits.ModuleBytes, s.options.ModuleBytes), s.options.ModuleBytes))
	if err != nil {
		return err
	}
	defer ended()
	d := service.Deployment{Service: name, Module: module, Limits: limits, Settings: settings, Verify: verify}
	if dry {
		return s.dryRun(a, r, d)
	}
	return s.deploy(a, r, settings.Shards, s.deploying(d))
}

// dryRun verifies a module without deploying it.
func (s *Server) dryRun(a *answer, r *http.Request, d service.Deployment) error {
	if prefers(r, api.ContentLines) {
		return s.streamProgress(a, r, 0, func(ctx context.Context, progress func(service.Progress)) (any, error) {
			d.Progress = progress
			v, err := s.deployer.Verify(ctx, d)
			return api.DeployLine{Verification: &v}, err
		})
	}
	if err := a.takeStatus(0); err != nil {
		return err
	}
	v, err := s.deployer.Verify(r.Context(), d)
	if err != nil {
		return err
	}
	return a.json(http.StatusOK, api.DryRun{Verification: v})
}

// verifyNames are the parameters about the verification of a deployment.
var verifyNames = append(memberNames(reflect.TypeFor[api.Verify]()), dryRunName)

const dryRunName = "dry_run"

// verifyParams takes the parameters about the verification out of a query.
func verifyParams(q url.Values) (v service.Verify, dry bool, err error) {
	var text api.Verify
	yes := func(name string) (yes bool) {
		switch value := q.Get(name); {
		case !q.Has(name) || value == "false":
		case value == "true":
			yes = true
		case err == nil:
			err = service.Errorf(service.KindInvalid, "parameter %q is %.80q; it takes true or false", name, value)
		}
		return yes
	}
	text.Mode, text.RequireSame, dry = q.Get("verify"), yes("require_same"), yes(dryRunName)
	const timeout = "verify_timeout_ms"
	if q.Has(timeout) && err == nil {
		if text.TimeoutMS, err = strconv.ParseInt(q.Get(timeout), 10, 64); err != nil {
			err = service.Errorf(service.KindInvalid, "parameter %q is %.80q; it takes a whole number", timeout,
				q.Get(timeout))
		}
	}
	for _, name := range verifyNames {
		q.Del(name)
	}
	if err != nil {
		return v, dry, err
	}
	v, err = text.Value()
	return v, dry, err
}

// deploymentNames are the parameters of a deployment: the members of limits and settings, and those about its
// verification.
var deploymentNames = slices.Concat(memberNames(reflect.TypeFor[service.Limits]()),
	memberNames(reflect.TypeFor[service.Settings]()), verifyNames)

func memberNames(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// deploymentParams reads limits and settings from a query, by the names of their JSON members.
func deploymentParams(q url.Values) (service.Limits, service.Settings, error) {
	members := map[string]json.RawMessage{}
	for name := range q {
		value := q.Get(name)
		if _, err := strconv.ParseInt(value, 10, 64); (err != nil || !json.Valid([]byte(value))) && value != "true" &&
			value != "false" {
			return service.Limits{}, service.Settings{}, service.Errorf(service.KindInvalid,
				"parameter %.80q is %.80q; it takes a whole number, or true or false", name, value)
		}
		members[name] = json.RawMessage(value)
	}
	var v struct {
		service.Limits
		service.Settings
	}
	text, err := json.Marshal(members)
	if err == nil {
		err = service.DecodeJSON(text, &v)
	}
	if err != nil {
		return service.Limits{}, service.Settings{}, prefixError("the parameters, which are limits and settings", err)
	}
	if err := v.Limits.WithDefaults().Validate(); err != nil {
		return service.Limits{}, service.Settings{}, err
	}
	return v.Limits, v.Settings, v.Settings.WithDefaults().Validate()
}

// deployment makes a service run a module. progress may be nil.
type deployment func(ctx context.Context, progress func(service.Progress)) (service.Status, error)

// deploying is the deployment d.
func (s *Server) deploying(d service.Deployment) deployment {
	return func(ctx context.Context, progress func(service.Progress)) (service.Status, error) {
		d.Progress = progress
		return s.deployer.Deploy(ctx, d)
	}
}

// deploy does a deployment with that number of shards (0: unknown), and answers with the service or, on request, with
// lines of progress and then the service.
func (s *Server) deploy(a *answer, r *http.Request, shards int, do deployment) error {
	shards = or(shards, service.GreatestShards)
	if !prefers(r, api.ContentLines) {
		// first, so that a deployment that was made is not reported as refused
		if err := a.takeStatus(shards); err != nil {
			return err
		}
		status, err := do(r.Context(), nil)
		if err != nil {
			return err
		}
		return s.showService(a, status)
	}
	return s.streamProgress(a, r, shards, func(ctx context.Context, progress func(service.Progress)) (any, error) {
		status, err := do(ctx, progress)
		if err != nil {
			return nil, err
		}
		deployed := api.ServiceOf(status)
		return api.DeployLine{Service: &deployed}, nil
	})
}

// deploymentRoom is what an entry of a history takes in memory, as a structure and as JSON, in bytes.
const deploymentRoom = 4 << 10

// listDeployments answers with a page of a service's history.
func (s *Server) listDeployments(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	limit, err := parseLimit(a.params.Get("limit"))
	if err != nil {
		return err
	}
	before := uint64(0)
	if text := a.params.Get("before"); text != "" {
		if before, err = strconv.ParseUint(text, 10, 64); err != nil {
			return service.Errorf(service.KindInvalid, "before is %.80q; it is the number of a deployment", text)
		}
	}
	if err := a.Take(limit * deploymentRoom); err != nil {
		return err
	}
	page, err := s.deployer.Deployments(r.Context(), name, service.Version(before), limit)
	if err != nil {
		return err
	}
	if page.Deployments == nil {
		page.Deployments = []service.DeploymentEntry{}
	}
	return a.json(http.StatusOK, page)
}

// rollback deploys an earlier deployment again.
func (s *Server) rollback(a *answer, r *http.Request) error {
	name, err := pathService(r)
	if err != nil {
		return err
	}
	body, err := s.readBody(a, r, maxDeployment)
	if err != nil {
		return err
	}
	var want api.Rollback
	if err := service.DecodeJSON(body, &want); err != nil {
		return prefixError("the rollback", err)
	}
	verify, err := want.Verify.Value()
	if err != nil {
		return err
	}
	return s.deploy(a, r, 0, func(ctx context.Context, p func(service.Progress)) (service.Status, error) {
		return s.deployer.Rollback(ctx, service.Rollback{Service: name, To: want.To, Verify: verify, Progress: p})
	})
}

// work takes long and reports its progress. Its result is a line of an answer.
type work func(ctx context.Context, progress func(service.Progress)) (line any, err error)

// streamProgress does work and answers with lines: progress, and finally the result or a problem. The result
// may contain a manifest and so many shards; the memory for that is taken before the work begins.
func (s *Server) streamProgress(a *answer, r *http.Request, shards int, do work) error {
	if err := a.takeStatus(shards); err != nil {
		return err
	}
	type result struct {
		line any
		err  error
	}
	// Progress is optional: what does not fit is dropped, so that a client that does not read delays nothing.
	progress := make(chan service.Progress, 64)
	done := make(chan result, 1)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() { // ends with the work, soon after ctx
		line, err := do(ctx, func(p service.Progress) {
			select {
			case progress <- p:
			default:
			}
		})
		done <- result{line, err}
	}()
	a.stream = true
	a.Header().Set("Content-Type", api.ContentLines)
	a.LimitWrite()
	a.WriteHeader(http.StatusOK)
	write := func(line any) {
		text, _ := json.Marshal(line) // its types can always be encoded
		a.LimitWrite()
		_, _ = a.Write(append(text, '\n')) // if the client has gone, ctx has ended, and so has the work
		_ = a.FlushError()
	}
	for {
		select {
		case p := <-progress:
			write(api.DeployLine{Progress: &p})
		case res := <-done:
			for len(progress) > 0 {
				p := <-progress
				write(api.DeployLine{Progress: &p})
			}
			if res.err != nil {
				p := a.Problem(res.err)
				res.line = api.DeployLine{Problem: &p}
			}
			write(res.line)
			return nil
		}
	}
}

// prefixError adds what is malformed before the error.
func prefixError(what string, err error) error {
	var e *service.Error
	if !errors.As(err, &e) {
		return err
	}
	said := *e
	said.Message = what + ": " + e.Message
	return &said
}
