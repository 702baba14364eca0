package host_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// logged is a log that tests can read.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A service that logs and fails as much as it can does not fill the log: lines beyond its rate are dropped,
// counted in its status, and reported. Others log on.
func TestAServiceHasARateOfLogLines(t *testing.T) {
	t.Parallel()
	var log logged
	h := hosttest.New(t, func(o *host.Options) {
		o.Logger, o.LogRate, o.LogBurst = slog.New(slog.NewTextHandler(&log, nil)), 1, 64<<10
	})
	h.MustDeploy("vandal", testguest.Vandal("vandal", false))
	h.MustDeploy("quiet", testguest.Vandal("quiet", false))
	talk := func(name service.Name, n int) {
		for i := range n {
			c := service.Command{Service: name, Key: service.Key(fmt.Sprint("k", i%2)), Type: "c",
				ID: service.NewCommandID()}
			h.MustSend(c)
			c.Type, c.ID = "trap", service.NewCommandID()
			var failed *service.Error
			if _, err := h.Send(t.Context(), c); !errors.As(err, &failed) || failed.Kind != service.KindTrap {
				t.Fatalf("the trap of %s: %v", name, err)
			}
			h.Logger().Info("request failed", "request", i, "service", string(name)) // as the gateway does
		}
	}
	talk("vandal", 200)
	before := log.String()
	// Without the line of the deployment, and without reports of dropped lines: they come once a second, so their
	// number depends on how long this test takes.
	about := func(name string) (lines int) {
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "service="+name) && !strings.Contains(line, "was deployed") &&
				!strings.Contains(line, "lines dropped, as more was logged") {
				lines++
			}
		}
		return lines
	}
	lines := about("vandal")
	if len(before) > 100<<10 || lines < 60 {
		t.Errorf("a service that may log 64 KiB logs %d lines in %d bytes", lines, len(before))
	}
	talk("quiet", 5)
	if n := about("quiet"); n != 15 {
		t.Errorf("a quiet service beside it has %d lines in the log, want 15", n)
	}
	status, err := h.Status("vandal")
	if err != nil {
		t.Fatal(err)
	}
	if c := status.Counters; int(c.LogLinesDropped) != 600-lines || c.LogBytesDropped < 50*c.LogLinesDropped {
		t.Errorf("the status says that %d lines were dropped, %d bytes; the log has %d of 600 lines", c.LogLinesDropped,
			c.LogBytesDropped, lines)
	}
	h.Stop() // remaining reports are logged now
	if !strings.Contains(log.String(), "lines dropped") {
		t.Error("the log does not tell that lines were dropped")
	}
}

// Each line of a guest names what it is about: the entity, the command and the trace.
func TestLinesOfGuestsTellWhatTheyAreAbout(t *testing.T) {
	t.Parallel()
	var log logged
	h := hosttest.New(t, func(o *host.Options) { o.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
	h.MustDeploy("quiet", testguest.Vandal("quiet", false))
	const trace = "0af7651916cd43dd8448eb211c80319c"
	traced := abi.Metadata(nil).AppendPair("traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	h.MustSend(service.Command{Service: "quiet", Key: "a", Type: "c", ID: "one", Metadata: traced})
	h.MustSend(service.Command{Service: "quiet", Key: "b", Type: "c", ID: "two",
		Metadata: abi.Metadata(nil).AppendPair("traceparent", "00-x")})
	type about struct {
		Service, From, Entity string
		Command               string `json:"command_id"`
		Trace                 string `json:"trace_id"`
	}
	var got []about
	for line := range strings.Lines(log.String()) {
		var a about
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		if a.From == "guest" {
			got = append(got, a)
		}
	}
	if want := []about{{"quiet", "guest", "a", "one", trace}, {"quiet", "guest", "b", "two", ""}}; !slices.Equal(got,
		want) {
		t.Errorf("the lines are about %+v, want %+v", got, want)
	}
}
