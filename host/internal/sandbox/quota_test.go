package sandbox

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	quota "github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/pages"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// unhurried are limits that nothing here reaches on any machine, except that of memory.
var unhurried = service.Limits{CompileTime: 10 * time.Minute, CallTime: 10 * time.Minute, MemoryBytes: 16 << 20}

// compileFor compiles a module for a service with limits in a host without limits.
func compileFor(t testing.TB, r *Runtime, module []byte, l quota.Limits) (*Program, *quota.Account) {
	t.Helper()
	account := r.budget.Child("service", l)
	p, err := r.CompileFor(t.Context(), Tenant{Account: account}, compile.Loaded(module), unhurried, service.Settings{},
		nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if held := account.Close(); held != nil {
			t.Errorf("after the program was closed its service holds %v", held)
		}
	})
	return p, account
}

// wantQuota checks that err refuses a resource.
func wantQuota(t *testing.T, err error, r quota.Resource) {
	t.Helper()
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindQuota || e.Resource != r.String() || e.Limit == 0 ||
		e.Used > e.Limit {
		t.Errorf("want the refusal of %v, got %+v", r, err)
	}
}

func TestSandboxesAreTakenBeforeTheyStart(t *testing.T) {
	p, account := compileFor(t, shared(), testguest.Counter("c"), quota.Limits{quota.Sandboxes: 4})
	used := func(want int64) {
		t.Helper()
		if got := account.Used(quota.Sandboxes); got != want {
			t.Errorf("%d sandboxes are taken, not %d", got, want)
		}
	}
	used(0) // the instance that described itself is closed
	if err := p.Reserve(2); err != nil {
		t.Fatal(err)
	}
	used(2)
	wantQuota(t, p.Reserve(3), quota.Sandboxes)
	used(2)
	var all []*Instance
	for range 4 { // two reserved ones, and two more
		all = append(all, instantiate(t, p, nil))
	}
	used(4)
	_, err := p.Instantiate(t.Context(), nil)
	wantQuota(t, err, quota.Sandboxes)
	for _, i := range all {
		if err := i.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = i.Close(t.Context())
	}
	used(2)
	if m := p.Memory(); m.Image == 0 || m.Code == 0 || m.Image+m.Code != account.Used(quota.SandboxBytes) {
		t.Errorf("of %d bytes the image has %d and the code %d", account.Used(quota.SandboxBytes), m.Image, m.Code)
	}
}

// A guest that asks for memory that the host does not have sees that its memory does not grow. Its answer is
// then void, as it would differ at another time.
func TestGrowthBeyondTheBudget(t *testing.T) {
	// It grows as far as it can, and then answers normally.
	greedy := testguest.Liar{Code: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(
		testguest.Loop(testguest.I32Const(1), testguest.MemoryGrow, testguest.I32Const(-1), testguest.I32Eq,
			testguest.I32Eqz, testguest.BrIf(0)),
		testguest.Code(liarAnswer...))}}.Bytes()
	bothWays(t, func(t *testing.T, r *Runtime) {
		t.Run("", func(t *testing.T) { // so that its cleanup runs before the runtime is closed
			p, account := compileFor(t, r, greedy, nil)
			i := instantiate(t, p, nil)
			idle := account.Used(quota.SandboxBytes)
			if err := ask(i, abi.ReqCommand, testguest.LiarSlot); err != nil {
				t.Fatalf("up to its own limit: %v", err)
			}
			if got := account.Used(quota.SandboxBytes) - idle; got < i.MemoryBytes()-p.startBytes {
				t.Errorf("it has grown by %d bytes, and %d were taken", i.MemoryBytes()-p.startBytes, got)
			}
			if err := i.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := account.Used(quota.SandboxBytes); got != idle {
				t.Errorf("%d bytes are taken after the reset, %d before", got, idle)
			}
			account.SetLimit(quota.SandboxBytes, idle+4<<20)
			for range 3 {
				err := ask(i, abi.ReqCommand, testguest.LiarSlot)
				wantQuota(t, err, quota.SandboxBytes)
				if !i.Broken() || !strings.Contains(err.Error(), "nothing was written") {
					t.Errorf("the instance is not broken after %v", err)
				}
				if used := account.Used(quota.SandboxBytes); used > idle+4<<20 {
					t.Errorf("%d bytes are taken, beyond the limit", used)
				}
				if err := i.Reset(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := ask(i, abi.ReqCommand, testguest.HonestSlot); err != nil {
					t.Errorf("after the reset: %v", err)
				}
			}
			account.SetLimit(quota.SandboxBytes, idle)
			_, err := p.Instantiate(t.Context(), nil)
			wantQuota(t, err, quota.SandboxBytes)
			wantQuota(t, p.Reserve(1), quota.SandboxBytes)
		})
	})
}

