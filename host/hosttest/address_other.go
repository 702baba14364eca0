//go:build !linux

package hosttest

import (
	"net"
	"testing"
)

// Address is an address of this machine that a host may listen on. These systems have
// no way to keep it for one.
func Address(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
