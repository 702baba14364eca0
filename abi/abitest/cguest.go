package abitest

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed testdata/c-guest/counter.wasm
var cguest []byte

// CGuest returns the module of the freestanding C guest in testdata/c-guest: a counter with the
// commands add ({"by":integer}) and reset, the query value, and the events added and reset. The
// built module is in the repository, so that tests need no C compiler. A test checks that it
// belongs to its sources; another, with the build tag cguest, builds it again.
func CGuest() []byte { return append([]byte{}, cguest...) }

// cflags are the compiler flags in SPEC.md.
var cflags = []string{"--target=wasm32-unknown-unknown", "-O2", "-nostdlib", "-fno-builtin", "-Wl,--no-entry",
	"-Wl,--strip-all"}

// BuildCGuest builds the C source at path and returns the module. If the compiler is missing,
// the error says what to install.
func BuildCGuest(path string) ([]byte, error) {
	const install = "install them, on Debian with: apt-get install --no-install-recommends clang lld"
	for _, tool := range []string{"clang", "wasm-ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("the C guest needs clang and lld: %w; %s", err, install)
		}
	}
	dir, err := os.MkdirTemp("", "cguest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "service.wasm")
	args := append(append([]string{}, cflags...), "-Wall", "-Wextra", "-Werror", "-o", out, path)
	if text, err := exec.Command("clang", args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("clang: %w\n%s", err, text)
	}
	return os.ReadFile(out)
}
