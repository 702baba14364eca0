package lifecycletest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/catalog"
	"github.com/bulkhead-wasm/bulkhead/host/internal/engine"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/internal/latency"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/internal/logging"
	"github.com/bulkhead-wasm/bulkhead/host/internal/registry"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// end is the Close or Stop of something that runs.
type end func(context.Context) error

// everything lists all components. Each makes what the component needs, and then says how to start it.
var everything = map[string]func(t *testing.T) (start func() (end, error)){
	"logging.Writer": func(*testing.T) func() (end, error) {
		return func() (end, error) { return logging.NewWriter(io.Discard, logging.WriterOptions{}).Close, nil }
	},
	"logging.Budget": func(*testing.T) func() (end, error) {
		return func() (end, error) {
			return logging.NewBudget(slog.DiscardHandler, logging.BudgetOptions{}).Close, nil
		}
	},
	"journal.Storage": func(t *testing.T) func() (end, error) {
		return func() (end, error) {
			s, err := storage.Open(t.TempDir(), storage.Options{})
			return func(context.Context) error { return s.Close() }, err
		}
	},
	"commitlog.Journal": func(t *testing.T) func() (end, error) {
		return func() (end, error) {
			j, err := commitlog.Open(t.Context(), journaltest.NewMemory().Storage(), commitlog.Options{})
			return j.Close, err
		}
	},
	"compile.Compiler": func(t *testing.T) func() (end, error) {
		return func() (end, error) {
			c, err := compile.New(compile.Options{Dir: t.TempDir()})
			return c.Close, err
		}
	},
	"sandbox.Runtime": func(t *testing.T) func() (end, error) {
		return func() (end, error) {
			r, err := sandbox.NewRuntime(sandbox.Options{CacheDir: t.TempDir()})
			return r.Close, err
		}
	},
	"engine.Engine": func(t *testing.T) func() (end, error) {
		j := memoryJournal(t)
		return func() (end, error) {
			e, err := newEngine(j)
			return e.Stop, errors.Join(err, e.Start(t.Context()))
		}
	},
	"registry.Registry": func(t *testing.T) func() (end, error) {
		j := memoryJournal(t)
		m, err := catalog.OpenModules(t.TempDir(), catalog.ModuleOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := catalog.Open(t.Context(), m, j)
		if err != nil {
			t.Fatal(err)
		}
		return func() (end, error) {
			r := registry.New(registry.Options{Journal: j, Catalog: c, Account: budget.New(nil),
				Logger: slog.New(slog.DiscardHandler), Latencies: latency.New(0), QueryLatencies: latency.New(0)})
			r.StartAll()
			return func(ctx context.Context) error { return r.Close(ctx, errors.New("the test ends")) }, nil
		}
	},
	"host.Host": func(t *testing.T) func() (end, error) {
		return func() (end, error) {
			h, err := host.Open(t.Context(), host.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
			return h.Close, err
		}
	},
	"host.Handler": func(t *testing.T) func() (end, error) {
		h := hosttest.New(t)
		return func() (end, error) {
			s, err := h.Handler(host.HandlerOptions{})
			return s.Stop, err
		}
	},
	"gateway.Server": func(t *testing.T) func() (end, error) {
		h := hosttest.New(t)
		return func() (end, error) {
			s, err := serve(t, h)
			return s.Stop, err
		}
	},
	"client.Stream": func(t *testing.T) func() (end, error) {
		s, err := serve(t, hosttest.New(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Stop(context.Background()) }) // before its host
		c, err := client.New(client.Options{URL: s.URL()})
		if err != nil {
			t.Fatal(err)
		}
		return func() (end, error) {
			s, err := c.Stream(t.Context())
			return func(context.Context) error { return s.Close() }, err
		}
	},
}

func memoryJournal(t *testing.T) *commitlog.Journal {
	t.Helper()
	j, err := commitlog.Open(t.Context(), journaltest.NewMemory().Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close(context.Background()) })
	return j
}

// newEngine makes an engine without requests.
func newEngine(j *commitlog.Journal) (*engine.Engine, error) {
	return engine.New(engine.Options{
		Spec: service.Spec{Service: "bank"}, Log: j,
		Manifest: &abi.Manifest{Service: "bank", Encoding: "application/json"},
		NewGuest: func(context.Context, int) (engine.Guest, error) { return nil, errors.New("there are no guests") },
	})
}

func serve(t *testing.T, h *hosttest.Host) (*gateway.Server, error) {
	t.Helper()
	s, err := gateway.New(h.Host, gateway.Options{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return s, err
	}
	return s, s.Start(t.Context())
}

// Every component ends, however often and from how many goroutines it is asked to, and leaves no goroutine.
// With an ended context the call returns soon, and ends the component all the same.
func TestEverythingThatRunsKeepsTheContract(t *testing.T) {
	for name, make := range everything {
		t.Run(name, func(t *testing.T) {
			start := make(t)
			before := goleak.IgnoreCurrent()
			for _, patience := range []bool{true, false} {
				end, err := start()
				if err != nil {
					t.Fatal(err)
				}
				if !patience {
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					returnsSoon(t, func() { _ = end(ctx) }) // it may fail
				}
				var first error
				returnsSoon(t, func() { first = end(t.Context()) })
				if patience && first != nil {
					t.Errorf("it ends with %v", first)
				}
				var others sync.WaitGroup
				for range 3 {
					others.Go(func() {
						if err := end(t.Context()); !errors.Is(err, first) {
							t.Errorf("ended again it returns %v, before that it was %v", err, first)
						}
					})
				}
				returnsSoon(t, others.Wait)
				leavesNothing(t, before)
			}
		})
	}
}

// soon is much longer than anything here takes on a busy machine.
const soon = time.Minute

func returnsSoon(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(soon):
		t.Fatal("it does not return")
	}
}

// leavesNothing waits until no more goroutines run than before. The other end of a connection may take a
// moment.
func leavesNothing(t *testing.T, before goleak.Option) {
	t.Helper()
	var left error
	for begin := time.Now(); time.Since(begin) < soon; {
		if left = goleak.Find(before); left == nil {
			return
		}
	}
	t.Error(left)
}

// A component with a Start may be ended without having been started.
func TestWhatWasNeverStartedEnds(t *testing.T) {
	h := hosttest.New(t)
	s, err := gateway.New(h.Host, gateway.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEngine(memoryJournal(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, it := range map[string]interface {
		Start(context.Context) error
		Stop(context.Context) error
	}{"gateway.Server": s, "engine.Engine": e} {
		for range 2 {
			if err := it.Stop(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := it.Start(t.Context()); !errors.Is(err, lifecycle.ErrStopped) {
			t.Errorf("%s starts after it was stopped: %v", name, err)
		}
	}
}
