package hosttest_test

import (
	"net"
	"runtime"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
)

// Those who know an address can listen on it again and again, and nobody else gets it.
func TestAnAddressIsKept(t *testing.T) {
	address := hosttest.Address(t)
	for range 3 {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("somebody listens there")
	}
	if runtime.GOOS != "linux" {
		return // where it is not reserved
	}
	if other := hosttest.Address(t); other == address {
		t.Errorf("%s was given out twice", address)
	}
}
