package testguest_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

func TestCounterIsAWellFormedModule(t *testing.T) {
	b := testguest.Counter("counter")
	m, err := wasmbin.Parse(b, wasmbin.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.CheckCode(wasmbin.DefaultLimits()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(b))
}
