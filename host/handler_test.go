package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

const handlerToken = "a-token-of-16-bytes"

// embedded is a host behind the server of another program, and a client of it.
func embedded(t *testing.T, h *hosttest.Host) (*host.Handler, *httptest.Server, *client.Client) {
	t.Helper()
	handler, err := h.Handler(host.HandlerOptions{Token: handlerToken})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/bulkhead/", http.StripPrefix("/bulkhead", handler))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(func() { _ = handler.Stop(context.Background()) }) // the test checks its error
	c, err := client.New(client.Options{URL: server.URL + "/bulkhead", Token: handlerToken})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return handler, server, c
}

// Another program's server can serve everything that the program bulkhead serves: requests, server-sent
// events, WebSockets and metrics. At the end nothing is left in flight.
func TestHandler(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	handler, server, c := embedded(t, h)
	ctx := t.Context()
	if r, err := c.Send(ctx, add("k")); err != nil || r.Version != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Error(err)
	}
	got := make(chan client.Event, 1)
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	followed := make(chan error, 1)
	go func() {
		followed <- c.Follow(following, service.Selection{Service: "tally"}, func(e client.Event) error {
			got <- e
			return nil
		})
	}()
	if e := <-got; e.Key != "k" || e.Version != 1 {
		t.Errorf("followed %+v", e)
	}
	st, err := c.Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if r, err := st.Send(ctx, add("k")); err != nil || r.Version != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	<-got
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/bulkhead/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+handlerToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || !strings.Contains(string(text), `bulkhead_service_committed_total{service="tally"} 2`) {
		t.Errorf("metrics: %v\n%s", err, text)
	}

	stopped := make(chan error, 1)
	go func() { stopped <- handler.Stop(ctx) }()
	if err := <-stopped; err != nil { // the streams end, although their clients would go on
		t.Errorf("stop: %v", err)
	}
	if err := c.Ready(ctx); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("after the stop: %v", err)
	}
	cancel()
	<-followed
	until(t, func() bool { return h.Account().Used(budget.FlightBytes) == 0 })
}

// Stopping a handler waits for requests in flight only as long as its context lasts.
func TestAHandlerCutsOff(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	handler, server, _ := embedded(t, h)
	body, trickle := io.Pipe()
	defer trickle.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/bulkhead/v1/modules", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+handlerToken)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	if _, err := trickle.Write([]byte("\x00asm")); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return h.Account().Used(budget.FlightBytes) > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := handler.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	<-answered
	until(t, func() bool { return h.Account().Used(budget.FlightBytes) == 0 })
}

// Without a token, a handler answers only to this machine's names, as the program does.
func TestAHandlerGuardsItsName(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	handler, err := h.Handler(host.HandlerOptions{AllowedHosts: []string{"console.example"}})
	if err != nil {
		t.Fatal(err)
	}
	defer handler.Stop(t.Context())
	for name, want := range map[string]int{
		"localhost": http.StatusOK, "console.example": http.StatusOK, "evil.example": http.StatusMisdirectedRequest,
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://"+name+"/v1/services", nil)
		handler.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, want, w.Body)
		}
	}
	if _, err := h.Handler(host.HandlerOptions{Token: "short"}); service.KindOf(err) != service.KindInvalid {
		t.Errorf("a short token: %v", err)
	}
}

// A collector has the metrics of the host, each with a description.
func TestCollector(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("tally", testguest.Counter("tally"))
	names := described(h.Collector().Describe)
	for _, want := range []string{"bulkhead_service_info", "bulkhead_journal_syncs_total", "bulkhead_command_seconds"} {
		if !slices.ContainsFunc(names, func(d string) bool { return strings.Contains(d, `"`+want+`"`) }) {
			t.Errorf("%s is not in %q", want, names)
		}
	}
}

// described are the descriptions that a collector gives, as texts.
func described[D fmt.Stringer](describe func(chan<- D)) (all []string) {
	descriptions := make(chan D)
	go func() {
		describe(descriptions)
		close(descriptions)
	}()
	for d := range descriptions {
		all = append(all, d.String())
	}
	return all
}
