package sandbox

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// quick prevents guests that spin from delaying the tests.
var quick = service.Limits{Fuel: 20_000_000, CallTime: time.Minute, MemoryBytes: 8 << 20}

func refused(t *testing.T, c testguest.Broken) {
	t.Helper()
	p, err := shared().Compile(context.Background(), "liar", c.Module, quick, service.Settings{}, nil)
	if err == nil {
		p.Close(context.Background())
		t.Fatal("the module was accepted")
	}
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindBadModule || len(e.Reasons) == 0 {
		t.Fatalf("not a refusal with reasons: %#v", err)
	}
	for _, want := range c.Want {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestUploadRefusesStatically(t *testing.T) {
	for _, c := range testguest.Statically() {
		t.Run(c.Name, func(t *testing.T) { refused(t, c) })
	}
}

func TestUploadRefusesWhoReachesForTheMeter(t *testing.T) {
	for _, c := range testguest.Grabbers() {
		t.Run(c.Name, func(t *testing.T) { refused(t, c) })
	}
}

func TestUploadRefusesWhatFailsToStart(t *testing.T) {
	for _, c := range testguest.Dynamically() {
		t.Run(c.Name, func(t *testing.T) { refused(t, c) })
	}
}

// A truncated module is refused; but without its last section, the data, it is another valid module, whose
// manifest is missing.
func TestUploadTruncatedAtEveryByte(t *testing.T) {
	module := testguest.Counter("c")
	whole, err := wasmbin.Parse(module, wasmbin.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	noData := whole.Sections[len(whole.Sections)-1].Entry.Start
	for n := range module {
		if n == noData {
			refused(t, testguest.Broken{Module: module[:n], Want: []string{"describing"}})
			continue
		}
		if _, err := admission.Verify(module[:n:n], service.DefaultLimits()); service.KindOf(
			err) != service.KindBadModule {
			t.Fatalf("cut at byte %d: %v", n, err)
		}
	}
}

func TestUploadTooLarge(t *testing.T) {
	module := testguest.Counter("c")
	_, err := shared().Compile(t.Context(), "", module, service.Limits{ModuleBytes: 100}, service.Settings{}, nil)
	if service.KindOf(err) != service.KindBadModule || !strings.Contains(err.Error(), "this service's limit is 100") {
		t.Fatal(err)
	}
}

// Refusing a bomb costs the host little: the memory of a few copies of the file.
func TestBombsAreRefusedCheaply(t *testing.T) {
	for _, c := range testguest.Statically() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		_, err := admission.Verify(c.Module, service.DefaultLimits())
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		if err == nil {
			continue // found by validation
		}
		if used, limit := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+64*len(c.Module)); used > limit {
			t.Errorf("%s: refusing %d bytes allocated %d", c.Name, len(c.Module), used)
		}
		if took > 5*time.Second {
			t.Errorf("%s: refusing took %v", c.Name, took)
		}
	}
}

func TestCompileTellsStagesAndHonoursItsContext(t *testing.T) {
	var stages []compile.Stage
	p, err := shared().Compile(t.Context(), "c", testguest.Counter("c"), service.Limits{}, service.Settings{},
		func(s compile.Stage, done, total int64) {
			if done == 0 {
				stages = append(stages, s)
			} else if done != total {
				t.Errorf("%s: %d of %d", s, done, total)
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(context.Background())
	if !slices.Equal(stages, []compile.Stage{compile.StageVerifying, compile.StageRewriting, compile.StageCompiling,
		StageInitialising, StageDescribing}) {
		t.Errorf("stages %v", stages)
	}
	m := p.Module()
	if m.Digest != service.DigestOf(testguest.Counter("c")) || m.Size == 0 || m.Manifest.Service != "c" ||
		len(m.Manifest.Commands) != 9 {
		t.Errorf("module %+v", m)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := shared().Compile(ctx, "c", testguest.Counter("c"), service.Limits{}, service.Settings{},
		nil); service.KindOf(err) != service.KindCanceled {
		t.Errorf("compile for a caller that has gone: %v", err)
	}
	if _, err := shared().Compile(t.Context(), "c", testguest.Counter("c"), service.Limits{Events: -1},
		service.Settings{}, nil); service.KindOf(err) != service.KindInvalid {
		t.Errorf("bad limits: %v", err)
	}
}

// A module may have the exports of two major versions of the ABI.
func TestAModuleForTwoMajors(t *testing.T) {
	two := testguest.Liar{With: func(b *testguest.Builder) { b.Export("bulkhead_v2_call", wasmbin.ExternFunc, 0) }}
	mustCompile(t, two.Bytes(), quick) // a module for two major versions
}

func TestManifestSectionThatAgrees(t *testing.T) {
	m := testguest.LiarManifest()
	mustCompile(t, testguest.Liar{
		With: func(b *testguest.Builder) { b.Custom(abi.ManifestSection, m.AppendJSON(nil)) }}.Bytes(), quick)
}

// A cache on disk is read by the next runtime, and a name section with a wrong size does not reach wazero.
func TestCacheOnDisk(t *testing.T) {
	dir := t.TempDir()
	module := testguest.Liar{
		With: func(b *testguest.Builder) { b.Custom("name", []byte{1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f}) }}.Bytes()
	for range 2 {
		r, err := NewRuntime(Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		p, err := r.Compile(t.Context(), "liar", module, quick, service.Settings{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Close(t.Context()), r.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}
