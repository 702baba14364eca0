package sandbox

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

var add = service.GuestCall{Type: testguest.CounterAdd, ID: "id"}
var spin = service.GuestCall{Type: testguest.CounterSpin, ID: "id"}

// endless is more fuel than a test spends.
const endless = 1 << 50

// The caller can end a call: by going away or by a deadline, in the context or in the command. This takes
// effect between two slices.
func TestCallerEndsTheCall(t *testing.T) {
	i := instantiate(t, mustCompile(t, testguest.Counter("c"), service.Limits{CallTime: time.Hour, Fuel: endless}), nil)
	for name, c := range map[string]struct {
		call func(after time.Duration) error
		kind service.Kind
		is   error
	}{
		"by going away": {func(after time.Duration) error {
			ctx, cancel := context.WithCancel(t.Context())
			for range 3 { // earlier calls change nothing
				if _, err := i.Handle(ctx, add); err != nil {
					t.Fatal(err)
				}
			}
			defer time.AfterFunc(after, cancel).Stop()
			_, err := i.Handle(ctx, spin)
			return err
		}, service.KindCanceled, context.Canceled},
		"by its context's deadline": {func(after time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			_, err := i.Handle(ctx, spin)
			return err
		}, service.KindGuestDeadline, context.DeadlineExceeded},
		"by the sender going away": {func(after time.Duration) error {
			gone := make(chan struct{})
			defer time.AfterFunc(after, func() { close(gone) }).Stop()
			c := spin
			c.Gone = gone
			_, err := i.Handle(t.Context(), c)
			return err
		}, service.KindCanceled, context.Canceled},
		"by the command's deadline": {func(after time.Duration) error {
			c := spin
			c.Deadline = time.Now().Add(after)
			_, err := i.Handle(t.Context(), c)
			return err
		}, service.KindGuestDeadline, context.DeadlineExceeded},
		"by the query's deadline": {func(after time.Duration) error {
			_, err := i.Query(t.Context(), service.GuestQuery{Type: 1, Deadline: time.Now().Add(after)})
			return err
		}, service.KindGuestDeadline, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			var e *service.Error
			for after := 10 * time.Millisecond; ; after *= 2 {
				if err = c.call(after); !errors.As(err, &e) || e.Fuel > 0 || after > time.Minute {
					break
				}
				// The machine is so busy that the call ended before the guest began.
			}
			if e == nil || e.Kind != c.kind || !errors.Is(err, c.is) {
				t.Fatalf("%v", err)
			}
			if e.Fuel == 0 || !strings.Contains(e.Message, "fuel spent; nothing was written") {
				t.Errorf("%d fuel; %s", e.Fuel, e.Message)
			}
			if err := i.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := i.Handle(t.Context(), add); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := i.Handle(ctx, add); service.KindOf(err) != service.KindCanceled || i.Broken() {
			t.Fatalf("%v, broken %v", err, i.Broken())
		}
		if _, err := i.Handle(t.Context(), add); err != nil {
			t.Fatal(err)
		}
	})
}

// A call that exceeds its time reports the limit and what it has spent.
func TestCallTime(t *testing.T) {
	i := instantiate(t, mustCompile(t, testguest.Counter("c"),
		service.Limits{CallTime: 10 * time.Millisecond, Fuel: endless}), nil)
	_, err := i.Handle(t.Context(), spin)
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindGuestDeadline || !errors.Is(err, context.DeadlineExceeded) ||
		e.Fuel < minGrant {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"time limit", "of 10ms", "call_time"} {
		if !strings.Contains(e.Message, want) {
			t.Errorf("%q is missing in %s", want, e.Message)
		}
	}
}

