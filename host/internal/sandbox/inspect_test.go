package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func inspect(t *testing.T, module []byte, l service.Limits) *service.Inspection {
	t.Helper()
	i, err := shared().Inspect(t.Context(), module, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// A module that would be refused has problems, which are not an error.
func TestInspectWhatIsRefused(t *testing.T) {
	for _, c := range slices.Concat(testguest.Statically(), testguest.Dynamically()) {
		if i := inspect(t, c.Module, quick); len(i.Problems) == 0 && c.Name != "another service's name" {
			t.Errorf("%s: no problem found: %+v", c.Name, i)
		}
	}
}

func TestInspect(t *testing.T) {
	module := testguest.Liar{With: func(b *testguest.Builder) {
		b.Table(5)
		b.Custom("name", []byte{1, 7, 1, 1, 4, 'c', 'a', 'l', 'l'})
		b.Custom("a note", []byte("hello"))
	}}.Bytes()
	i := inspect(t, module, service.Limits{})
	if len(i.Problems) > 0 {
		t.Fatal(i.Problems)
	}
	for what, got := range map[string]any{
		"module":   i.Digest == service.DigestOf(module) && i.Size == int64(len(module)),
		"manifest": i.Manifest.Service == "liar",
		"section":  slices.Contains(i.Sections, service.InspectedSection{Name: `custom section "a note"`, Bytes: 14}),
		"export": slices.Contains(i.Exports, service.InspectedExport{Name: abi.ExportCall, Kind: "function",
			Type: "(i32) -> (i64)"}),
		"functions": i.Functions.Count == 2 && i.Functions.Name == "call" && i.Functions.Largest > 20,
		"memory":    i.Memory.Min == testguest.LiarBytes && i.Memory.Max == nil,
		"table":     len(i.Tables) == 1 && i.Tables[0].Min == 5,
		"data":      i.Data.Segments > 8 && i.Data.Bytes > 100,
		"rewritten": i.Metering.Tariff == metering.TariffVersion && i.Metering.Bytes > len(module) &&
			i.Metering.Imageable,
		"start": i.Start.Fuel > 0 && i.Start.MemoryBytes == testguest.LiarBytes &&
			i.Start.ImageBytes == testguest.LiarBytes,
		"limits": slices.Contains(i.Limits, service.Measured{Name: "functions", Value: 2, Limit: 100_000}),
		"its memory": slices.Contains(i.Limits, service.Measured{Name: "bytes of memory at start",
			Value: testguest.LiarBytes, Limit: 64 << 20}),
	} {
		if got != true {
			t.Errorf("%s is wrong in %+v", what, i)
		}
	}
}

// All limits that a module breaks are reported together.
func TestInspectTellsAllLimits(t *testing.T) {
	module := testguest.Liar{With: func(b *testguest.Builder) {
		deep := []byte{}
		for range 10_001 {
			deep = append(deep, 0x02, 0x40)
		}
		for range 10_001 {
			deep = append(deep, 0x0b)
		}
		b.Func(nil, nil, slices.Repeat(testguest.Types(testguest.I32), 10_001), deep)
		for n := range 10_001 {
			b.GlobalI32(0)
			b.Export(fmt.Sprint("export", n), 0, 0)
		}
		b.Custom(strings.Repeat("x", 4097), nil)
		b.Table(100_001)
		b.ImportFunc("env", "nothing", nil, nil)
	}}.Bytes()
	i := inspect(t, module, service.Limits{ModuleBytes: 1000, MemoryBytes: 64 << 10})
	all := strings.Join(i.Problems, "\n")
	for _, want := range []string{
		"10001 locals of one function; the limit is 10000", "10001 globals;", "exports; the limit is 10000",
		"4097 bytes of one name;", "10001 nested blocks;",
		"100001 elements of one table at start;", fmt.Sprintf("%d bytes of the module; the limit is 1000", len(module)),
		"the memory starts with 6 pages", "import env.nothing is unknown",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in\n%s", want, all)
		}
	}
	if i.Start != nil || i.Manifest != nil {
		t.Error("it was started")
	}
}
