package conform

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/abi/abitest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

func run(t *testing.T, module []byte, o Options) Report {
	t.Helper()
	rep, err := Run(context.Background(), module, o)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func allPassed(t *testing.T, rep Report) {
	t.Helper()
	for _, r := range rep.Results {
		if r.Status != Passed {
			t.Errorf("%s %s: %s\nexpected %s\ngot      %s%s", r.Rule, r.Title, r.Status, r.Expected, r.Got, r.Reason)
		}
	}
}

func TestCGuestKeepsAllRules(t *testing.T) {
	rep := run(t, abitest.CGuest(), Options{Samples: map[string][]json.RawMessage{"add": {[]byte(`{"by":41}`), []byte(`{"by":-3}`)}}})
	allPassed(t, rep)
	if rep.Service != "c-counter" || rep.SDK != "bulkhead.h" || rep.Bytes != len(abitest.CGuest()) {
		t.Errorf("report is about %q %q", rep.Service, rep.SDK)
	}
}

// The counter is made to trap on command, and knows no JSON: what it breaks must
// be found in a real module too.
func TestModuleThatTraps(t *testing.T) {
	rep := run(t, testguest.Counter("counter"), Options{})
	if r, _ := rep.Result(ruleNoTrap); r.Status != Failed || !strings.Contains(r.Got, "Command") {
		t.Errorf("got %+v", r)
	}
}

// liar is a module whose exports do nothing but what is given; it never
// describes itself.
func liar(change func(*testguest.Builder, map[string]uint32)) []byte {
	var b testguest.Builder
	exports := map[string]uint32{}
	change(&b, exports)
	b.Memory(2, 0)
	b.Export(abi.ExportMemory, wasmbin.ExternMemory, 0)
	for _, f := range []struct {
		name    string
		results []wasmbin.ValType
		code    []byte
	}{
		{abi.ExportReserve, testguest.Types(testguest.I32), testguest.I32Const(8)},
		{abi.ExportCall, testguest.Types(testguest.I64), testguest.I64Const(0)},
	} {
		i, ok := exports[f.name]
		if !ok {
			i = b.Func(testguest.Types(testguest.I32), f.results, nil, f.code)
		}
		b.Export(f.name, wasmbin.ExternFunc, i)
	}
	return b.Bytes()
}

func TestReasonsOfARefusal(t *testing.T) {
	i32 := testguest.Types(testguest.I32)
	i64 := testguest.Types(testguest.I64)
	for _, c := range []struct {
		rule, reason string
		change       func(*testguest.Builder, map[string]uint32)
	}{
		{ruleExports, "bulkhead_v1_call", func(b *testguest.Builder, x map[string]uint32) {
			x[abi.ExportCall] = b.Func(i32, i32, nil, testguest.I32Const(0))
		}},
		{ruleImports, "env.fopen", func(b *testguest.Builder, _ map[string]uint32) { b.ImportFunc("env", "fopen", i32, i32) }},
		{ruleStart, "multiple of 8", func(b *testguest.Builder, x map[string]uint32) {
			x[abi.ExportReserve] = b.Func(i32, i32, nil, testguest.I32Const(12))
		}},
		{ruleStart, "outside of memory", func(b *testguest.Builder, x map[string]uint32) {
			x[abi.ExportCall] = b.Func(i32, i64, nil, testguest.I64Const(-8<<32|16))
		}},
		{ruleStart, "Description", func(*testguest.Builder, map[string]uint32) {}},
		{ruleStart, "unreachable", func(b *testguest.Builder, x map[string]uint32) {
			x[abi.ExportCall] = b.Func(i32, i64, nil, testguest.Unreachable)
		}},
		{ruleStatic, "two memories", func(b *testguest.Builder, _ map[string]uint32) { b.Memory(1, 0) }},
	} {
		rep := run(t, liar(c.change), Options{})
		r, _ := rep.Result(c.rule)
		if r.Status != Failed || c.reason != "two memories" && !strings.Contains(r.Got, c.reason) {
			t.Errorf("%s, %s: got %s, failed are %v", c.rule, c.reason, r.Got, failed(rep))
		}
	}
	bad := testguest.CounterManifest("No Name")
	rep := run(t, testguest.CounterWith(bad.AppendJSON(nil), nil), Options{})
	if r, _ := rep.Result(ruleManifest); r.Status != Failed || !strings.Contains(r.Got, "No Name") {
		t.Errorf("got %+v", r)
	}
}

// FuzzWatch gives the kit answers that no guest should make.
func FuzzWatch(f *testing.F) {
	file, err := abitest.Load()
	if err != nil {
		f.Fatal(err)
	}
	request := commandFrame(0, 7, 0, 0, []byte("{}"))
	for _, v := range file.Vectors {
		b, err := v.Bytes()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(request, b, false)
		f.Add(b, append(b, b...), true)
	}
	f.Fuzz(func(t *testing.T, request, answer []byte, loose bool) {
		k := &kit{manifest: (&fake{}).Manifest(), watched: map[string]string{}}
		got, err := k.watch(request, answer, loose)
		if err == nil && len(got)*abi.ResponseHeaderSize > len(answer) || err != nil && len(k.watched) != 1 {
			t.Fatalf("%d frames, %v, %v", len(got), err, k.watched)
		}
		_ = showAll(got) + show(request)
	})
}

func TestModuleThatIsRefused(t *testing.T) {
	for name, module := range map[string][]byte{
		"nothing":   nil,
		"no module": []byte("this is no module"),
		"empty":     []byte("\x00asm\x01\x00\x00\x00"),
	} {
		rep := run(t, module, Options{})
		if r, _ := rep.Result(ruleStatic); r.Status != Failed || r.Got == "" {
			t.Errorf("%s: %+v", name, r)
		}
		if rep.Failed+rep.Skipped != len(rules) || rep.Bytes != len(module) {
			t.Errorf("%s: %d failed, %d skipped", name, rep.Failed, rep.Skipped)
		}
	}
}
