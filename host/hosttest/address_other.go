//go:build !linux

package hosttest

import (
	"net"
	"testing"
)

// Address is an address of this machine on which a host may listen. These systems cannot reserve it.
func Address(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
