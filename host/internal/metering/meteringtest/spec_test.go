package meteringtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// The official test suite, which is in wazero's module, for the supported proposals. Modules of other
// proposals are refused, and the error names the feature.
var specSuites = []string{"v1", "v2", "tail-call", "extended-const"}

// specDir finds the suite in the module cache.
func specDir(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatalf("the module of wazero, which carries the suite, cannot be found: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest")
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("wazero's module no longer carries the suite: %v", err)
	}
	return dir
}

// specCount counts what was found and compared.
type specCount struct {
	modules, assertions, invalid int
	refused                      map[string]int // by feature
	fuel                         []int64        // of each assertion, to compare the engines
}

// TestSpecSuite checks every module of the official test suite, on both engines: the rewritten module
// has the same results, traps and memory as the original on every assertion, for the same fuel. A
// module that is invalid does not become valid when it is rewritten.
func TestSpecSuite(t *testing.T) {
	raced.Skip(t, "it compiles thousands of modules, and has one goroutine")
	prove.SkipShort(t, "it compiles thousands of modules")
	dir := specDir(t)
	total := specCount{refused: map[string]int{}}
	for _, suite := range specSuites {
		files, err := filepath.Glob(filepath.Join(dir, suite, "testdata", "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("suite %s has no files: %v", suite, err)
		}
		for _, file := range files {
			t.Run(suite+"/"+strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
				var fuel [2][]int64
				for i, e := range Engines {
					c := runSpec(t, e, file)
					fuel[i] = c.fuel
					if e == Interpreter {
						continue
					}
					total.modules += c.modules
					total.assertions += c.assertions
					total.invalid += c.invalid
					for name, n := range c.refused {
						total.refused[name] += n
					}
				}
				if !slices.Equal(fuel[0], fuel[1]) {
					for i := range min(len(fuel[0]), len(fuel[1])) {
						if fuel[0][i] != fuel[1][i] {
							t.Fatalf("fuel of assertion %d: %d on the compiler, %d on the interpreter", i, fuel[0][i],
								fuel[1][i])
						}
					}
					t.Fatalf("%d assertions on the compiler, %d on the interpreter", len(fuel[0]), len(fuel[1]))
				}
			})
		}
	}
	t.Logf("%d modules, %d assertions on each engine; %d invalid modules stayed invalid; %d modules refused:",
		total.modules, total.assertions, total.invalid, len(total.refused))
	for _, name := range slices.Sorted(maps.Keys(total.refused)) {
		t.Logf("  refused %d times: %s", total.refused[name], name)
	}
	if total.modules < 1000 || total.assertions < 50_000 {
		t.Errorf("only %d modules with %d assertions were run; has the suite moved?", total.modules, total.assertions)
	}
}

// world is one way of running a file's modules.
type world struct {
	name    string
	runtime wazero.Runtime
	rewrite func([]byte) (*metering.Metered, error) // nil for the originals
	named   map[string]api.Module
	last    api.Module
	all     []api.Module
}

// plenty is more fuel than any assertion of the suite takes. specStack is more stack than any assertion
// takes that returns.
const (
	plenty    = 1 << 60
	specStack = 16 << 20
)

func runSpec(t *testing.T, e Engine, file string) specCount {
	ctx := (&Meter{}).Into(t.Context())
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var f specFile
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	s := &specRun{t: t, ctx: ctx, dir: filepath.Dir(file), count: specCount{refused: map[string]int{}}}
	rewrite := func(o metering.Options) func([]byte) (*metering.Metered, error) {
		return func(b []byte) (*metering.Metered, error) { return Rewrite(b, o) }
	}
	s.worlds = []*world{{name: "original"}, {name: "rewritten", rewrite: rewrite(metering.Options{KeepNaN: true})},
		{name: "canonical", rewrite: rewrite(metering.Options{})}}
	spectest, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(file))), "testdata",
		"spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range s.worlds {
		w.named = map[string]api.Module{}
		if w.runtime, err = NewRuntime(ctx, e); err != nil {
			t.Fatal(err)
		}
		defer w.runtime.Close(ctx)
		if _, err := w.runtime.InstantiateWithConfig(ctx, spectest, wazero.NewModuleConfig()); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(f.Commands); i++ {
		c := &f.Commands[i]
		s.line = c.Line
		as := ""
		if c.Type == "module" && i+1 < len(f.Commands) && f.Commands[i+1].Type == "register" {
			i++
			as = f.Commands[i].As
		}
		s.command(c, as)
	}
	s.compareMemory(0)
	return s.count
}

