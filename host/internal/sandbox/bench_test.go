package sandbox

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// BenchmarkHandle is a command through the sandbox, with the smallest guest
// there is and with a Go guest. "enter" is the bare call of wazero, of a request
// of no frames: what is above it is the sandbox's own.
func BenchmarkHandle(b *testing.B) {
	ctx := context.Background()
	golang, err := goGuest()
	if err != nil {
		b.Fatal(err)
	}
	minimal := testguest.Counter("c")
	for _, c := range []struct {
		name   string
		module []byte
		typ    uint16
	}{{"minimal/nop", minimal, testguest.CounterNop}, {"minimal/add", minimal, testguest.CounterAdd}, {"go/echo", golang, 0}} {
		b.Run(c.name, func(b *testing.B) {
			i := instantiate(b, compile(b, c.module, service.Limits{}), nil)
			call := service.GuestCall{Slot: 1, Type: c.typ, ID: "0123456789abcdef", Data: []byte(`{"amount":5}`)}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := i.Handle(ctx, call); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("minimal/enter", func(b *testing.B) {
		i := instantiate(b, compile(b, minimal, service.Limits{}), nil)
		if _, err := i.Handle(ctx, service.GuestCall{Type: testguest.CounterNop}); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			i.stack[0] = 0
			if err := i.call.CallWithStack(&i.guest, i.stack[:]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkHydrate is one event of a long history.
func BenchmarkHydrate(b *testing.B) {
	i := instantiate(b, compile(b, testguest.Counter("c"), service.Limits{}), nil)
	data := []byte(`{"amount":5,"from":"alice","to":"bob","note":"thanks for the fish"}`)
	b.ReportAllocs()
	n := 0
	err := i.Hydrate(context.Background(), 1, "key", 0, nil, func() (service.GuestEvent, bool, error) {
		n++
		return service.GuestEvent{Data: data}, b.Loop(), nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReset is what a trap costs.
func BenchmarkReset(b *testing.B) {
	golang, err := goGuest()
	if err != nil {
		b.Fatal(err)
	}
	for name, module := range map[string][]byte{"minimal": testguest.Counter("c"), "go": golang} {
		b.Run(name, func(b *testing.B) {
			i := instantiate(b, compile(b, module, service.Limits{}), nil)
			for b.Loop() {
				if err := i.Reset(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkInstances tells what 100 instances of a Go guest keep of the host's heap.
func BenchmarkInstances(b *testing.B) {
	golang, err := goGuest()
	if err != nil {
		b.Fatal(err)
	}
	p := compile(b, golang, service.Limits{})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		var all []*Instance
		for range 100 {
			i, err := p.Instantiate(context.Background(), nil)
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, i)
		}
		b.ReportMetric(float64(heap()-before)/100, "B/instance")
		b.ReportMetric(float64(all[0].MemoryBytes()), "guest-B/instance")
		for _, i := range all {
			_ = i.Close(context.Background())
		}
	}
}

// The sandbox allocates nothing a call beyond the outcome: the copy of the
// answer, and the list of events. What wazero allocates is counted apart.
func TestHandleAllocations(t *testing.T) {
	i := instantiate(t, compile(t, testguest.Counter("c"), service.Limits{}), nil)
	ctx := t.Context()
	call := service.GuestCall{Type: testguest.CounterAdd, ID: "id"}
	if _, err := i.Handle(ctx, call); err != nil {
		t.Fatal(err)
	}
	// Not testing.AllocsPerRun: on one processor wazero's goroutine a call makes more.
	allocations := func(f func()) float64 {
		const runs = 2000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			f()
		}
		runtime.ReadMemStats(&after)
		return float64(after.Mallocs-before.Mallocs) / runs
	}
	wazero := allocations(func() {
		i.stack[0] = 0
		_ = i.call.CallWithStack(&i.guest, i.stack[:])
	})
	if all := allocations(func() { _, _ = i.Handle(ctx, call) }); all-wazero > 3.5 { // the race detector makes a third
		t.Errorf("%.1f allocations a command, %.1f of them wazero's", all, wazero)
	}
}

// BenchmarkUpload is a Go guest of 3 MB from its bytes to a program that has told
// its manifest, with the compiler process, and, in turns, what wazero alone takes to
// compile the same bytes. The first quartiles are compared.
func BenchmarkUpload(b *testing.B) {
	golang, err := goGuest()
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	var plain, ready []float64
	for b.Loop() {
		start := time.Now()
		w := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2))
		if _, err := w.CompileModule(ctx, golang); err != nil {
			b.Fatal(err)
		}
		plain = append(plain, time.Since(start).Seconds())
		_ = w.Close(ctx)

		r := newRuntime(b, Options{CacheDir: b.TempDir(), Compiler: compilerCommand()})
		start = time.Now()
		p, err := r.Compile(ctx, "", golang, service.Limits{}, nil)
		if err != nil {
			b.Fatal(err)
		}
		ready = append(ready, time.Since(start).Seconds())
		_ = p.Close(ctx)
	}
	slices.Sort(plain)
	slices.Sort(ready)
	n := len(plain) / 4
	b.ReportMetric(plain[n], "plain-s")
	b.ReportMetric(ready[n], "ready-s")
	b.ReportMetric(ready[n]/plain[n], "ready/plain")
}
