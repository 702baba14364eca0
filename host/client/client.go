// Package client connects to a running host over HTTP and WebSocket.
//
// A [Client] sends each command, query and administrative request as one HTTP request, and follows a
// service's events. A [Stream] is one WebSocket connection for many concurrent commands, queries and
// subscriptions: it has the higher throughput.
//
// Errors are [*service.Error]. Branch on [service.KindOf]. Sending a command again under the same
// [service.CommandID] is always safe: the host answers a repeated command with its first answer.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// maxAnswer is the maximum number of bytes that are read of one answer: more than the largest allowed
// outcome.
const maxAnswer = 2 << 30

// Options say how to reach a host.
type Options struct {
	// URL is the host's address, such as http://127.0.0.1:8080. It is required. A path in it
	// is put before the path of each request.
	URL string
	// Token is the host's token; empty: none.
	Token string
	// Connections is the maximum number of idle connections that are kept. Default 256.
	Connections int
	// Retries is the number of failed attempts in a row to reconnect after which Follow gives up. Default 10.
	Retries int
	// Backoff is how long Follow waits before its first attempt. Each further wait is twice as long, up to
	// 100 times of it. All waits are shortened at random, by up to a quarter. Default 100 ms.
	Backoff time.Duration
}

func (o Options) withDefaults() Options {
	if o.Connections == 0 {
		o.Connections = 256
	}
	if o.Retries == 0 {
		o.Retries = 10
	}
	if o.Backoff == 0 {
		o.Backoff = 100 * time.Millisecond
	}
	return o
}

// Client speaks to one host. It is safe for concurrent use. Its errors are
// *service.Error with the kinds that the host gave them. A host that cannot be
// reached is KindUnavailable; if the connection broke when a command may have
// arrived, the kind is KindUnknown, and sending it again under its id is safe.
type Client struct {
	options   Options
	base      *url.URL
	transport *http.Transport
	http      http.Client
}

// New makes a client. It does not connect.
func New(o Options) (*Client, error) {
	o = o.withDefaults()
	base, err := url.Parse(o.URL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, service.Errorf(service.KindInvalid, "%q is not an address of a host, such as http://127.0.0.1:8080",
			o.URL)
	}
	if base.RawQuery != "" || base.Fragment != "" {
		return nil, service.Errorf(service.KindInvalid, "the address of a host has no query and no fragment, but "+
			"this one has")
	}
	base.Path, base.RawPath = strings.TrimSuffix(base.Path, "/"), ""
	t := &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		// A host serves many commands per connection. With the default of two idle ones, most commands would
		// dial.
		MaxIdleConns: o.Connections, MaxIdleConnsPerHost: o.Connections,
		IdleConnTimeout:     30 * time.Second, // less than the host's own, so that the host seldom closes first
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true,
	}
	return &Client{options: o, base: base, transport: t, http: http.Client{Transport: t, CheckRedirect: noRedirect}},
		nil
}

// noRedirect returns a redirect as the answer: a command is not sent to another place.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Close drops idle connections. Calls in flight go on.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// request is one call of the HTTP interface.
type request struct {
	method  string
	path    string // with escapes
	query   url.Values
	header  http.Header
	body    io.Reader // nil: none
	length  int64     // of the body; -1: unknown
	accept  string    // default application/json
	command bool      // the outcome is unknown if the connection breaks after it was sent
}

// do sends r and returns a successful answer, whose body the caller closes.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	target := c.base.String() + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, r.method, target, r.body)
	if err != nil {
		return nil, service.Errorf(service.KindInvalid, "cannot make a request of %.200q: %w", r.path, err)
	}
	if r.header != nil {
		req.Header = r.header
	}
	if r.body != nil {
		req.ContentLength = r.length
	}
	if r.accept == "" {
		r.accept = api.ContentJSON
	}
	req.Header.Set("Accept", r.accept)
	if c.options.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.options.Token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(err, r.command && sent.Load())
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer drain(resp.Body)
		return nil, errorOf(resp)
	}
	return resp, nil
}

// call sends r and decodes the answer into out, which may be nil.
func (c *Client) call(ctx context.Context, r request, out any) error {
	resp, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer drain(resp.Body)
	if out == nil {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.broken(err, r.command)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return c.garbled(err, r.command)
	}
	return nil
}

// broken is the error of a failed connection; sent says whether a command may have arrived.
func (c *Client) broken(err error, sent bool) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case sent:
		return service.Errorf(service.KindUnknown, "the connection to %s ended before the answer; send the same "+
			"command id again: %w", c.base.Host, err)
	case errors.Is(err, context.DeadlineExceeded):
		return service.Errorf(service.KindDeadline, "no answer from %s in time: %w", c.base.Host, err)
	case errors.Is(err, context.Canceled):
		return service.Errorf(service.KindCanceled, "canceled: %w", err)
	}
	return service.Errorf(service.KindUnavailable, "cannot speak to a host at %s: %w", c.base.Host, err)
}

// garbled is the error of an invalid answer.
func (c *Client) garbled(err error, command bool) error {
	kind := service.KindInternal
	if command {
		kind = service.KindUnknown
	}
	return service.Errorf(kind, "the answer of %s cannot be read: %w", c.base.Host, err)
}

// errorOf reads the problem from an answer.
func errorOf(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var p api.Problem
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && t == api.ContentProblem &&
		json.Unmarshal(body, &p) == nil {
		return p.Err()
	}
	return api.ErrorOfAnswer(resp.StatusCode)
}

// drain reads what is left of a short answer, so that its connection can be used again.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10) // if this fails, the connection is closed
	_ = body.Close()
}

func servicePath(name service.Name, rest string) string {
	return "/v1/services/" + url.PathEscape(string(name)) + rest
}

func entityPath(name service.Name, key service.Key, rest string) string {
	return servicePath(name, "/entities/"+url.PathEscape(string(key))+rest)
}

// body makes a request body of b; nil if there is nothing.
func body(b []byte) io.Reader {
	if len(b) == 0 {
		return nil
	}
	return bytes.NewReader(b)
}
