package hosttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// guests are the compiled modules, each built once a test run.
var guests sync.Map // package -> func() ([]byte, error)

// Guest returns the module of the plugin with that name, built from ./plugins/name/wasm. This needs only Go.
// If the build fails, the test fails.
func Guest(t testing.TB, name string) []byte {
	t.Helper()
	return Module(t, "github.com/bulkhead-wasm/bulkhead/plugins/"+name+"/wasm")
}

// Module is Guest for any package of the tree.
func Module(t testing.TB, pkg string) []byte {
	t.Helper()
	prove.SkipShort(t, "it builds a module")
	build, _ := guests.LoadOrStore(pkg, sync.OnceValues(func() ([]byte, error) { return buildGuest(pkg) }))
	module, err := build.(func() ([]byte, error))()
	if err != nil {
		t.Fatalf("build guest %s: %v", pkg, err)
	}
	return module
}

func buildGuest(pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "bulkhead-guest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags", "-s -w", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, &buildError{strings.TrimSpace(string(out)), err}
	}
	return os.ReadFile(file)
}

type buildError struct {
	output string
	err    error
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + e.output }
func (e *buildError) Unwrap() error { return e.err }
