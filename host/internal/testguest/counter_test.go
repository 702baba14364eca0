package testguest_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

func TestCounterIsAWellFormedModule(t *testing.T) {
	m := testguest.CounterManifest("counter")
	for _, b := range [][]byte{testguest.Counter("counter"), testguest.CounterOf(m.AppendJSON(nil),
		testguest.Weaknesses{Toil: 1, FaultAt: 2, NaNAt: 3, HugeAt: 4}, nil)} {
		wellFormed(t, b)
	}
}

func wellFormed(t *testing.T, b []byte) {
	t.Helper()
	m, err := wasmbin.Parse(b, wasmbin.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.CheckCode(wasmbin.DefaultLimits()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(b))
}
