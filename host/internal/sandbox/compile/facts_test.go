package compile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func TestOrders(t *testing.T) {
	for _, o := range []Order{{1, 1, false}, {1 << 32, 100_000, true}} {
		if got, err := parseOrder(o.args()); err != nil || got != o {
			t.Errorf("%+v came back as %+v, %v", o, got, err)
		}
	}
	for _, args := range [][]string{nil, {"--memory-limit=0", "--table-elements=1"}, {"more"},
		append(Order{1, 1, true}.args(), "more")} {
		if _, err := parseOrder(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	d := service.DigestOf([]byte("module"))
	base := Order{1, 2, false}
	if base.name(d) != (Order{2, 2, false}).name(d) {
		t.Error("the code depends on the limit of memory")
	}
	for _, other := range []Order{{1, 3, false}, {1, 2, true}} {
		if other.name(d) == base.name(d) {
			t.Errorf("the code does not depend on %+v", other)
		}
	}
}

// The form of a module depends only on formVersion and the version of the tariff. If this test fails because
// the rewriting has changed, raise formVersion and update the hash. Otherwise hosts would go on with code
// that an earlier version has stored.
func TestFormVersion(t *testing.T) {
	const want = "3 3 2b6b2147d2ef2e50"
	h := sha256.New()
	modules := [][]byte{testguest.Counter("c"), testguest.Liar{}.Bytes()}
	for _, m := range testguest.Spinners() {
		modules = append(modules, m.Module)
	}
	for _, module := range modules {
		f, whole := prepared(t, module)
		loads, err := skeleton(whole)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(append(appendForm(nil, f), loads...))
	}
	if got := fmt.Sprintf("%d %d %s", formVersion, metering.TariffVersion,
		hex.EncodeToString(h.Sum(nil)[:8])); got != want {
		t.Errorf("form version, tariff and hash are %q; they were %q", got, want)
	}
}

// A skeleton declares what its module declares.
func TestSkeleton(t *testing.T) {
	_, whole := prepared(t, testguest.Counter("c"))
	small, err := skeleton(whole)
	if err != nil {
		t.Fatal(err)
	}
	m, err := wasmbin.Parse(whole, wasmbin.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := wasmbin.Parse(small, wasmbin.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CheckCode(wasmbin.DefaultLimits()); err != nil {
		t.Error(err)
	}
	if len(s.Bodies) != len(m.Bodies) || !slices.Equal(s.Functions, m.Functions) || len(s.Exports) != len(m.Exports) ||
		len(s.Data) != len(m.Data) {
		t.Error("they differ in more than their code")
	}
	sum := sha256.Sum256(whole)
	if got, ok := s.Custom(wholeSection); !ok || !bytes.Equal(got, sum[:]) {
		t.Errorf("it has the hash %x", got)
	}
	if _, err := skeleton(whole[:len(whole)-1]); err == nil {
		t.Error("there is a skeleton of half a module")
	}
}

func sampleFacts() *Facts {
	return &Facts{
		Tariff: 1, Setup: true, Why: "it imports a table", MemoryPages: 17, HasManifest: true, Manifest: []byte(`{"service":"c"}`),
		Globals: []metering.Global{{Export: "bulkhead_meter_v1.global.0", Type: wasmbin.I32},
			{Export: "bulkhead_meter_v1.global.7", Type: wasmbin.F64}},
		Modules: []string{abi.ImportModule, admission.WASI},
	}
}

func FuzzParseForm(f *testing.F) {
	f.Add(append(appendForm(nil, sampleFacts()), "\x00asm"...))
	f.Add(appendForm(nil, &Facts{}))
	f.Add([]byte(formMagic))
	f.Add([]byte(formMagic + "\x01\x02\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, module, err := parseForm(b)
		if err != nil {
			return
		}
		text := appendForm(nil, got)
		again, rest, err := parseForm(append(text, module...))
		if err != nil || !bytes.Equal(rest, module) || !reflect.DeepEqual(again, got) {
			t.Errorf("%+v came back as %+v, %v", got, again, err)
		}
		if len(text) > maxFactBytes {
			t.Errorf("%d bytes of facts", len(text))
		}
	})
}

func TestForm(t *testing.T) {
	want := sampleFacts()
	b := append(appendForm(nil, want), "module"...)
	got, module, err := parseForm(b)
	if err != nil || string(module) != "module" || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %q, %v", got, module, err)
	}
	for n := range len(b) - len("module") {
		if _, _, err := parseForm(b[:n]); err == nil {
			t.Fatalf("cut at %d it was taken", n)
		}
	}
	for name, change := range map[string]func(*Facts){
		"a module that is not offered": func(f *Facts) { f.Modules[0] = "nowhere" },
		"a module twice":               func(f *Facts) { f.Modules[0] = f.Modules[1] },
		"a global of the module's own": func(f *Facts) { f.Globals[0].Export = "memory" },
		"a global of a strange type":   func(f *Facts) { f.Globals[0].Type = wasmbin.FuncRef },
		"a long reason":                func(f *Facts) { f.Why = strings.Repeat("x", maxWhy+1) },
		"too much memory":              func(f *Facts) { f.MemoryPages = 65537 },
		"a manifest that is not there": func(f *Facts) { f.HasManifest = false },
		"too large a manifest":         func(f *Facts) { f.Manifest = make([]byte, abi.MaxManifestSize+1) },
	} {
		f := sampleFacts()
		change(f)
		if _, _, err := parseForm(appendForm(nil, f)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzParseRefusal(f *testing.F) {
	f.Add(appendRefusal(nil, "no", []string{"one", "two"}))
	f.Add(appendRefusal(nil, "", nil))
	f.Add([]byte(refusalMagic + "\x00\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		message, reasons, err := parseRefusal(b)
		if err != nil {
			return
		}
		again, all, err := parseRefusal(appendRefusal(nil, message, reasons))
		if len(message) > maxReasonBytes { // text that was not UTF-8 has become longer
			return
		}
		if err != nil || again != message || len(all) != len(reasons) {
			t.Errorf("%q and %d reasons came back as %q and %d, %v", message, len(reasons), again, len(all), err)
		}
	})
}

// A refusal is bounded, whatever its reasons are.
func TestRefusalsAreBounded(t *testing.T) {
	long := strings.Repeat("ä", maxReasonBytes)
	var reasons []string
	for range 2 * admission.MaxReasons {
		reasons = append(reasons, long)
	}
	b := appendRefusal(nil, long, reasons)
	message, got, err := parseRefusal(b)
	if err != nil || len(b) > maxRefusalBytes || len(got) != admission.MaxReasons+1 ||
		message != long[:maxReasonBytes] || got[0] != long[:maxReasonBytes] {
		t.Errorf("%d bytes, %d reasons, %v", len(b), len(got), err)
	}
	if _, err := readAtMost(os.DevNull, 10); err == nil {
		t.Error("a device was read")
	}
}
