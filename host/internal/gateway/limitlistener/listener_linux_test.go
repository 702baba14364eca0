package limitlistener

import (
	"log/slog"
	"net"
	"syscall"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
)

// The system holds no more of a connection than configured; it doubles the value for its own needs.
func TestSocketBuffers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const want = 40 << 10
	root := budget.New(budget.Limits{budget.FlightBytes: 100 << 20, budget.Descriptors: 100})
	c := New(l, Options{Limit: 1, SocketBytes: want, Files: root.Child("connections' descriptors", nil),
		Flights: flight.NewAccounts(flight.Options{Host: root, ConnectionBytes: 1 << 20, Logger: slog.Default()})})
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := c.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*Conn).Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string]int{"receive": syscall.SO_RCVBUF, "send": syscall.SO_SNDBUF} {
		var got int
		var failed error
		if err := raw.Control(func(fd uintptr) {
			got, failed = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, option)
		}); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		if got != 2*want {
			t.Errorf("%s buffer: %d bytes; want %d", name, got, 2*want)
		}
	}
}