// A call that goes on beyond its first slice and waits for its turn longer than its patience ends as
// overloaded, with nothing written. A short one does not wait.
func TestACallWithoutATurn(t *testing.T) {
	r, err := NewRuntime(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	r.processors = fair.NewProcessors(1)
	p, err := r.Compile(t.Context(), "c", testguest.Counter("c"),
		service.Limits{CallTime: 5 * time.Millisecond, Fuel: endless}, service.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	i, err := p.Instantiate(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	other := fair.NewPlace(fair.NewAccount(r.processors))
	mustWait(t, other)
	p.account.Burn(1, fair.Now()+int64(time.Hour), true) // recent use is high
	var e *service.Error
	if _, err := i.Handle(t.Context(), add); err != nil {
		t.Errorf("a short call: %v", err)
	}
	if _, err := i.Handle(t.Context(), spin); !errors.As(err, &e) || e.Kind != service.KindOverloaded ||
		e.RetryAfter == 0 {
		t.Errorf("a long call: %v", err)
	}
	other.Release()
	if err := i.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Handle(t.Context(), add); err != nil {
		t.Error(err)
	}
}

// A context that ends between two calls, or that belongs to an earlier call, stops nothing.
func TestContextOfAnEarlierCallStopsNothing(t *testing.T) {
	i := instantiate(t, mustCompile(t, testguest.Counter("c"), service.Limits{}), nil)
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := i.Handle(ctx, add); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := i.Handle(t.Context(), add); err != nil {
			t.Fatal(err)
		}
	}
}

// Guests that spin on all processors stop neither the garbage collector nor other guests.
func TestSpinnersDoNotStopNeighbours(t *testing.T) {
	p := mustCompile(t, testguest.Counter("c"), service.Limits{CallTime: time.Hour, Fuel: endless})
	ctx, stop := context.WithCancel(t.Context())
	var spinners sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		i := instantiate(t, p, nil)
		spinners.Go(func() {
			if _, err := i.Handle(ctx, spin); service.KindOf(err) != service.KindCanceled {
				t.Errorf("%v", err)
			}
		})
	}
	neighbour := instantiate(t, mustCompile(t, testguest.Counter("n"), service.Limits{}), nil)
	for range 100 {
		if _, err := neighbour.Handle(t.Context(), add); err != nil {
			t.Error(err)
		}
		runtime.GC() // waits for all goroutines to stop, which a guest must not delay
	}
	stop()
	spinners.Wait()
}

func TestCloseAndReset(t *testing.T) {
	ctx := t.Context()
	p := mustCompile(t, testguest.Counter("c"), service.Limits{})
	a, b := instantiate(t, p, nil), instantiate(t, p, nil)
	for range 3 {
		if _, err := a.Handle(ctx, add); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Reset(ctx); err != nil { // even if nothing is wrong
		t.Fatal(err)
	}
	if o, err := a.Query(ctx, service.GuestQuery{}); err != nil || replyOf(t, o) != "0" {
		t.Errorf("state after a reset: %s, %v", replyOf(t, o), err)
	}
	for range 2 {
		if err := a.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Handle(ctx, add); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("a call after Close: %v", err)
	}
	if err := a.Reset(ctx); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("a reset after Close: %v", err)
	}
	if _, err := b.Handle(ctx, add); err != nil {
		t.Errorf("the other instance: %v", err)
	}
}

// Closing one program does not affect another one of the same module: they share only compiled code.
func TestProgramsAreApart(t *testing.T) {
	module := testguest.Counter("c")
	p := mustCompile(t, module, service.Limits{MemoryBytes: 4 << 20})
	i := instantiate(t, p, nil)
	q, err := shared().Compile(t.Context(), "c", module, service.Limits{MemoryBytes: 2 << 20}, service.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Handle(t.Context(), add); err != nil {
		t.Error(err)
	}
	if err := i.Reset(t.Context()); err != nil {
		t.Error(err)
	}
	_, err = i.Handle(t.Context(), service.GuestCall{Type: testguest.CounterGrow})
	if service.KindOf(err) != service.KindGuestMemory || i.MemoryBytes() > 4<<20 {
		t.Errorf("memory %d, %v", i.MemoryBytes(), err)
	}
}

// Runaway recursion ends at the service's limit, far below wazero's maximum stack of 400 MB, and a reset
// frees the stack.
func TestStackIsGivenBack(t *testing.T) {
	for _, c := range testguest.Recursions() {
		t.Run(c.Name, func(t *testing.T) {
			i := instantiate(t, mustCompile(t, c.Module, service.Limits{}), nil)
			before := liveHeap()
			if err := ask(i, c.Asked, testguest.LiarSlot); service.KindOf(err) != service.KindGuestStack {
				t.Fatal(err)
			}
			// The engine doubles its stack when it is full.
			if deep := liveHeap(); deep > before+32<<20 {
				t.Errorf("the heap had %d bytes before and %d with the stack", before, deep)
			}
			if err := i.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			if after := settledHeap(before + 1<<20); after > before+1<<20 {
				t.Errorf("the heap had %d bytes before and has %d after", before, after)
			}
		})
	}
}
