package conform

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
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

// A Go guest without an SDK, and the project's own services, which are written
// with it.
func TestGoGuestsKeepAllRules(t *testing.T) {
	dirs, err := filepath.Glob("../../../plugins/*/wasm")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(dirs, "testdata/goguest") {
		t.Run(dir, func(t *testing.T) { allPassed(t, run(t, buildGo(t, dir), Options{})) })
	}
}
