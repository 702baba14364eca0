package compile_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Code that was compiled under an older tariff is not run: the module is rewritten and compiled again when it
// is next loaded. testdata/tariff1.wasm is what tariff 1 made of the zero Liar.
func TestCodeOfAnOlderTariff(t *testing.T) {
	old, err := os.ReadFile(filepath.Join("testdata", "tariff1.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	quick := service.Limits{Fuel: 20_000_000, CallTime: time.Minute, MemoryBytes: 8 << 20}
	module := testguest.Liar{}.Bytes()
	dir := t.TempDir()
	before, err := compile.New(compile.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := before.Put(t.Context(), module, old, 1, quick); err != nil {
		t.Fatal(err)
	}
	if err := before.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{1, 0} {
		r, err := sandbox.NewRuntime(sandbox.Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		p, err := r.Compile(t.Context(), "", module, quick, service.Settings{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		i, err := p.Instantiate(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := i.Handle(context.Background(), service.GuestCall{Slot: testguest.HonestSlot, ID: "id",
			Data: []byte("{}")}); err != nil {
			t.Error(err)
		}
		if got := r.Compiler().Compilations(); got != want || p.Module().Tariff != metering.TariffVersion {
			t.Errorf("it was compiled %d times under tariff %d, want %d", got, p.Module().Tariff, want)
		}
		_ = i.Close(t.Context())
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
