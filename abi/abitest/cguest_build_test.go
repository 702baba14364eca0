//go:build cguest

package abitest

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCGuestBuilds needs clang and lld, which the rest of the tests do without.
// That what it builds keeps the rules is tested in host/internal/conform, under
// the same tag.
func TestCGuestBuilds(t *testing.T) {
	b, err := BuildCGuest(filepath.Join(cdir, "counter.c"))
	if err != nil {
		t.Fatal(err)
	}
	if !*update {
		return // another clang makes other bytes
	}
	if err := os.WriteFile(filepath.Join(cdir, "counter.wasm"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cdir, "SHA256SUMS"), []byte(sums(t)), 0o644); err != nil {
		t.Fatal(err)
	}
}
