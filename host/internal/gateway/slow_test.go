package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// TestSlowSubscribersShareWhatTheyHold has many clients follow a service with large events and stop reading
// within the first one. What they hold is in memory once, and counted once. Each has got something, others
// are served meanwhile, and at the end everything is given back, which hosttest checks.
func TestSlowSubscribersShareWhatTheyHold(t *testing.T) {
	const (
		clients, events = 150, 24
		size            = 1 << 20
		flight          = 128 << 20 // less than the clients would hold separately
	)
	h := hosttest.New(t, func(o *host.Options) {
		o.Budget.FlightBytes, o.Budget.ConnectionBytes = flight, 8<<20
		o.RecentEventBytes, o.SharedReadBytes = 8<<20, 8<<20
	})
	s, c := serve(t, h.Host, "127.0.0.1:0")
	limits := service.Limits{Fuel: 1 << 40}
	if _, err := c.Deploy(t.Context(), service.Deployment{Service: "stamp",
		Module: hosttest.Module(t, "./testdata/stamp"), Limits: limits}); err != nil {
		t.Fatal(err)
	}
	fill := func() service.Reply {
		r, err := c.Send(t.Context(), service.Command{Service: "stamp", Key: "k", Type: "fill",
			Data: []byte(strconv.Itoa(size))})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for range events {
		fill()
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	started := make(chan error)
	var conns []net.Conn
	for range clients {
		conn := slowly(t, strings.TrimPrefix(s.URL(), "http://"))
		conns = append(conns, conn)
		go func() { started <- beginOfData(conn) }()
	}
	timeout := time.After(2 * time.Minute)
	for n := range clients {
		select {
		case err := <-started:
			if err != nil {
				t.Fatal(err)
			}
		case <-timeout:
			t.Fatalf("%d of %d clients have got nothing; in flight: %v", clients-n, clients,
				h.Account().Holders(budget.FlightBytes, 3))
		}
	}
	// All hold the first event now, or have already written it and hold the second.
	if more := heap() - before; more > flight {
		t.Errorf("%d clients have the host hold %d bytes", clients, more)
	}
	if used := h.Account().Used(budget.FlightBytes); used > flight/2 {
		t.Errorf("%d of %d bytes are in flight: %v", used, flight, h.Account().Holders(budget.FlightBytes, 3))
	}
	// Others are served: commands, and a reader of all events.
	last := fill()
	page := ""
	for n := 0; n < int(last.Position); {
		p, err := c.Events(t.Context(), service.Selection{Service: "stamp", From: service.AfterCursor(page)}, 1)
		if err != nil {
			t.Fatal(err)
		}
		n, page = n+len(p.Events), p.Next
	}
	for _, conn := range conns {
		conn.Close()
	}
	for begin := time.Now(); h.Account().Used(budget.FlightBytes) > 1<<20; runtime.Gosched() {
		if time.Since(begin) > 2*time.Minute {
			t.Fatalf("not given back: %v", h.Account().Holders(budget.FlightBytes, 3))
		}
	}
}

// slowly requests the events of a service on a connection with small system buffers.
func slowly(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "GET /v1/services/stamp/events HTTP/1.1\r\nHost: localhost\r\nAccept: "+
		"text/event-stream\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// beginOfData reads until the data of the first event has begun.
func beginOfData(conn net.Conn) error {
	for lines := bufio.NewReaderSize(conn, 512); ; {
		line, err := lines.ReadSlice('\n')
		if strings.HasPrefix(string(line), "data: {") {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w after %q", err, line)
		}
	}
}
