package conform

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/abi/abitest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

func run(t *testing.T, module []byte, o Options) Report {
	t.Helper()
	// Compiling is slow under the race detector and beside other tests.
	o.Limits.CompileTime, o.Limits.CallTime = 10*time.Minute, time.Minute
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
	rep := run(t, abitest.CGuest(),
		Options{Samples: map[string][]json.RawMessage{"add": {[]byte(`{"by":41}`), []byte(`{"by":-3}`)}}})
	allPassed(t, rep)
	if rep.Service != "c-counter" || rep.SDK != "bulkhead.h" || rep.Bytes != len(abitest.CGuest()) {
		t.Errorf("report is about %q %q", rep.Service, rep.SDK)
	}
}

// The counter traps on command and does not know JSON. What it breaks is found in a real module too.
func TestModuleThatTraps(t *testing.T) {
	rep := run(t, testguest.Counter("counter"), Options{})
	if r, _ := rep.Result(ruleNoTrap); r.Status != Failed || !strings.Contains(r.Got, "Command") {
		t.Errorf("got %+v", r)
	}
}

// A module that the host refuses is reported as refused, under the rule that it breaks.
func TestReasonsOfARefusal(t *testing.T) {
	raced.Skip(t, "it compiles Go guests, and has one goroutine")
	prove.SkipShort(t, "it builds and compiles a Go guest")
	atUpload := []string{ruleStatic, ruleExports, ruleImports, ruleStart, ruleManifest}
	limits := service.Limits{Fuel: 5_000_000}
	for _, x := range append(testguest.Statically(), testguest.Dynamically()...) {
		if x.Name == "another service's name" {
			continue // conform accepts any name of a service
		}
		t.Run(x.Name, func(t *testing.T) {
			rep := run(t, x.Module, Options{Limits: limits})
			ids := failed(rep)
			if len(ids) == 0 || rep.Passed > 0 {
				t.Fatalf("%d rules passed, failed are %v", rep.Passed, ids)
			}
			for _, id := range ids {
				if !slices.Contains(atUpload, id) {
					t.Errorf("%s is not a rule for upload", id)
				}
			}
		})
	}
	for name, rule := range map[string]string{
		"two memories": ruleStatic, "call with two results": ruleExports, "imported global": ruleImports,
		"start traps": ruleStart, "reserve unaligned": ruleStart, "manifest with many faults": ruleManifest,
		"wants a capability": ruleManifest,
	} {
		for _, x := range append(testguest.Statically(), testguest.Dynamically()...) {
			if x.Name == name {
				if r, _ := run(t, x.Module, Options{}).Result(rule); r.Status != Failed {
					t.Errorf("%s: %+v", name, r)
				}
			}
		}
	}
}

// Watched rules find what a running module does to the sandbox.
func TestLiesAboutMemory(t *testing.T) {
	limits := service.Limits{Fuel: 5_000_000}
	for name, x := range map[string]struct {
		rule, want string
		liar       testguest.Liar
	}{
		"answer outside": {ruleMailbox, "outside of memory",
			testguest.Liar{Ranges: map[abi.RequestKind]uint64{abi.ReqOpen: abi.PackRange(0xfffffff8, 16)}}},
		"answer in the mailbox": {ruleMailbox, "overlaps", testguest.Liar{
			Ranges: map[abi.RequestKind]uint64{abi.ReqOpen: abi.PackRange(testguest.LiarMailbox, 24)}}},
		"half a frame": {ruleFrames, "byte 0",
			testguest.Liar{Answers: map[abi.RequestKind][]byte{abi.ReqOpen: make([]byte, 16)}}},
		"trap": {ruleNoTrap, "unreachable",
			testguest.Liar{Code: map[abi.RequestKind][]byte{abi.ReqOpen: testguest.Unreachable}}},
		"spin": {ruleNoTrap, "guest_fuel", testguest.Liar{
			Code: map[abi.RequestKind][]byte{abi.ReqOpen: testguest.Code(testguest.Loop(testguest.Br(0)),
				testguest.Unreachable)}}},
	} {
		rep := run(t, x.liar.Bytes(), Options{Limits: limits})
		if r, _ := rep.Result(x.rule); r.Status != Failed || !strings.Contains(r.Got, x.want) {
			t.Errorf("%s: got %+v, failed are %v", name, r, failed(rep))
		}
	}
}

// FuzzWatch checks answers that no guest should give.
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
