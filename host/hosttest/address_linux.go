package hosttest

import (
	"net"
	"strconv"
	"syscall"
	"testing"
)

// Address is an address of this machine on which a host may listen, again and again, until the test ends.
// Meanwhile the system gives its port to no other test that asks for any free port.
func Address(t testing.TB) string {
	t.Helper()
	// A socket that is bound but does not listen reserves the port. Those who ask for any port do not get it;
	// those who ask for this one do, if both set SO_REUSEADDR, as Go's listeners do.
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
