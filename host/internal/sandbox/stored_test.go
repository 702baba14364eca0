package sandbox

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// compilerCommand is the test binary as a compiler process; see TestMain.
func compilerCommand() []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return []string{self, "compile"}
}

func newRuntime(t testing.TB, o Options) *Runtime {
	t.Helper()
	r, err := NewRuntime(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// compileWith compiles a module, checks that the program works, and closes it.
func compileWith(t testing.TB, r *Runtime, module []byte, l service.Limits) error {
	t.Helper()
	p, err := r.Compile(context.Background(), "", module, l, service.Settings{}, nil)
	if err != nil {
		return err
	}
	return p.Close(context.Background())
}

// A module is compiled once, by the compiler process. After a restart the compiler is not needed.
func TestCompiledOnce(t *testing.T) {
	dir := t.TempDir()
	module := testguest.Counter("c")
	for _, c := range []struct {
		name    string
		options Options
		want    int64
	}{
		{"at first", Options{CacheDir: dir, Compiler: compilerCommand()}, 1},
		{"after a restart", Options{CacheDir: dir, Compiler: []string{"/bin/sh", "-c", "exit 1"}}, 0},
		{"without a compiler process", Options{CacheDir: dir}, 0},
	} {
		r := newRuntime(t, c.options)
		for range 2 {
			if err := compileWith(t, r, module, quick); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		if got := r.compiler.Compilations(); got != c.want {
			t.Errorf("%s it was compiled %d times, want %d", c.name, got, c.want)
		}
	}
	left, err := os.ReadDir(filepath.Join(dir, "stages"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the stages: %v, %v", left, err)
	}
}

// Modules that compile but are refused for what they then do leave nothing on disk.
func TestRefusedModulesLeaveNoCode(t *testing.T) {
	dir := t.TempDir()
	r := newRuntime(t, Options{CacheDir: dir, Compiler: compilerCommand()})
	compiled := int64(0)
	for _, c := range testguest.Dynamically()[:8] {
		if err := compileWith(t, r, c.Module, quick); service.KindOf(err) != service.KindBadModule {
			t.Fatalf("%s: %v", c.Name, err)
		}
		if compiled++; r.compiler.Compilations() != compiled {
			t.Errorf("%s: %d compilations, want %d", c.Name, r.compiler.Compilations(), compiled)
		}
		for _, pattern := range []string{"wazero-*/*", "forms/*", "seals/*", "stages/*"} {
			if left, err := filepath.Glob(filepath.Join(dir, pattern)); err != nil || len(left) > 0 {
				t.Errorf("%s leaves %v, %v", c.Name, left, err)
			}
		}
	}
}
