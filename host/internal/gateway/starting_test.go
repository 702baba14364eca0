package gateway_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A service takes forever to start, because of its compiler. Meanwhile the gateway answers: the host is
// ready, requests wait as long as requests may and learn when to try again, and the host stops immediately.
func TestTheGatewayAnswersWhileServicesStart(t *testing.T) {
	before := hosttest.New(t)
	before.MustDeploy("count", testguest.Counter("count"))
	before.MustSend(add("1"))
	before.Stop()
	if err := os.RemoveAll(filepath.Join(before.Dir(), "cache")); err != nil {
		t.Fatal(err)
	}
	const wait = 50 * time.Millisecond
	o := host.Options{Dir: before.Dir(), Logger: slog.New(slog.DiscardHandler),
		Compiler: []string{"/bin/sh", "-c", "exec sleep 100000"}, StartWait: wait}
	o.Limits.CompileTime = time.Hour
	h, err := host.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s, err := gateway.New(h, gateway.Options{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
		RequestTime: wait})
	if err == nil {
		err = s.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{URL: s.URL(), Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	ask := func(method, path string) (status int, header http.Header, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, string(text)
	}
	if status, _, body := ask("GET", "/readyz"); status != 200 || !strings.Contains(body, `"starting":{"count":1,"names":["count"]}`) {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if status, _, body := ask("GET", "/v1/services/count/events"); status != 200 || !strings.Contains(body, `"added"`) {
		t.Errorf("events: %d %s", status, body)
	}
	for _, path := range []string{"commands/add", "queries/count"} {
		for { // a slow machine may use up the time before the request can wait
			status, header, body := ask("POST", "/v1/services/count/entities/k/"+path)
			if status == http.StatusGatewayTimeout {
				continue
			}
			if status != 503 || header.Get("Retry-After") == "" || !strings.Contains(body, `"unavailable"`) {
				t.Errorf("%s: %d %s, retry after %q", path, status, body, header.Get("Retry-After"))
			}
			break
		}
	}
	st, err := c.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	refused := make(chan error, 1)
	if err := st.SendAsync(t.Context(), add("2"), func(_ service.Reply, err error) { refused <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-refused; service.KindOf(err) != service.KindUnavailable {
		t.Errorf("a command on a WebSocket: %v", err)
	}
}
