package sandbox

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

var add = service.GuestCall{Type: testguest.CounterAdd, ID: "id"}
var spin = service.GuestCall{Type: testguest.CounterSpin, ID: "id"}

func TestCallerEndsTheCall(t *testing.T) {
	i := instantiate(t, compile(t, testguest.Counter("c"), service.Limits{CallTime: time.Minute}), nil)
	t.Run("by going away", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 { // calls before do not wear the watch out
			if _, err := i.Handle(ctx, add); err != nil {
				t.Fatal(err)
			}
		}
		timer := time.AfterFunc(20*time.Millisecond, cancel)
		defer timer.Stop()
		_, err := i.Handle(ctx, spin)
		if service.KindOf(err) != service.KindCanceled || !errors.Is(err, context.Canceled) {
			t.Fatalf("%v", err)
		}
	})
	t.Run("by its deadline", func(t *testing.T) {
		if err := i.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := i.Handle(ctx, spin)
		if service.KindOf(err) != service.KindGuestDeadline || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v", err)
		}
	})
	t.Run("before it began", func(t *testing.T) {
		if err := i.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
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

// A context that ends between two calls, or that belongs to an earlier call,
// stops nothing.
func TestContextOfAnEarlierCallStopsNothing(t *testing.T) {
	i := instantiate(t, compile(t, testguest.Counter("c"), service.Limits{}), nil)
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

// Many calls one after the other, each short, together longer than a call's
// time: the timer fires between and during them and ends none.
func TestTimerOfAnEarlierCallStopsNothing(t *testing.T) {
	i := instantiate(t, compile(t, testguest.Counter("c"), service.Limits{CallTime: 200 * time.Millisecond}), nil)
	for start := time.Now(); time.Since(start) < 600*time.Millisecond; {
		if _, err := i.Handle(t.Context(), add); err != nil {
			t.Fatal(err)
		}
	}
}

// The deadline is kept about as it is set, whatever the machine's other
// goroutines do, and other instances go on meanwhile.
func TestSpinnersDoNotStopNeighbours(t *testing.T) {
	p := compile(t, testguest.Counter("c"), service.Limits{CallTime: 150 * time.Millisecond})
	var spinners sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		i := instantiate(t, p, nil)
		spinners.Go(func() {
			start := time.Now()
			if _, err := i.Handle(context.Background(), spin); service.KindOf(err) != service.KindGuestDeadline {
				t.Errorf("%v", err)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("a call with 150 ms ended after %v", took)
			}
		})
	}
	neighbour := instantiate(t, compile(t, testguest.Counter("n"), service.Limits{}), nil)
	for range 100 {
		if _, err := neighbour.Handle(t.Context(), add); err != nil {
			t.Error(err)
		}
		runtime.GC() // waits for all goroutines to stop, which a guest must not hold up
	}
	spinners.Wait()
}

func TestCloseAndReset(t *testing.T) {
	ctx := t.Context()
	p := compile(t, testguest.Counter("c"), service.Limits{})
	a, b := instantiate(t, p, nil), instantiate(t, p, nil)
	for range 3 {
		if _, err := a.Handle(ctx, add); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Reset(ctx); err != nil { // also when nothing is wrong
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

// Closing one program leaves another one of the same module alone: they share
// compiled code, nothing else.
func TestProgramsAreApart(t *testing.T) {
	module := testguest.Counter("c")
	p := compile(t, module, service.Limits{MemoryBytes: 4 << 20})
	i := instantiate(t, p, nil)
	q, err := shared().Compile(t.Context(), "c", module, service.Limits{MemoryBytes: 2 << 20}, nil)
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

// Runaway recursion takes up to 400 MB of the host's heap, which is the most
// that wazero lets a stack have; a reset gives it back.
func TestStackIsGivenBack(t *testing.T) {
	module := testguest.Liar{
		Code: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(testguest.Call(2), testguest.I64Const(0))},
		With: func(b *testguest.Builder) { b.Func(nil, nil, nil, testguest.Call(2), testguest.Op(0x01)) },
	}.Bytes()
	i := instantiate(t, compile(t, module, service.Limits{CallTime: 10 * time.Second}), nil)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	if err := ask(i, abi.ReqCommand, testguest.LiarSlot); service.KindOf(err) != service.KindGuestStack {
		t.Fatal(err)
	}
	if err := i.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := heap(); after > before+8<<20 {
		t.Errorf("the heap had %d bytes before and has %d after", before, after)
	}
}