// What a module takes before its needs are known is taken from the budget, too, and a refusal is not the
// module's fault.
func TestCompilingBeyondTheBudget(t *testing.T) {
	hungry := testguest.Liar{Initialize: testguest.Code(testguest.I32Const(100), testguest.MemoryGrow,
		testguest.Drop)}.Bytes()
	refused := map[quota.Resource]bool{}
	bothWays(t, func(t *testing.T, r *Runtime) {
		for limit := int64(1); ; limit += 600 << 10 {
			account := r.budget.Child("service", quota.Limits{quota.SandboxBytes: limit, quota.Sandboxes: 1})
			p, err := r.CompileFor(t.Context(), Tenant{Account: account}, compile.Loaded(hungry), unhurried,
				service.Settings{}, nil)
			if err == nil {
				if limit < 100*admission.PageBytes {
					t.Errorf("a memory of %d bytes with a budget of %d", 100*admission.PageBytes, limit)
				}
				_ = p.Close(t.Context())
			} else {
				wantQuota(t, err, quota.SandboxBytes)
				refused[quota.SandboxBytes] = true
			}
			if held := account.Close(); held != nil {
				t.Errorf("with %d bytes %v are held in the end", limit, held)
			}
			if err == nil {
				break
			}
		}
	})
	if len(refused) == 0 {
		t.Error("nothing was refused")
	}
}

