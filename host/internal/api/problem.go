package api

import (
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// ContentProblem is the media type of a [Problem].
const ContentProblem = "application/problem+json"

// problemType and requestURN are URN prefixes: a problem's type names its kind, and its instance the request.
// They do not refer to any web site.
const (
	problemType = "urn:bulkhead:problem:"
	requestURN  = "urn:bulkhead:request:"
)

// Maximum sizes of texts from a guest or client in a problem.
const (
	maxDetail  = 8 << 10
	maxReasons = 100
)

// Problem is an error as clients see it: the problem details of RFC 9457, where Kind is the member to branch
// on. It never contains what is only for the operator.
type Problem struct {
	Type     string `json:"type"`               // urn:bulkhead:problem: and the kind, with - for _
	Title    string `json:"title"`              // the kind in words; the same for each problem of a kind
	Status   int    `json:"status"`             // HTTP status
	Detail   string `json:"detail,omitempty"`   // what was wrong, what was expected, what to do
	Instance string `json:"instance,omitempty"` // urn:bulkhead:request:<id>; the host's log has the same id
	Kind     string `json:"kind"`               // stable; see [service.Kind]

	Service      service.Name      `json:"service,omitempty"`        // the service concerned
	Code         string            `json:"code,omitempty"`           // of a rejection or fault: the service's own
	Reasons      []string          `json:"reasons,omitempty"`        // every violation, if there can be several
	Pointer      *string           `json:"pointer,omitempty"`        // of data that does not fit its schema: a JSON Pointer to the place; "" is all of it
	Version      *service.Version  `json:"version,omitempty"`        // of a version conflict: the entity's present version
	CommandID    service.CommandID `json:"command_id,omitempty"`     // of the command that failed: repeat it under this id
	RetryAfterMS int64             `json:"retry_after_ms,omitempty"` // when to try again
	Fuel         uint64            `json:"fuel,omitempty"`           // spent by a call that failed in the service

	Resource string `json:"resource,omitempty"` // of an overload or quota: what of the host's budget is used up
	Used     int64  `json:"used,omitempty"`     // of the resource
	Limit    int64  `json:"limit,omitempty"`    // of the resource
}

type kindFacts struct {
	status int
	title  string
}

// kinds says how each kind looks in HTTP. The statuses are part of the protocol. With 4xx the sender must
// change the request. 500 is a failure of the service or of the host; kind tells which. It is not 502,
// because then proxies would send the command again, or take the host out of service. 503, 504 and 507 are
// temporary.
var kinds = map[service.Kind]kindFacts{
	service.KindInternal:        {http.StatusInternalServerError, "The host failed"},
	service.KindInvalid:         {http.StatusBadRequest, "The request is malformed"},
	service.KindTooLarge:        {http.StatusRequestEntityTooLarge, "The request is above a size limit"},
	service.KindUnauthorized:    {http.StatusUnauthorized, "Not authorized"},
	service.KindNotFound:        {http.StatusNotFound, "There is no such thing"},
	service.KindUnknownType:     {http.StatusNotFound, "The service has no such command or query"},
	service.KindUnsupported:     {http.StatusUnsupportedMediaType, "Not spoken here"},
	service.KindBadModule:       {http.StatusUnprocessableEntity, "The module breaks rules of the ABI"},
	service.KindConflicting:     {http.StatusConflict, "It does not fit what is there"},
	service.KindVersionConflict: {http.StatusPreconditionFailed, "The entity is not at the expected version"},
	service.KindIDReused:        {http.StatusUnprocessableEntity, "The command id was used with other content"},
	service.KindOverloaded:      {http.StatusServiceUnavailable, "Too much at once"},
	service.KindUnavailable:     {http.StatusServiceUnavailable, "Not taking commands now"},
	service.KindDeadline:        {http.StatusGatewayTimeout, "The deadline passed before the command ran"},
	service.KindCanceled:        {499, "The caller went away before the command ran"},
	service.KindRejected:        {http.StatusUnprocessableEntity, "The service refused"},
	service.KindFault:           {http.StatusInternalServerError, "The service's handler failed"},
	service.KindTrap:            {http.StatusInternalServerError, "The service trapped"},
	service.KindGuestDeadline:   {http.StatusGatewayTimeout, "The service took too long"},
	service.KindGuestMemory:     {http.StatusInternalServerError, "The service ran out of memory"},
	service.KindGuestExit:       {http.StatusInternalServerError, "The service exited"},
	service.KindGuestFuel:       {http.StatusInternalServerError, "The service spent its fuel"},
	service.KindGuestStack:      {http.StatusInternalServerError, "The service exhausted its stack"},
	service.KindProtocol:        {http.StatusInternalServerError, "The service's answer broke the ABI"},
	service.KindOutcomeTooLarge: {http.StatusInternalServerError, "The service's answer is above a limit"},
	service.KindUnknown: {http.StatusInternalServerError, "The outcome is not known; send the same command " +
		"id again"},
	service.KindBadCursor: {http.StatusBadRequest, "The cursor cannot be used here"},
	service.KindFull:      {http.StatusInsufficientStorage, "The journal is full"},
	service.KindDamaged:   {http.StatusInternalServerError, "The service's log is damaged"},
	service.KindQuota:     {http.StatusInsufficientStorage, "A resource of the host is used up"},
}

// StatusOf is the usual HTTP status of a kind. An unknown kind counts as a failure of the host.
func StatusOf(k service.Kind) int { return facts(k).status }

func facts(k service.Kind) kindFacts {
	f, ok := kinds[k]
	if !ok {
		f = kinds[service.KindInternal]
	}
	return f
}

// statusError is an error with another status than its kind usually has.
type statusError struct {
	err    error
	status int
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// WithStatus gives an error another HTTP status than its kind usually has.
func WithStatus(status int, err error) error { return &statusError{err, status} }

// ProblemOf turns an error into what a client may see of it. Of an internal error that is only the request's
// id.
func ProblemOf(err error, requestID string) Problem {
	kind := service.KindOf(err)
	f := facts(kind)
	p := Problem{Type: problemType + strings.ReplaceAll(kind.String(), "_", "-"), Title: f.title, Status: f.status,
		Kind: kind.String()}
	var other *statusError
	if errors.As(err, &other) {
		p.Status = other.status
	}
	if requestID != "" {
		p.Instance = requestURN + requestID
	}
	var e *service.Error
	if !errors.As(err, &e) {
		return p
	}
	p.Service, p.RetryAfterMS, p.Fuel = e.Service, milliseconds(e.RetryAfter), e.Fuel
	if kind == service.KindInternal {
		return p
	}
	p.Detail, p.Code = cut(e.Message), cut(e.Code)
	p.Resource, p.Used, p.Limit = e.Resource, e.Used, e.Limit
	p.Pointer, p.Version = e.Pointer, e.Version
	for _, r := range e.Reasons[:min(len(e.Reasons), maxReasons)] {
		p.Reasons = append(p.Reasons, cut(r))
	}
	return p
}

// RequestID is the id under which the host's log has the problem.
func (p *Problem) RequestID() string { return strings.TrimPrefix(p.Instance, requestURN) }

// Err turns a problem from the wire back into an error. If the kind is unknown, the status decides.
func (p *Problem) Err() *service.Error {
	kind, ok := service.ParseKind(p.Kind)
	if !ok {
		kind = kindOfStatus(p.Status)
	}
	e := &service.Error{
		Service: p.Service, Kind: kind, Code: p.Code, Message: p.Detail, Reasons: p.Reasons, Pointer: p.Pointer,
		Version:    p.Version,
		RetryAfter: time.Duration(p.RetryAfterMS) * time.Millisecond, Fuel: p.Fuel,
		Resource: p.Resource, Used: p.Used, Limit: p.Limit,
	}
	if e.Message == "" {
		e.Message = p.Title
		if id := p.RequestID(); id != "" {
			e.Message += " (request " + id + ")"
		}
	}
	return e
}

// kindOfStatus gives a kind to an answer without a known one, such as a proxy's. A 5xx may have come after
// the command ran, so the outcome is unknown.
func kindOfStatus(status int) service.Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusMisdirectedRequest:
		return service.KindUnauthorized
	case http.StatusNotFound:
		return service.KindNotFound
	case http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge, http.StatusRequestURITooLong:
		return service.KindTooLarge
	case http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusUnsupportedMediaType,
		http.StatusUpgradeRequired:
		return service.KindUnsupported
	case http.StatusTooManyRequests:
		return service.KindOverloaded
	}
	if status >= 400 && status < 500 {
		return service.KindInvalid
	}
	return service.KindUnknown
}

// ErrorOfAnswer is the error of an answer whose body is not a problem document.
func ErrorOfAnswer(status int) *service.Error {
	return service.Errorf(kindOfStatus(status), "the server answered %d %s without saying why", status,
		http.StatusText(status))
}

func milliseconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return max(1, d.Milliseconds())
}

// cut shortens a text between characters.
func cut(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	n := maxDetail
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
