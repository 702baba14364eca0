package abitest

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const cdir = "testdata/c-guest"

// sums returns what SHA256SUMS must contain, in the format of sha256sum.
func sums(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"bulkhead.h", "counter.c", "counter.wasm"} {
		data, err := os.ReadFile(filepath.Join(cdir, name))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		b.WriteString(hex.EncodeToString(sum[:]) + "  " + name + "\n")
	}
	return b.String()
}

func TestCGuestBelongsToItsSources(t *testing.T) {
	got, err := os.ReadFile(filepath.Join(cdir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != sums(t) {
		t.Error("the sources changed since counter.wasm was built, or the other way round: run go test -tags cguest " +
			"./abi/abitest -update")
	}
	if len(CGuest()) > 64<<10 {
		t.Errorf("the C guest has %d bytes", len(CGuest()))
	}
}

// SPEC.md shows the flags that the tested module is built with.
func TestSpecHasTheFlags(t *testing.T) {
	spec, err := os.ReadFile("../SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "clang " + strings.Join(cflags, " ") + " -o counter.wasm counter.c"; !strings.Contains(string(spec),
		want) {
		t.Errorf("SPEC.md does not say: %s", want)
	}
}
