package hosttest_test

import (
	"net"
	"runtime"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
)

// An address is there for who knows it, as often as he likes, and for nobody else.
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
		return // where it is not kept
	}
	if other := hosttest.Address(t); other == address {
		t.Errorf("%s was given out twice", address)
	}
}
