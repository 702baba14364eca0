package conform

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// buildGo builds a Go guest.
func buildGo(t *testing.T, dir string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "./"+dir)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", dir, err, out)
	}
	module, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return module
}

// A guest whose events share memory with its state is found, even if the state is right again later.
func TestEventsThatShareTheStateAreFound(t *testing.T) {
	raced.Skip(t, "it compiles Go guests, and has one goroutine")
	prove.SkipShort(t, "it builds and compiles a Go guest")
	rep := run(t, buildGo(t, "testdata/keptguest"), Options{})
	r, _ := rep.Result("G21")
	if r.Status != Failed || !strings.Contains(r.Got, "acted against replayed") {
		t.Errorf("got %+v", r)
	}
	if ids := failed(rep); len(ids) > 2 { // G21, and with it G23
		t.Errorf("failed are %v", ids)
	}
}

// A Go guest without an SDK keeps all rules, and so do services that use the SDK: the project's own, and one whose
// events are applied with their version, time and metadata.
func TestGoGuestsKeepAllRules(t *testing.T) {
	raced.Skip(t, "it compiles Go guests, and has one goroutine")
	prove.SkipShort(t, "it builds and compiles Go guests")
	dirs, err := filepath.Glob("../../../plugins/*/wasm")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(dirs, "testdata/goguest", "../../testdata/stamps") {
		t.Run(dir, func(t *testing.T) { allPassed(t, run(t, buildGo(t, dir), Options{})) })
	}
}
