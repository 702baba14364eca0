package sandbox

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// A bomb only ends the compiler process. The uploader learns which limit it exceeded, the host's memory is as
// before, and the next module compiles.
func TestCompileBombs(t *testing.T) {
	prove.SkipShort(t, "it compiles large modules")
	r := newRuntime(t, Options{Compiler: compilerCommand()})
	for _, b := range testguest.Bombs() {
		t.Run(b.Name, func(t *testing.T) {
			before := liveHeap()
			err := compileWith(t, r, b.Module, service.Limits{CompileTime: time.Second / 2, CompileBytes: 64 << 20})
			var e *service.Error
			if err != nil && (!errors.As(err, &e) || e.Kind != service.KindBadModule || len(e.Reasons) != 1 ||
				!strings.Contains(e.Reasons[0], "limit raised") && !strings.Contains(e.Reasons[0], "grows too much")) {
				t.Fatalf("%v", err)
			}
			t.Logf("%d bytes: %v", len(b.Module), err)
			if r.compiler.Busy() > 0 {
				t.Errorf("%d slots and turns are still taken", r.compiler.Busy())
			}
			if err := compileWith(t, r, testguest.Counter("c"), quick); err != nil {
				t.Errorf("the next module: %v", err)
			}
			if grown := settledHeap(before+4<<20) - before; grown > 4<<20 {
				t.Errorf("the host's heap has grown by %d bytes", grown)
			}
		})
	}
}

// liveHeap is what the host's heap holds after everything unused has been freed, or nearly.
func liveHeap() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// settledHeap waits until the host's heap holds at most maxBytes, or gives up. Finalizers run at any time,
// and only the next collection frees what they release.
func settledHeap(maxBytes int64) (held int64) {
	for range 100 {
		if held = liveHeap(); held <= maxBytes {
			break
		}
	}
	return held
}

// The compiler process finds that a module is invalid, and the refusal is like any other.
func TestInvalidModuleApart(t *testing.T) {
	r := newRuntime(t, Options{Compiler: compilerCommand()})
	for _, c := range testguest.Statically() {
		if c.Name != "does not validate" {
			continue
		}
		_, err := r.Compile(t.Context(), "liar", c.Module, quick, service.Settings{}, nil)
		var e *service.Error
		if !errors.As(err, &e) || e.Kind != service.KindBadModule || len(e.Reasons) != 1 ||
			!strings.Contains(e.Reasons[0], c.Want[0]) {
			t.Errorf("%v", err)
		}
		return
	}
	t.Error("there is no such module")
}

// A compiler that does not work is the host's fault, not the module's.
func TestCompilerThatDoesNotWork(t *testing.T) {
	if _, err := NewRuntime(Options{Compiler: []string{"/nowhere/to/be/found"}}); service.KindOf(
		err) != service.KindInvalid {
		t.Errorf("one that is not there: %v", err)
	}
	for _, command := range [][]string{{"/bin/sh", "-c", "exit 1"}, {"/bin/sh", "-c", "echo hello"},
		{"/bin/sh", "-c", "exit 0"}, {"/bin/sh", "-c", "kill -9 $$"}} {
		r := newRuntime(t, Options{Compiler: command})
		err := compileWith(t, r, testguest.Counter("c"), quick)
		if k := service.KindOf(err); k != service.KindInternal && k != service.KindUnavailable {
			t.Errorf("%v: %v", command, err)
		}
	}
}

// Concurrent uploads of the same module compile it once.
func TestSameModuleAtOnce(t *testing.T) {
	r := newRuntime(t, Options{Compiler: compilerCommand()})
	module := testguest.Counter("c")
	var all sync.WaitGroup
	var failed atomic.Int64
	for range 8 {
		all.Go(func() {
			if err := compileWith(t, r, module, quick); err != nil {
				t.Error(err)
				failed.Add(1)
			}
		})
	}
	all.Wait()
	if n := r.compiler.Compilations(); n != 1 || failed.Load() > 0 {
		t.Errorf("compiled %d times, %d failed", n, failed.Load())
	}
}

// A caller that gives up stops the compiler. Another caller that waits for the same module then compiles it.
func TestCancelStopsTheCompiler(t *testing.T) {
	prove.SkipShort(t, "it compiles a large module")
	module, err := goGuest()
	if err != nil {
		t.Fatal(err)
	}
	r := newRuntime(t, Options{Compiler: compilerCommand()})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	second := make(chan error, 1)
	_, err = r.Compile(ctx, "", module, inTime, service.Settings{}, func(s compile.Stage, done, _ int64) {
		if s == compile.StageCompiling && done == 0 {
			go func() {
				for r.compiler.Compilations() == 0 { // compiling takes a second from here
					runtime.Gosched()
				}
				go func() { second <- compileWith(t, r, module, inTime) }()
				cancel()
			}()
		}
	})
	if err == nil {
		t.Error("the compiler was quicker than the caller")
	} else if service.KindOf(err) != service.KindCanceled {
		t.Errorf("%v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the second: %v", err)
	}
	if n := r.compiler.Compilations(); n < 1 || n > 2 {
		t.Errorf("compiled %d times", n)
	}
}

// A closed runtime stops its compiler and accepts nothing more.
func TestCloseStopsTheCompiler(t *testing.T) {
	module, err := goGuest()
	if err != nil {
		t.Fatal(err)
	}
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	r, err := NewRuntime(Options{Compiler: compilerCommand()})
	if err != nil {
		t.Fatal(err)
	}
	compiled := make(chan error, 1)
	go func() { compiled <- compileWith(t, r, module, inTime) }()
	for r.compiler.Compilations() == 0 { // compiling takes a second from here
		runtime.Gosched()
	}
	if there, err := os.ReadDir(temporary); err != nil || len(there) != 1 {
		t.Errorf("it compiles in %v, %v", there, err)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-compiled; service.KindOf(err) != service.KindUnavailable {
		t.Errorf("what was being compiled: %v", err)
	}
	if err := compileWith(t, r, module, service.Limits{}); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("what came too late: %v", err)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("its directory is there: %v, %v", left, err)
	}
}
