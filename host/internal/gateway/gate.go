package gateway

import (
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// The gate is what a request passes before its handler sees it. It refuses everything in a request that would
// have no effect, as the client would otherwise believe that it had one: a parameter or a body that the
// operation does not have, a repeated header, a body in an unsupported form. Texts are UTF-8. JSON must pass
// service.CheckJSON and DecodeJSON; messages on a WebSocket pass both in api.DecodeClientMessage.

// takes is what an operation accepts beside its path.
type takes struct {
	params  []string // of the query
	body    body
	answers answers
}

// answers are the possible forms of an operation's answer; nil means JSON.
type answers []string

// Answers that are not JSON, or not only JSON.
var (
	lines        = answers{api.ContentJSON, api.ContentLines}
	eventAnswers = answers{api.ContentJSON, api.ContentSSE, api.ContentBatch}
	backups      = answers{api.ContentBackup}
	plainText    = answers{"text/plain"}
	nothing      = answers{}
)

// body is the kind of body that an operation accepts.
type body int

const (
	noBody     body = iota
	jsonBody        // JSON for the host
	moduleBody      // a WebAssembly module
	dataBody        // data for the service
)

// listParams may be repeated.
var listParams = []string{"types", "keys"}

// onceHeaders must not be repeated. A repeated traceparent is ignored, as its standard requires; see
// headerMetadata.
var onceHeaders = []string{
	"Content-Type", api.HeaderCommandID, api.HeaderExpected, api.HeaderDeadline, api.HeaderMetadata,
	api.HeaderLastEventID,
}

var justJSON = answers{api.ContentJSON}

// admit checks a request, and returns the reason for a refusal.
func (t *takes) admit(a *answer, r *http.Request) (err error) {
	for _, name := range onceHeaders {
		if n := len(r.Header[name]); n > 1 {
			return service.Errorf(service.KindInvalid, "the header %s is there %d times", name, n)
		}
	}
	if a.params, err = t.query(r.URL.RawQuery); err != nil {
		return err
	}
	if t.answers == nil {
		err = acceptable(r, justJSON)
	} else {
		err = acceptable(r, t.answers)
	}
	if err == nil {
		err = t.form(a, r)
	}
	if err != nil && r.ContentLength != 0 {
		a.Header().Set("Connection", "close") // the rest of the body is not read
	}
	return err
}

// query reads the parameters.
func (t *takes) query(raw string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, service.Errorf(service.KindInvalid, "the query of the URL is malformed")
	}
	for name, values := range q {
		if !slices.Contains(t.params, name) {
			there := "none here"
			if len(t.params) > 0 {
				there = strings.Join(t.params, ", ")
			}
			return nil, service.Errorf(service.KindInvalid, "there is no parameter %.80q; there are %s", name, there)
		}
		if len(values) > 1 && !slices.Contains(listParams, name) {
			return nil, service.Errorf(service.KindInvalid, "parameter %.80q is there %d times", name, len(values))
		}
		for _, v := range values {
			switch {
			case !utf8.ValidString(v):
				return nil, service.Errorf(service.KindInvalid, "parameter %.80q is not UTF-8", name)
			case v == "" && slices.Contains(listParams, name): // probably a mistake; it would match everything
				return nil, service.Errorf(service.KindInvalid, "parameter %.80q is empty; leave it out, or give it "+
					"a value", name)
			}
		}
	}
	return q, nil
}

// form checks that the body, if there is one, has the form that the operation accepts.
func (t *takes) form(a *answer, r *http.Request) error {
	for _, value := range r.Header.Values("Content-Encoding") {
		if value = strings.TrimSpace(value); value != "" && !strings.EqualFold(value, "identity") {
			a.Header().Set("Accept-Encoding", "identity") // RFC 9110, 15.5.16
			return service.Errorf(service.KindUnsupported, "the body has the Content-Encoding %.40q; send it as it is",
				value)
		}
	}
	var err error
	if a.bodyType, err = contentType(r); err != nil {
		return err
	}
	switch {
	case t.body == noBody && r.ContentLength != 0:
		return service.Errorf(service.KindInvalid, "this takes no body")
	case t.body == jsonBody && a.bodyType != "" && a.bodyType != api.ContentJSON:
		return service.Errorf(service.KindUnsupported, "this takes %s, not %.80q", api.ContentJSON, a.bodyType)
	case t.body == moduleBody && a.bodyType != "" && a.bodyType != api.ContentWasm &&
		a.bodyType != "application/octet-stream":
		return service.Errorf(service.KindUnsupported, "a module comes as %s, not %.80q", api.ContentWasm, a.bodyType)
	}
	return nil
}

// contentType is the media type of a request's body, without parameters; empty if the sender gave none. The
// form type, which command line clients send by default, counts as none.
func contentType(r *http.Request) (string, error) {
	h := r.Header.Get("Content-Type")
	if h == "" || h == api.ContentJSON { // almost always
		return h, nil
	}
	t, params, err := mime.ParseMediaType(h)
	if err != nil {
		return "", service.Errorf(service.KindUnsupported, "the content type %.80q cannot be read", h)
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return "", service.Errorf(service.KindUnsupported, "the body is in %.40q; text is read as UTF-8 only", charset)
	}
	if t == "application/x-www-form-urlencoded" {
		return "", nil
	}
	return t, nil
}
