package main

import (
	"debug/elf"
	"path/filepath"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// Without cgo the program needs neither a dynamic linker nor a system library.
func TestTheProgramIsStatic(t *testing.T) {
	prove.SkipShort(t, "it builds the program")
	name := filepath.Join(t.TempDir(), "bulkhead")
	if err := hosttest.GoBuild([]string{"CGO_ENABLED=0"}, "-o", name, "./host/cmd/bulkhead"); err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it asks for a dynamic linker")
		}
	}
	if needed, err := f.ImportedLibraries(); err != nil || len(needed) > 0 {
		t.Errorf("it needs %v (%v)", needed, err)
	}
}
