package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// site is a running gateway in front of a fake host.
type site struct {
	*testing.T
	server *Server
	fake   *fake
	http   *http.Client
	client *client.Client
	logged *lockedBuffer
	cutOff bool // the test has stopped the server with an error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, o Options) *site {
	t.Helper()
	return startWithin(t, service.Budget{}, o)
}

// startWithin starts a gateway whose host has a budget.
func startWithin(t *testing.T, b service.Budget, o Options) *site {
	t.Helper()
	f := newFake()
	f.budget = b.WithDefaults()
	f.account.SetLimit(budget.FlightBytes, f.budget.FlightBytes)
	f.account.SetLimit(budget.Descriptors, f.budget.Descriptors)
	return startOn(t, f, o)
}

// startOn starts a gateway on a host.
func startOn(t *testing.T, f *fake, o Options) *site {
	t.Helper()
	s := &site{T: t, fake: f, logged: &lockedBuffer{}}
	o.Listen = "127.0.0.1:0"
	o.Logger = slog.New(slog.NewTextHandler(s.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if s.server, err = New(s.fake, o); err != nil {
		t.Fatal(err)
	}
	if err := s.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	s.http = &http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if s.client, err = client.New(client.Options{URL: s.server.URL(), Token: o.Token,
		Backoff: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.server.Stop(ctx); err != nil && !s.cutOff {
			t.Errorf("stop: %v", err)
		}
		// Everything has been given back when the last command has its outcome.
		for s.fake.account.Used(budget.FlightBytes) != 0 {
			if ctx.Err() != nil {
				t.Errorf("%d bytes in flight are still taken, by %v", s.fake.account.Used(budget.FlightBytes),
					s.fake.account.Holders(budget.FlightBytes, 10))
				break
			}
			runtime.Gosched()
		}
		if strings.Contains(s.logged.String(), "were never given back") {
			t.Errorf("a connection forgot bytes that it had taken:\n%s", s.logged)
		}
	})
	return s
}

// got is an answer, read to its end.
type got struct {
	status int
	header http.Header
	body   []byte
}

// do sends one request; headers are pairs.
func (s *site) do(method, path, body string, headers ...string) got {
	s.Helper()
	return s.doBody(method, path, strings.NewReader(body), headers...)
}

func (s *site) doBody(method, path string, body io.Reader, headers ...string) got {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.server.URL()+path, body)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	documented(s.T, req, resp)
	return got{resp.StatusCode, resp.Header, text}
}

// decode decodes a successful answer.
func decode[T any](s *site, g got) (v T) {
	s.Helper()
	if g.status != http.StatusOK || g.header.Get("Content-Type") != api.ContentJSON {
		s.Fatalf("got %d %s: %s", g.status, g.header.Get("Content-Type"), g.body)
	}
	if err := json.Unmarshal(g.body, &v); err != nil {
		s.Fatalf("%v in %s", err, g.body)
	}
	return v
}

// problem checks that an answer is a problem of a kind and status.
func (s *site) problem(g got, status int, kind string) api.Problem {
	s.Helper()
	var p api.Problem
	if err := json.Unmarshal(g.body, &p); err != nil || g.header.Get("Content-Type") != api.ContentProblem {
		s.Fatalf("not a problem: %d %s: %s", g.status, g.header.Get("Content-Type"), g.body)
	}
	if g.status != status || p.Status != status || p.Kind != kind {
		s.Fatalf("got status %d, problem %+v; want %d %s", g.status, p, status, kind)
	}
	if p.Type != "urn:bulkhead:problem:"+strings.ReplaceAll(kind, "_", "-") || p.Title == "" || p.RequestID() == "" ||
		p.RequestID() != g.header.Get(api.HeaderRequestID) {
		s.Fatalf("incomplete problem: %s", g.body)
	}
	if strings.Contains(string(g.body), "secret") {
		s.Fatalf("tells a secret: %s", g.body)
	}
	if retry := g.header.Get("Retry-After"); (status == 429 || status == 503) != (retry != "") {
		s.Fatalf("Retry-After is %q with %d", retry, status)
	}
	return p
}
