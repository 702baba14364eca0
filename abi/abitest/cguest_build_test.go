//go:build cguest

package abitest

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCGuestBuilds needs clang and lld; the other tests do not. host/internal/conform tests,
// under the same build tag, that the module it builds keeps the rules.
func TestCGuestBuilds(t *testing.T) {
	b, err := BuildCGuest(filepath.Join(cdir, "counter.c"))
	if err != nil {
		t.Fatal(err)
	}
	if !*update {
		return // another version of clang makes other bytes
	}
	if err := os.WriteFile(filepath.Join(cdir, "counter.wasm"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cdir, "SHA256SUMS"), []byte(sums(t)), 0o644); err != nil {
		t.Fatal(err)
	}
}
