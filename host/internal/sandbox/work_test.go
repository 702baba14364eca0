package sandbox

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// All unusable schemas of a module are named together. The host does not use those of events and replies.
func TestSchemasAreBounded(t *testing.T) {
	m := testguest.CounterManifest("tally")
	m.Commands[0].Input, m.Commands[1].Input = `{"$ref":"http://example.com/x"}`, `{"type":7}`
	m.Queries[0].Input = `{"enum":[` + strings.Repeat("1,", 10_000) + `1]}`
	_, err := shared().Compile(t.Context(), "tally", testguest.CounterWith(m.AppendJSON(nil), nil), service.Limits{},
		service.Settings{}, nil)
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindBadModule || len(e.Reasons) != 3 {
		t.Fatalf("%+v", e)
	}
	for i, want := range []string{`of the command "add"`, `of the command "echo"`, `of the query "count"`} {
		if !strings.Contains(e.Reasons[i], want) {
			t.Errorf("%q; want %q", e.Reasons[i], want)
		}
	}
	m = testguest.CounterManifest("tally")
	m.Commands[0].Reply, m.Events[0].Schema = `{"$ref":"http://example.com/x"}`, `{"type":7}`
	m.Commands[0].Input = `{"type":"object"}`
	p := mustCompile(t, testguest.CounterWith(m.AppendJSON(nil), nil), service.Limits{})
	if p.Schemas().Command(0) == nil || p.Schemas().Command(1) != nil {
		t.Error("the schemas are not those of the manifest")
	}
	if p.schemaBytes == 0 {
		t.Error("the schemas are not taken from the service's account")
	}
	m.Encoding, m.Commands[0].Input = "application/octet-stream", `{"type":7}`
	p = mustCompile(t, testguest.CounterWith(m.AppendJSON(nil), nil), service.Limits{})
	if p.Schemas().Command(0) != nil {
		t.Error("data that is not JSON has a schema")
	}
}

// The host's work for a service between two calls is charged to the service. From its first rest on it needs
// a turn, if the service has used much.
func TestWorkTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := fair.NewProcessors(1)
		a := newAccount(g, "")
		a.Burn(1, fair.Now()+int64(time.Hour), true) // recent use is high
		other := fair.NewPlace(fair.NewAccount(g))
		mustWait(t, other)
		i := &Instance{account: a, turn: fair.NewPlace(a.Account)}
		rested, done := false, make(chan error, 1)
		go func() {
			done <- i.Work(t.Context(), func(rest func() error) (time.Duration, error) {
				if i.turn.Held() {
					t.Error("work waited for a turn before its first rest")
				}
				err := rest()
				rested = true
				return 0, err
			})
		}()
		synctest.Wait()
		if rested {
			t.Error("the work went on while another service had the only turn")
		}
		other.Release()
		if err := <-done; err != nil || !rested {
			t.Errorf("%v, rested %v", err, rested)
		}
		i.turn.Release()

		mustWait(t, other)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := i.Work(gone, func(rest func() error) (time.Duration, error) { return 0, rest() }); !errors.Is(err,
			context.Canceled) {
			t.Errorf("work whose caller has gone: %v", err)
		}
		other.Release()

		before := a.Served()
		if err := i.Work(t.Context(), func(rest func() error) (time.Duration, error) {
			if err := rest(); err != nil {
				return 0, err
			}
			time.Sleep(300 * time.Microsecond) // the bubble's clock
			return 0, rest()
		}); err != nil {
			t.Fatal(err)
		}
		if charged := a.Served() - before; charged < 300_000 {
			t.Errorf("%d ns were charged for 300 µs", charged)
		}
		i.turn.Release()
		before = i.unbilled
		_ = i.Work(t.Context(), func(func() error) (time.Duration, error) { return time.Microsecond, nil })
		if charged := i.unbilled - before; charged != 1000 {
			t.Errorf("%d ns were charged for work that took 1 µs and did not rest", charged)
		}
		mustWait(t, other) // nothing is left of the work
		other.Release()
	})
}

// Short work allocates nothing.
func TestShortWorkAllocatesNothing(t *testing.T) {
	p := mustCompile(t, testguest.Counter("tally"), service.Limits{})
	i, err := p.Instantiate(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	do := func(func() error) (time.Duration, error) { return 0, nil }
	if n := testing.AllocsPerRun(100, func() { _ = i.Work(t.Context(), do) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
