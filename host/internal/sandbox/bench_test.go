package sandbox

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// nop is a command that the counter answers immediately.
var nop = service.GuestCall{Slot: 1, Type: testguest.CounterNop, ID: "0123456789abcdef", Data: []byte(`{"amount":5}`)}

// BenchmarkHandle measures a command through the sandbox, with the smallest guest there is and with a Go
// guest.
func BenchmarkHandle(b *testing.B) {
	golang, err := goGuest()
	if err != nil {
		b.Fatal(err)
	}
	minimal := testguest.Counter("c")
	for _, c := range []struct {
		name   string
		module []byte
		typ    uint16
	}{{"minimal/nop", minimal, testguest.CounterNop}, {"minimal/add", minimal, testguest.CounterAdd},
		{"go/echo", golang, 0}} {
		b.Run(c.name, func(b *testing.B) {
			i := instantiate(b, mustCompile(b, c.module, service.Limits{}), nil)
			call := nop
			call.Type = c.typ
			b.ReportAllocs()
			for b.Loop() {
				if _, err := i.Handle(context.Background(), call); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// each returns how long f takes, by the best of several rounds.
func each(rounds, n int, f func()) time.Duration {
	best := time.Duration(1<<63 - 1)
	for range rounds {
		start := time.Now()
		for range n {
			f()
		}
		best = min(best, time.Since(start)/time.Duration(n))
	}
	return best
}

// BenchmarkBorder compares a command that does nothing, through the whole sandbox, with wazero's call of an
// empty function. "guest" is wazero's call of the same guest with the same request in its mailbox; the
// difference to it is the cost of the sandbox.
func BenchmarkBorder(b *testing.B) {
	ctx := context.Background()
	i := instantiate(b, mustCompile(b, testguest.Counter("c"), service.Limits{}), nil)
	if _, err := i.Handle(ctx, nop); err != nil {
		b.Fatal(err)
	}
	empty := emptyFunction(b)
	request := append([]byte(nil), i.request[:cap(i.request)]...)
	request = abi.AppendCommand(request[:0], nop.Slot, nop.Type, 0, 0, &nop.Seed, string(nop.ID), nil, nop.Data)
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		var stack [1]uint64
		raw := each(20, 2000, func() { must(empty.CallWithStack(ctx, stack[:])) })
		i.mem.Write(i.mailbox, request)
		i.meter.fuel.Set(1 << 60)
		i.meter.stack.Set(1 << 20)
		guest := each(20, 2000, func() {
			i.stack[0] = uint64(len(request))
			must(i.call.CallWithStack(&i.guest, i.stack[:]))
		})
		all := each(20, 2000, func() {
			_, err := i.Handle(ctx, nop)
			must(err)
		})
		b.ReportMetric(float64(raw), "ns-empty-call")
		b.ReportMetric(float64(guest), "ns-guest")
		b.ReportMetric(float64(all), "ns-command")
		b.ReportMetric(float64(all-raw), "ns-overhead")
	}
}

// emptyFunction is a function without parameters that does nothing, unmetered.
func emptyFunction(b *testing.B) api.Function {
	var m testguest.Builder
	m.Export("f", wasmbin.ExternFunc, m.Func(nil, nil, nil))
	r := wazero.NewRuntime(context.Background())
	b.Cleanup(func() { _ = r.Close(context.Background()) })
	i, err := r.Instantiate(context.Background(), m.Bytes())
	if err != nil {
		b.Fatal(err)
	}
	return i.ExportedFunction("f")
}

// BenchmarkStart compares a new sandbox of the Go bank that begins as the image with one that initialises
// itself, and with wazero's instance of the uploaded module: time, and memory of the process per instance.
func BenchmarkStart(b *testing.B) {
	ctx := context.Background()
	module, err := bankGuest()
	if err != nil {
		b.Fatal(err)
	}
	p := mustCompile(b, module, service.Limits{})
	raw := rawInstances(b, module)
	_ = newInstance(b, p).Close() // makes the image
	image := p.image
	fromImage := func() io.Closer { p.image = image; return newInstance(b, p) }
	plain := func() io.Closer { p.image, p.imageable = nil, false; return newInstance(b, p) }
	defer func() { p.image = image }()
	for b.Loop() {
		var took [3]time.Duration
		var bytes [3]float64
		for k, start := range []func() io.Closer{fromImage, plain, raw} {
			took[k] = each(5, 10, func() { _ = start().Close() })
			bytes[k] = memoryOf(100, start)
		}
		b.ReportMetric(float64(took[0].Microseconds()), "us-image")
		b.ReportMetric(float64(took[1].Microseconds()), "us-plain")
		b.ReportMetric(float64(took[2].Microseconds()), "us-wazero")
		b.ReportMetric(float64(took[1])/float64(took[0]), "x-faster-than-plain")
		b.ReportMetric(float64(took[2])/float64(took[0]), "x-faster-than-wazero")
		b.ReportMetric(bytes[0], "B-image")
		b.ReportMetric(bytes[1], "B-plain")
		b.ReportMetric(bytes[2], "B-wazero")
		b.ReportMetric(bytes[2]/bytes[0], "x-less-memory-than-wazero")
	}
	_ = ctx
}

// closer is an instance as an io.Closer.
type closer func()

func (c closer) Close() error { c(); return nil }

func newInstance(b *testing.B, p *Program) io.Closer {
	i, err := p.Instantiate(context.Background(), nil)
	if err != nil {
		b.Fatal(err)
	}
	return closer(func() { _ = i.Close(context.Background()) })
}

// rawInstances starts instances of a module with wazero alone, unmetered.
func rawInstances(b *testing.B, module []byte) func() io.Closer {
	ctx := context.WithValue(context.Background(), instanceKey{}, newBystander())
	r := wazero.NewRuntime(ctx)
	b.Cleanup(func() { _ = r.Close(ctx) })
	m, err := wasmbin.Parse(module, wasmbin.DefaultLimits())
	if err == nil {
		var modules []string
		for _, x := range m.Imports {
			modules = append(modules, x.Module)
		}
		slices.Sort(modules)
		err = provide(ctx, r, slices.Compact(modules))
	}
	if err != nil {
		b.Fatal(err)
	}
	compiled, err := r.CompileModule(ctx, module)
	if err != nil {
		b.Fatal(err)
	}
	return func() io.Closer {
		i, err := r.InstantiateModule(ctx, compiled,
			wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
		if err != nil {
			b.Fatal(err)
		}
		return closer(func() { _ = i.Close(ctx) })
	}
}

// newBystander is an instance for host functions, while another guest runs.
func newBystander() *Instance {
	i := &Instance{}
	i.meter.fuel = fullTank{}
	i.ambient.begin(0, [abi.SeedSize]byte{})
	return i
}

// fullTank is a fuel global that is never empty.
type fullTank struct{ api.MutableGlobal }

func (fullTank) Get() uint64 { return 1 << 62 }
func (fullTank) Set(uint64)  {}

// memoryOf returns what each of n things takes of the process's own memory: heap, and unshared pages of
// mappings.
func memoryOf(n int, start func() io.Closer) float64 {
	var all []io.Closer
	before := residentBytes()
	for range n {
		all = append(all, start())
	}
	after := residentBytes()
	for _, c := range all {
		_ = c.Close()
	}
	return float64(after-before) / float64(n)
}

// residentBytes is the anonymous memory of this process, or the Go heap if the system does not tell.
func residentBytes() int64 {
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err == nil {
		for line := range strings.Lines(string(status)) {
			var kb int64
			if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kb); n == 1 {
				return kb << 10
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkResetAfterTrap measures what a trap costs later commands: the reset, and the reset with the next
// command.
func BenchmarkResetAfterTrap(b *testing.B) {
	ctx := context.Background()
	golang, err := goGuest()
	if err != nil {
		b.Fatal(err)
	}
	for name, c := range map[string]struct {
		module    []byte
		trap, run string
	}{"minimal": {testguest.Counter("c"), "trap", "nop"}, "go": {golang, "panic", "echo"}} {
		b.Run(name, func(b *testing.B) {
			p := mustCompile(b, c.module, service.Limits{})
			i := instantiate(b, p, nil)
			call := func(name string) error {
				n := slices.IndexFunc(p.module.Manifest.Commands,
					func(t abi.CommandType) bool { return t.Name == name })
				_, err := i.Handle(ctx, service.GuestCall{Slot: 1, Type: uint16(n), ID: "id", Data: []byte(`1`)})
				return err
			}
			var reset, next time.Duration
			for n := 0; b.Loop(); n++ {
				if err := call(c.trap); service.KindOf(err) != service.KindTrap {
					b.Fatal(err)
				}
				start := time.Now()
				if err := i.Reset(ctx); err != nil {
					b.Fatal(err)
				}
				reset += time.Since(start)
				if err := call(c.run); err != nil {
					b.Fatal(err)
				}
				next += time.Since(start)
			}
			b.ReportMetric(float64(reset.Nanoseconds())/float64(b.N)/1000, "us-reset")
			b.ReportMetric(float64(next.Nanoseconds())/float64(b.N)/1000, "us-reset-and-next")
		})
	}
}

// BenchmarkEndingGuests compares two ways to make a guest interruptible, each with a module without it:
// wazero's check of a context at each loop head, and the meter.
func BenchmarkEndingGuests(b *testing.B) {
	ctx := context.Background()
	// Sums memory up, a million loads per call.
	kernel := testguest.Code(
		testguest.Loop(
			testguest.Get(2), testguest.Get(1), testguest.I32Const(0xffff), testguest.I32And, testguest.Load64(0),
			testguest.I64Add, testguest.Set(2),
			testguest.Get(1), testguest.I32Const(1), testguest.I32Add, testguest.Set(1),
			testguest.Get(1), testguest.I32Const(1_000_000), testguest.Op(0x49), testguest.BrIf(0)),
		testguest.Get(2))
	module := testguest.Liar{With: func(m *testguest.Builder) {
		m.Export("kernel", wasmbin.ExternFunc, m.Func(testguest.Types(testguest.I32), testguest.Types(testguest.I64),
			testguest.Types(testguest.I32, testguest.I64), kernel))
	}}.Bytes()
	start := func(c wazero.RuntimeConfig) api.Function {
		r := wazero.NewRuntimeWithConfig(ctx, c)
		b.Cleanup(func() { _ = r.Close(ctx) })
		i, err := r.Instantiate(ctx, module)
		if err != nil {
			b.Fatal(err)
		}
		return i.ExportedFunction("kernel")
	}
	bare := start(wazero.NewRuntimeConfig())
	watched := start(wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	i := instantiate(b, mustCompile(b, module, service.Limits{Fuel: endless}), nil)
	metered := i.module.ExportedFunction("kernel")
	run := func(ctx context.Context, f api.Function) time.Duration {
		var stack [1]uint64
		return each(10, 3, func() {
			i.meter.fuel.Set(1 << 60)
			i.meter.stack.Set(1 << 20)
			if err := f.CallWithStack(ctx, stack[:]); err != nil {
				b.Fatal(err)
			}
		})
	}
	cancelable, cancel := context.WithCancel(ctx)
	defer cancel()
	for b.Loop() {
		none, meter, closing := run(ctx, bare), run(&i.guest, metered), run(cancelable, watched)
		b.ReportMetric(float64(meter)/float64(none), "x-metered")
		b.ReportMetric(float64(closing)/float64(none), "x-close-on-context-done")
		b.ReportMetric(float64(closing)/float64(meter), "x-close-on-context-done/metered")
	}
}

// BenchmarkHydrate is one event of a long history.
func BenchmarkHydrate(b *testing.B) {
	i := instantiate(b, mustCompile(b, testguest.Counter("c"), service.Limits{}), nil)
	data := []byte(`{"amount":5,"from":"alice","to":"bob","note":"thanks for the fish"}`)
	b.ReportAllocs()
	none := service.GuestSnapshot{}
	err := i.Hydrate(context.Background(), 1, "key", none, func(yield func(service.GuestEvent) error) error {
		for b.Loop() {
			if err := yield(service.GuestEvent{Data: data}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// For each call the sandbox allocates only the outcome: the copy of the answer, and the list of events.
// wazero's allocations are counted separately.
func TestHandleAllocations(t *testing.T) {
	i := instantiate(t, mustCompile(t, testguest.Counter("c"), service.Limits{}), nil)
	ctx := t.Context()
	call := service.GuestCall{Type: testguest.CounterAdd, ID: "id"}
	if _, err := i.Handle(ctx, call); err != nil {
		t.Fatal(err)
	}
	// Not testing.AllocsPerRun: on one processor wazero's goroutine per call allocates more.
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
		i.meter.fuel.Set(1 << 60)
		_ = i.call.CallWithStack(&i.guest, i.stack[:])
	})
	if all := allocations(func() { _, _ = i.Handle(ctx, call) }); all-wazero > 3.5 { // 3 with the race detector
		t.Errorf("%.1f allocations a command, %.1f of them wazero's", all, wazero)
	}
}

// BenchmarkUpload compares the time from the bytes of a 3 MB Go guest to a program with a manifest, with the
// compiler process, with wazero's time to compile the same bytes, alternating. The first quartiles are
// compared.
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
		p, err := r.Compile(ctx, "", golang, service.Limits{}, service.Settings{}, nil)
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

// BenchmarkNeighbourOfABomb measures commands of another service while the compiler process works on a bomb,
// and alone, alternating: one command per millisecond, for half a second each.
func BenchmarkNeighbourOfABomb(b *testing.B) {
	r := newRuntime(b, Options{Compiler: compilerCommand()})
	i := instantiate(b, mustCompile(b, testguest.Counter("c"), service.Limits{}), nil)
	ctx := context.Background()
	call := service.GuestCall{Slot: 1, Type: testguest.CounterAdd, ID: "0123456789abcdef", Data: []byte(`{"amount":5}`)}
	commands := func(took []float64) []float64 {
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for range 500 {
			<-pace.C
			start := time.Now()
			if _, err := i.Handle(ctx, call); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start).Seconds())
		}
		return took
	}
	var bomb []byte
	for _, x := range testguest.Bombs() {
		if x.Name == "branches" {
			bomb = x.Module
		}
	}
	var alone, beside []float64
	for b.Loop() {
		alone = commands(alone)
		busy, stop := context.WithCancel(ctx)
		before := r.compiler.Compilations()
		exploded := make(chan error, 1)
		go func() {
			_, err := r.Compile(busy, "", bomb, service.Limits{}, service.Settings{}, nil)
			exploded <- err
		}()
		for r.compiler.Compilations() == before {
			runtime.Gosched()
		}
		beside = commands(beside)
		stop()
		if err := <-exploded; service.KindOf(err) != service.KindCanceled {
			b.Fatalf("the bomb was through before it was stopped: %v", err)
		}
	}
	p99 := func(v []float64) float64 {
		slices.Sort(v)
		return v[len(v)*99/100] * 1e6
	}
	b.ReportMetric(p99(alone), "alone-p99-µs")
	b.ReportMetric(p99(beside), "beside-p99-µs")
}
