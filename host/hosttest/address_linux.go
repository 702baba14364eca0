package hosttest

import (
	"net"
	"strconv"
	"syscall"
	"testing"
)

// Address is an address of this machine that a host may listen on, again and again,
// until the test ends: somebody else who asks for any port, as other tests do all the
// time, does not get it in between.
func Address(t testing.TB) string {
	t.Helper()
	// Bound and never listening, it keeps the port from those who ask for any, and not
	// from who asks for just that one, if both allow addresses to be used again, as Go's
	// listeners do.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*syscall.SockaddrInet4).Port))
}
