package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/pages"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// bothWays runs a test with mapped images and with copied images. Where the system cannot map images, both
// runs copy.
func bothWays(t *testing.T, test func(t *testing.T, r *Runtime)) {
	for name, copying := range map[string]bool{"mapped": false, "copied": true} {
		t.Run(name, func(t *testing.T) {
			// the second program loads what the first compiled
			r, err := NewRuntime(Options{CopyImages: copying, CacheDir: codeDir()})
			if err != nil {
				t.Fatal(err)
			}
			test(t, r)
			nothingHeld(t, r)
			if err := r.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A memory equals its image at first and after each reset, whatever was written to it. It grows with zeros,
// up to its limit, and keeps its content.
func TestMemoryIsItsImage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	bothWays(t, func(t *testing.T, r *Runtime) {
		for round := range 30 {
			want := make([]byte, rng.IntN(6)*admission.PageBytes)
			for n := rng.IntN(20); n > 0 && len(want) > 0; n-- {
				at := rng.IntN(len(want))
				piece := want[at:min(len(want), at+rng.IntN(3000))]
				for k := range piece {
					piece[k] = byte(rng.Uint32())
				}
			}
			hold := &holding{account: r.budget}
			m, err := captureImage(r.backing, want, nil, nil, hold)
			if err != nil {
				t.Fatal(err)
			}
			limit := uint64(len(want) + rng.IntN(3)*admission.PageBytes)
			if limit == 0 {
				limit = admission.PageBytes
			}
			mem, err := newMemory(r.backing, limit, 0, m, hold, 0)
			if err != nil {
				t.Fatal(err)
			}
			mem.Reallocate(0) // wazero asks for the module's minimum
			for range 4 {
				got := mem.b
				if !bytes.Equal(got, want) {
					t.Fatalf("round %d: the memory is not its image", round)
				}
				for n := rng.IntN(10); n > 0 && len(got) > 0; n-- {
					got[rng.IntN(len(got))]++
				}
				if err := mem.reset(); err != nil {
					t.Fatal(err)
				}
			}
			if len(want) > 0 {
				mem.b[0]++
			}
			before := bytes.Clone(mem.b)
			grown := mem.Reallocate(limit)
			if uint64(len(grown)) != limit || !bytes.Equal(grown[:len(before)], before) ||
				!allZero(grown[len(before):]) {
				t.Fatalf("round %d: grown to %d bytes of %d", round, len(grown), limit)
			}
			for k := range grown { // all of it can be used
				grown[k] = 1
			}
			if mem.refused || mem.Reallocate(limit+admission.PageBytes) != nil || !mem.refused {
				t.Error("growth beyond the limit was not refused")
			}
			m.close()
			m.close()
			mem.release()
			mem.release()
		}
	})
}

func allZero(b []byte) bool { return pages.Used(b) == 0 }

// A closed image is not used again: its file number may belong to another file.
func TestClosedImage(t *testing.T) {
	bothWays(t, func(t *testing.T, r *Runtime) {
		p, err := r.Compile(t.Context(), "", testguest.Counter("c"), service.Limits{}, service.Settings{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		i, err := p.Instantiate(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := i.Handle(t.Context(), add); service.KindOf(err) != service.KindUnavailable {
			t.Errorf("a call of an instance whose program is closed: %v", err)
		}
		if err := i.Reset(t.Context()); service.KindOf(err) != service.KindUnavailable {
			t.Errorf("its reset: %v", err)
		}
		if _, err := p.Instantiate(t.Context(), nil); service.KindOf(err) != service.KindUnavailable {
			t.Errorf("another instance: %v", err)
		}
	})
}

// state is the whole state of a guest.
func (i *Instance) state() string {
	s := fmt.Sprintf("%x", i.mem.Size())
	for _, g := range i.globals {
		s += fmt.Sprintf(" %x", g.Get())
	}
	b, _ := i.mem.Read(0, i.mem.Size())
	return s + string(b)
}

// An instance is the same however it started: by its own initialisation, from a mapped or a copied image, or
// by a reset. The same commands have the same answers and fuel, and leave the same memory and globals.
func TestInstancesOfAProgramAreTheSame(t *testing.T) {
	golang, err := goGuest()
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string][]service.GuestCall{
		"counter": {add, add, {Type: testguest.CounterEcho, Data: []byte(`"x"`)}, {Type: testguest.CounterReject}, {Type: testguest.CounterFault}, add},
		"go":      nil,
	}
	harmless := []string{"echo", "now", "sleep", "environment", "print", "random"}
	for n, c := range goProgram(t, service.Limits{}).Module().Manifest.Commands {
		if slices.Contains(harmless, c.Name) {
			for _, data := range []string{`"a"`, `{"b":[1,2,3]}`} {
				commands["go"] = append(commands["go"], service.GuestCall{Slot: 1, Type: uint16(n), ID: "id",
					Time: 12345, Data: []byte(data)})
			}
		}
	}
	for name, module := range map[string][]byte{"counter": testguest.Counter("c"), "go": golang} {
		run := func(t *testing.T, i *Instance) (trace string) {
			for n, c := range commands[name] {
				o, err := i.Handle(t.Context(), c)
				trace += fmt.Sprintf("%d: %s %d events, %d fuel, %v\n", n, replyOf(t, o), len(o.Events), o.Fuel, err)
				if i.Broken() {
					t.Fatal(err)
				}
			}
			return trace + fmt.Sprintf("%d in all\n", i.Fuel())
		}
		var traces, states []string
		keep := func(t *testing.T, i *Instance) {
			traces = append(traces, run(t, i))
			states = append(states, i.state())
		}
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, r *Runtime) {
				p, err := r.Compile(t.Context(), "", module, inTime, service.Settings{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close(t.Context())
				if p.image != nil {
					t.Error("a program that is not used has an image")
				}
				first, err := p.Instantiate(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if p.image == nil {
					t.Fatalf("there is no image: %s", p.Start().Why)
				}
				first.burnt = 0 // the fuel of the initialisation
				keep(t, first)
				if err := first.Reset(t.Context()); err != nil {
					t.Fatal(err)
				}
				if first.memory.image != p.image {
					t.Error("the instance that made the image is not reset to it")
				}
				first.burnt = 0
				keep(t, first)
				for range 2 {
					i, err := p.Instantiate(t.Context(), nil)
					if err != nil {
						t.Fatal(err)
					}
					keep(t, i)
					memory, engine := i.memory, i.call
					before := i.Fuel()
					if err := i.Reset(t.Context()); err != nil {
						t.Fatal(err)
					}
					if i.memory == memory && i.call == engine {
						t.Error("a reset in place keeps the call engine, with its stack")
					}
					i.burnt -= before
					keep(t, i)
				}
				image := p.image
				p.image, p.imageable = nil, false
				plain, err := p.Instantiate(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				plain.burnt = 0 // the fuel of the initialisation
				keep(t, plain)
				p.image, p.imageable = image, true
			})
			for k := range traces {
				if traces[k] != traces[0] {
					t.Errorf("instance %d answers\n%s the first one\n%s", k, traces[k], traces[0])
				}
				if states[k] != states[0] {
					t.Errorf("instance %d is left in another state than the first", k)
				}
			}
			if len(traces) < 10 {
				t.Errorf("only %d instances", len(traces))
			}
		})
	}
}

// A guest whose tables or segments change has no image. One whose memory has grown is not reset in place.
// Both are in the initial state after a reset.
func TestWhatIsInstantiatedAnew(t *testing.T) {
	bothWays(t, func(t *testing.T, r *Runtime) {
		changing := testguest.Liar{With: func(b *testguest.Builder) {
			b.Table(1)
			b.Func(nil, nil, nil, testguest.I32Const(0), testguest.Op(0xd0, 0x70), testguest.Op(0x26, 0)) // table.set
		}}.Bytes()
		for name, module := range map[string][]byte{"tables change": changing, "memory grows": testguest.Counter("c")} {
			p, err := r.Compile(t.Context(), "", module, quick, service.Settings{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if start := p.Start(); start.Image != (name == "memory grows") || start.Image == (start.Why != "") ||
				start.MemoryBytes == 0 || start.Tariff != metering.TariffVersion {
				t.Errorf("%s: %+v", name, start)
			}
			i, err := p.Instantiate(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			first, size := i.module, i.MemoryBytes()
			if name == "memory grows" {
				if _, err := i.Handle(t.Context(), service.GuestCall{Type: testguest.CounterGrow}); service.KindOf(
					err) != service.KindGuestMemory {
					t.Fatal(err)
				}
			}
			if err := i.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			if i.module == first || i.MemoryBytes() != size {
				t.Errorf("%s: the instance was reset in place, with %d bytes of memory", name, i.MemoryBytes())
			}
			if err := ask(i, abi.ReqCommand, testguest.HonestSlot); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// A memory only grows, over a hundred thousand commands. If Worn is checked between them, no command fails.
func TestMemoryThatOnlyGrowsIsRecycled(t *testing.T) {
	// Each command grows the memory by a page.
	leaky := testguest.Liar{Code: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(
		testguest.I32Const(1), testguest.MemoryGrow, testguest.I32Const(-1), testguest.I32Eq,
		testguest.If(testguest.Unreachable),
		testguest.Code(liarAnswer...))}}.Bytes()
	i := instantiate(t, mustCompile(t, leaky, service.Limits{MemoryBytes: 64 << 20}), nil)
	recycled := 0
	for n := range 100_000 {
		if i.Worn() {
			recycled++
			if err := i.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := ask(i, abi.ReqCommand, testguest.LiarSlot); err != nil {
			t.Fatalf("command %d: %v", n, err)
		}
		if i.MemoryBytes() > 49<<20 {
			t.Fatalf("command %d: %d bytes", n, i.MemoryBytes())
		}
	}
	if recycled < 100 {
		t.Errorf("recycled %d times", recycled)
	}
	if worn := (&Instance{memory: &linearMemory{}, watermark: 1}).Worn(); worn {
		t.Error("an instance without memory is worn")
	}
}

// A NaN from arithmetic is the canonical one, whatever NaN went in, unless the service keeps the processor's.
func TestNaNBitsAreASetting(t *testing.T) {
	const at, odd = 64, 0x7ff8_0000_dead_beef
	module := testguest.Liar{With: func(b *testguest.Builder) {
		b.Start(b.Func(nil, nil, nil, testguest.I32Const(at),
			testguest.I64Const(odd), testguest.Op(0xbf), // f64.reinterpret_i64
			testguest.I64Const(1), testguest.Op(0xbf), testguest.Op(0xa0), // f64.add
			testguest.Op(0xbd), testguest.Store64(0))) // i64.reinterpret_f64
	}}.Bytes()
	bits := func(s service.Settings) uint64 {
		p, err := shared().Compile(t.Context(), "", module, quick, s, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close(context.Background()) })
		i := instantiate(t, p, nil)
		got, ok := i.mem.ReadUint64Le(at)
		if !ok {
			t.Fatal("no such address")
		}
		return got
	}
	if got := bits(service.Settings{}); got != 0x7ff8_0000_0000_0000 {
		t.Errorf("the NaN is %#x, not the canonical one", got)
	}
	if got := bits(service.Settings{KeepNaN: true}); got != odd { // as on all processors for which wazero compiles
		t.Errorf("the NaN that was to be kept is %#x", got)
	}
}

// Instances that start at the same time make one image together: one of them initialises itself, the others
// begin as the image. An instance whose caller does not want to wait gives up.
func TestAnImageIsMadeOnce(t *testing.T) {
	bothWays(t, func(t *testing.T, r *Runtime) {
		init := testguest.Liar{Initialize: testguest.Code(testguest.I32Const(testguest.LiarScratch),
			testguest.I32Const(7), testguest.Store32(0))}
		p, err := r.Compile(t.Context(), "", init.Bytes(), quick, service.Settings{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close(t.Context())
		p.making <- struct{}{} // another instance makes the image
		ended, end := context.WithCancel(t.Context())
		end()
		if _, err := p.Instantiate(ended, nil); service.KindOf(err) != service.KindCanceled {
			t.Errorf("whose caller has gone: %v", err)
		}
		<-p.making
		const n = 8
		instances := make([]*Instance, n)
		var all sync.WaitGroup
		for k := range instances {
			all.Go(func() {
				var err error
				if instances[k], err = p.Instantiate(t.Context(), nil); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if t.Failed() {
			return
		}
		initialised := 0
		for _, i := range instances {
			if i.Fuel() > 0 {
				initialised++
			}
			if got, _ := i.mem.ReadUint32Le(testguest.LiarScratch); got != 7 {
				t.Errorf("an instance begins with %d", got)
			}
		}
		if initialised != 1 {
			t.Errorf("%d of %d instances have initialised themselves", initialised, n)
		}
	})
}