// specRun runs one file on one engine.
type specRun struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	line   int
	worlds []*world // the original is the first
	count  specCount
}

func (s *specRun) errorf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("line %d: %s", s.line, fmt.Sprintf(format, args...))
}

func (s *specRun) command(c *specCommand, as string) {
	switch c.Type {
	case "module":
		s.module(c, as)
	case "assert_return", "action", "assert_trap", "assert_exhaustion":
		s.act(c)
	case "assert_invalid", "assert_malformed", "assert_unlinkable", "assert_uninstantiable":
		if c.ModuleType != "text" {
			s.notAModule(c)
		}
	default:
		s.t.Fatalf("line %d: command %q is unknown", c.Line, c.Type)
	}
}

func (s *specRun) read(name string) []byte {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// refusedByName reports whether an error refuses a module for a feature that is not supported, and
// which one.
func refusedByName(err error) (string, bool) {
	var refused *metering.Error
	var format *wasmbin.Error
	text := ""
	switch {
	case errors.As(err, &refused):
		text = refused.Reasons[0]
	case errors.As(err, &format):
		text = format.Message
	}
	return text, strings.Contains(text, "not supported") || strings.Contains(text, "a table may have")
}

// instantiate starts a module in a world, with its setup.
func (w *world) instantiate(ctx context.Context, module []byte, as string) (api.Module, error) {
	setup := false
	if w.rewrite != nil {
		m, err := w.rewrite(module)
		if err != nil {
			return nil, fmt.Errorf("rewriting: %w", err)
		}
		module, setup = m.Binary, m.Setup
	}
	in, err := w.runtime.InstantiateWithConfig(ctx, module, wazero.NewModuleConfig().WithName(as).WithStartFunctions())
	if err != nil {
		return nil, err
	}
	if w.rewrite != nil {
		w.fill(in)
	}
	if setup {
		if _, err := in.ExportedFunction(metering.ExportSetup).Call(ctx); err != nil {
			return nil, err
		}
	}
	w.all = append(w.all, in)
	return in, nil
}

func (w *world) fill(m api.Module) {
	global(m, metering.ExportFuel).Set(plenty)
	global(m, metering.ExportStack).Set(specStack)
}

func (s *specRun) module(c *specCommand, as string) {
	b := s.read(c.Filename)
	if _, err := s.worlds[1].rewrite(b); err != nil {
		name, ok := refusedByName(err)
		if !ok {
			s.errorf("module %s is refused, and not by name: %v", c.Filename, err)
		}
		s.count.refused[name]++
		for _, w := range s.worlds {
			w.last = nil
			if c.Name != "" {
				w.named[c.Name] = nil
			}
		}
		return
	}
	s.count.modules++
	for _, w := range s.worlds {
		m, err := w.instantiate(s.ctx, b, as)
		if err != nil {
			s.t.Fatalf("line %d, %s: module %s: %v", s.line, w.name, c.Filename, err)
		}
		w.last = m
		if c.Name != "" {
			w.named[c.Name] = m
		}
	}
	s.compareMemory(0)
}

// notAModule checks that a module that the original engine refuses is refused in all worlds.
func (s *specRun) notAModule(c *specCommand) {
	b := s.read(c.Filename)
	s.count.invalid++
	_, want := s.worlds[0].instantiate(s.ctx, b, "")
	for _, w := range s.worlds[1:] {
		_, err := w.instantiate(s.ctx, b, "")
		if (err == nil) != (want == nil) {
			s.errorf("%s: %s (%s): the original gives %v, %s %v", c.Filename, c.Type, c.Text, want, w.name, err)
		}
	}
	s.compareMemory(0)
}

// act runs an assertion in all worlds.
func (s *specRun) act(c *specCommand) {
	var want []uint64
	var wantErr error
	expected := false
	for i, w := range s.worlds {
		m := w.last
		if c.Action.Module != "" {
			m = w.named[c.Action.Module]
		}
		if m == nil {
			return // the module was refused
		}
		for _, m := range w.all {
			if w.rewrite != nil {
				w.fill(m)
			}
		}
		got, err := s.perform(m, c)
		switch {
		case i == 0:
			want, wantErr = got, err
			s.count.assertions++
		case sameTrap(err) != sameTrap(wantErr):
			s.errorf("%s: %s: %v; the original gives %v", w.name, c.Action.Field, err, wantErr)
		case err == nil && w.name == "rewritten" && !slices.Equal(got, want) && !hasFuncRef(c):
			s.errorf("%s: %s gives %x; the original %x", w.name, c.Action.Field, got, want)
		}
		if i == 0 {
			// The first edition of the suite expects some results that the second edition has changed.
			expected = c.Type == "assert_return" && err == nil && meets(c, got)
		} else if expected && !meets(c, got) {
			s.errorf("%s: %s gives %x; the suite expects otherwise", w.name, c.Action.Field, got)
		}
		if w.name == "rewritten" && sameTrap(err) != "stack" {
			s.count.fuel = append(s.count.fuel, plenty-int64(global(m, metering.ExportFuel).Get()))
		}
	}
	s.compareMemory(len(s.worlds[0].all) - 1)
}

// sameTrap returns a failure in the original's words; the meter's stack may end first.
func sameTrap(err error) string {
	if kind := Trap(err); !isStack(kind) {
		return kind
	}
	return "stack"
}

// isStack reports whether a call ended for its depth, by the meter or by the engine. The interpreter's
// stack ends much earlier than the compiler's.
func isStack(trap string) bool { return trap == ErrStack.Error() || trap == "stack overflow" }

// hasFuncRef reports whether a result is a reference to a function, which is an address.
func hasFuncRef(c *specCommand) bool {
	return slices.ContainsFunc(c.Expected, func(v specValue) bool { return v.Type == "funcref" })
}

func (s *specRun) perform(m api.Module, c *specCommand) ([]uint64, error) {
	if c.Action.Type == "get" {
		g := m.ExportedGlobal(c.Action.Field)
		return []uint64{g.Get()}, nil
	}
	var args []uint64
	for _, a := range c.Action.Args {
		args = append(args, a.words()...)
	}
	return m.ExportedFunction(c.Action.Field).Call(s.ctx, args...)
}

// meets compares results with what the suite expects.
func meets(c *specCommand, got []uint64) bool {
	for _, v := range c.Expected {
		n := 1
		if v.Type == "v128" {
			n = 2
		}
		if n > len(got) || !v.matches(got[:n]) {
			return false
		}
		got = got[n:]
	}
	return len(got) == 0
}

// compareMemory compares the memories of rewritten modules, from the given one on, with the
// original's.
func (s *specRun) compareMemory(from int) {
	for i, m := range s.worlds[0].all {
		if i < from {
			continue
		}
		mem := m.Memory()
		if reflect.ValueOf(mem).IsNil() || i >= len(s.worlds[1].all) {
			continue
		}
		want, _ := mem.Read(0, mem.Size())
		other := s.worlds[1].all[i].Memory()
		got, _ := other.Read(0, other.Size())
		if !bytes.Equal(got, want) {
			s.errorf("memory of module %d differs", i)
		}
	}
}