// Machine code is in memory, too. It is taken from the budget before it is loaded, or compiled if it is not
// on disk. A refusal leaves it on disk for the next attempt.
func TestMachineCodeIsCounted(t *testing.T) {
	module := testguest.Counter("c")
	for name, o := range map[string]Options{"on disk": {CacheDir: t.TempDir()}, "in memory": {}} {
		r, err := NewRuntime(o)
		if err != nil {
			t.Fatal(err)
		}
		account := r.budget.Child("service", quota.Limits{quota.SandboxBytes: 100})
		compile := func() (*Program, error) {
			return r.CompileFor(t.Context(), Tenant{Account: account}, compile.Loaded(module), unhurried,
				service.Settings{}, nil)
		}
		for range 2 {
			_, err := compile()
			wantQuota(t, err, quota.SandboxBytes)
		}
		account.SetLimit(quota.SandboxBytes, 0)
		p, err := compile()
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Memory().Code; got < int64(len(module)) ||
			got != account.Used(quota.SandboxBytes)-p.Memory().Image {
			t.Errorf("%s: machine code of %d bytes", name, got)
		}
		if n := r.compiler.Compilations(); n > 1 {
			t.Errorf("%s: compiled %d times", name, n)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if held := account.Close(); held != nil {
			t.Errorf("%s: %v is held in the end", name, held)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// The request buffer is kept while the budget has room, and is counted.
func TestBuffersAreCounted(t *testing.T) {
	p, account := compileFor(t, shared(), testguest.Liar{}.Bytes(), nil)
	i := instantiate(t, p, nil)
	idle := account.Used(quota.SandboxBytes)
	large := service.GuestCall{Slot: testguest.LiarSlot, Data: []byte(`"` + strings.Repeat("x", 100_000) + `"`)}
	for range 2 {
		if _, err := i.Handle(t.Context(), large); err != nil {
			t.Fatal(err)
		}
		if got := account.Used(quota.SandboxBytes) - idle; cap(i.request) < 100_000 ||
			got != int64(cap(i.request))-bufferBytes {
			t.Errorf("a buffer of %d bytes is kept, and %d were taken", cap(i.request), got)
		}
	}
	_ = i.Close(t.Context())
	i = instantiate(t, p, nil)
	account.SetLimit(quota.SandboxBytes, account.Used(quota.SandboxBytes)+500_000)
	if _, err := i.Handle(t.Context(), large); err != nil {
		t.Fatal(err)
	}
	if cap(i.request) > bufferBytes {
		t.Errorf("a buffer of %d bytes is kept although there is little room", cap(i.request))
	}
}

func TestTablesAreCounted(t *testing.T) {
	tables := func(change bool) *Program {
		p, _ := compileFor(t, shared(), testguest.Liar{With: func(b *testguest.Builder) {
			b.Table(50_000)
			b.Table(10)
			if change {
				// table.grow
				b.Func(nil, nil, nil, testguest.Op(0xd0, 0x70), testguest.I32Const(1), testguest.Op(0xfc, 0x0f, 0),
					testguest.Drop)
			}
		}}.Bytes(), nil)
		return p
	}
	fixed, growing := tables(false), tables(true)
	if fixed.tableBytes != 50_010*8 || growing.tableBytes != 2*100_000*8*5/4 {
		t.Errorf("tables have %d bytes, and %d if they may grow", fixed.tableBytes, growing.tableBytes)
	}
	_ = instantiate(t, fixed, nil).Close(t.Context()) // makes the image
	idle := fixed.hold.account.Used(quota.SandboxBytes)
	i := instantiate(t, fixed, nil)
	if got := fixed.hold.account.Used(quota.SandboxBytes) - idle; got != fixed.tableBytes+instanceBytes+
		int64(fixed.limits.StackBytes)+i.MemoryBytes() {
		t.Errorf("an instance takes %d bytes", got)
	}
	if m := fixed.Memory(); m.Tables != fixed.tableBytes {
		t.Errorf("its tables have %d bytes", m.Tables)
	}
}

// failing is a backing whose n-th operation fails, like a system without memory.
type failing struct {
	pages.Backing
	left *int
}

var errNoMemory = errors.New("cannot allocate memory")

func (b failing) fails() bool { *b.left--; return *b.left == 0 }

func (b failing) Reserve(limit uint64) (pages.Space, error) {
	if b.fails() {
		return nil, errNoMemory
	}
	s, err := b.Backing.Reserve(limit)
	return failingSpace{s, b}, err
}

func (b failing) Keep(memory []byte) (pages.Stored, error) {
	if b.fails() {
		return nil, errNoMemory
	}
	return b.Backing.Keep(memory)
}

type failingSpace struct {
	pages.Space
	b failing
}

func (s failingSpace) Grow(size uint64) ([]byte, error) {
	if s.b.fails() {
		return nil, errNoMemory
	}
	return s.Space.Grow(size)
}

func (s failingSpace) Show(image pages.Stored, size uint64) ([]byte, error) {
	if s.b.fails() {
		return nil, errNoMemory
	}
	return s.Space.Show(image, size)
}

// If the system has no memory, at any point, that is an error of the host: the guest gets no other memory in
// its place, nothing is left behind, and it works when there is memory again.
func TestMappingsThatFail(t *testing.T) {
	bothWays(t, func(t *testing.T, r *Runtime) {
		whole := r.backing
		defer func() { r.backing = whole }()
		left := 0
		r.backing = failing{whole, &left}
		run := func() (err error) {
			p, err := r.Compile(t.Context(), "", testguest.Counter("c"), unhurried, service.Settings{}, nil)
			if err != nil {
				return err
			}
			defer func() { _ = p.Close(t.Context()) }()
			i, err := p.Instantiate(t.Context(), nil)
			if err != nil {
				return err
			}
			if _, err := i.Handle(t.Context(), add); err != nil {
				return err
			}
			if err := i.Reset(t.Context()); err != nil {
				again := i.Reset(t.Context())
				if again != nil {
					t.Errorf("another reset: %v", again)
				}
				return err
			}
			// It takes all memory it can get and traps.
			if _, err = i.Handle(t.Context(), service.GuestCall{Type: testguest.CounterGrow}); service.KindOf(
				err) != service.KindGuestMemory {
				return err
			}
			return i.Reset(t.Context())
		}
		for n := 1; ; n++ {
			left = n
			err := run()
			nothingHeld(t, r)
			if err == nil && left > 0 { // there was no n-th operation
				if n < 8 {
					t.Errorf("only %d operations", n)
				}
				break
			}
			if err == nil { // a program without an image goes on
				continue
			}
			if service.KindOf(err) != service.KindUnavailable || !errors.Is(err, errNoMemory) {
				t.Fatalf("operation %d fails: %v", n, err)
			}
		}
	})
}

// Whatever instances do concurrently, no limit is exceeded and nothing is lost.
func TestTheBudgetOfManyInstances(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	limits := quota.Limits{quota.Sandboxes: 6, quota.SandboxBytes: 24 << 20}
	account := shared().budget.Child("services", limits)
	check := func() {
		for r, limit := range limits {
			if used := account.Used(r); used < 0 || used > limit {
				t.Errorf("%d of %d %v are taken", used, limit, r)
			}
		}
	}
	var all sync.WaitGroup
	for worker := range uint64(3) {
		own := account.Child("service", nil)
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, worker))
			defer func() {
				if held := own.Close(); held != nil {
					t.Errorf("a service holds %v in the end", held)
				}
			}()
			p, err := shared().CompileFor(t.Context(), Tenant{Account: own}, compile.Loaded(testguest.Counter("c")),
				unhurried, service.Settings{}, nil)
			if err != nil {
				if service.KindOf(err) != service.KindQuota {
					t.Error(err)
				}
				return
			}
			defer func() { _ = p.Close(t.Context()) }()
			var open []*Instance
			for range 200 {
				check()
				switch k := rng.IntN(10); {
				case k == 0:
					err = p.Reserve(1)
				case k < 4 || len(open) == 0:
					var i *Instance
					if i, err = p.Instantiate(t.Context(), nil); err == nil {
						open = append(open, i)
					}
				case k < 6:
					at := rng.IntN(len(open))
					_ = open[at].Close(t.Context())
					open = append(open[:at], open[at+1:]...)
				default:
					i := open[rng.IntN(len(open))]
					_, err = i.Handle(t.Context(), service.GuestCall{Type: testguest.CounterGrow})
					if service.KindOf(err) == service.KindGuestMemory {
						err = nil
					}
					if e := i.Reset(t.Context()); e != nil {
						err = e
					}
				}
				if err != nil && service.KindOf(err) != service.KindQuota {
					t.Error(err)
				}
				err = nil
			}
		})
	}
	all.Wait()
	if held := account.Close(); held != nil {
		t.Errorf("all services hold %v in the end", held)
	}
}
