//go:build cguest

package kernels

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the kernels in C as they are built now into the repository")

// TestCKernelsBuild builds the kernels in C, which needs clang and lld.
func TestCKernelsBuild(t *testing.T) {
	out := filepath.Join(t.TempDir(), "kernels.wasm")
	cmd := exec.Command("clang", "--target=wasm32-unknown-unknown", "-O2", "-nostdlib", "-mbulk-memory", "-Wall",
		"-Wextra", "-Werror",
		"-Wl,--no-entry", "-Wl,--strip-all", "-o", out, cdir+"kernels.c")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\nclang and lld are needed; on Debian: apt-get install --no-install-recommends clang lld", err,
			text)
	}
	built, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(cdir+"kernels.wasm", built, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cdir+"SHA256SUMS", []byte(sums(t)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	i, err := Start(t.Context(), built, Metered)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	for _, k := range All {
		if k.Language != "c" {
			continue
		}
		if _, err := i.Run(k.Name, 1); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
	}
	if bytes.Equal(built, ckernels) {
		t.Log("byte by byte what is in the repository")
	}
}
