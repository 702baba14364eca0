package gateway

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// attacker is a client that writes any bytes.
type attacker struct {
	*testing.T
	net.Conn
	r *bufio.Reader
}

func (s *site) attacker() *attacker {
	s.Helper()
	conn, err := net.Dial("tcp", s.server.Addr().String())
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute)) // no test takes that long
	return &attacker{s.T, conn, bufio.NewReader(conn)}
}

// trickle sends another byte each 20 ms until the connection is closed.
func (a *attacker) trickle() io.Closer {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := a.Write([]byte("x")); err != nil {
				return
			}
		}
	}()
	return closer(func() error {
		err := a.Close()
		<-ended
		return err
	})
}

type closer func() error

func (c closer) Close() error { return c() }

// upgraded is a client after the handshake and the hello.
func (s *site) upgraded(path string) *attacker {
	s.Helper()
	a := s.shaken(path)
	if path == "/v1/stream" {
		if op, payload := a.frame(); op != 1 || !strings.Contains(string(payload), `"hello"`) {
			s.Fatalf("frame %d %s", op, payload)
		}
	}
	return a
}

// shaken is a client after the handshake; it has not read the hello.
func (s *site) shaken(path string) *attacker {
	s.Helper()
	a := s.attacker()
	a.put("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: " +
		"websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	resp, err := http.ReadResponse(a.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		s.Fatalf("handshake: %v %v", resp, err)
	}
	return a
}

// put writes. If the host has closed the connection meanwhile, reading finds out.
func (a *attacker) put(text string) { _, _ = io.WriteString(a.Conn, text) }

// frame reads one unmasked frame.
func (a *attacker) frame() (op byte, payload []byte) {
	a.Helper()
	var head [2]byte
	if _, err := io.ReadFull(a.r, head[:]); err != nil {
		a.Fatalf("no frame: %v", err)
	}
	n := int(head[1])
	switch n {
	case 126:
		var b [2]byte
		_, _ = io.ReadFull(a.r, b[:])
		n = int(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, _ = io.ReadFull(a.r, b[:])
		n = int(binary.BigEndian.Uint64(b[:]))
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(a.r, payload); err != nil {
		a.Fatalf("frame is cut: %v", err)
	}
	return head[0] & 0xf, payload
}

// closed reads up to the close frame, and checks that nothing follows it.
func (a *attacker) closed() (code int, reason string) {
	a.Helper()
	for {
		op, payload := a.frame()
		if op != 8 {
			continue
		}
		if len(payload) >= 2 {
			code, reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
		}
		if rest, err := io.ReadAll(a.r); err == nil && len(rest) > 0 {
			a.Errorf("%d bytes after the close frame", len(rest))
		}
		return code, reason
	}
}

// frame encodes a client's frame, masked with zeros.
func frame(first byte, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return string(append(b, 0, 0, 0, 0)) + payload
}

const (
	text, binaryFrame, closeFrame, pingFrame, pongFrame = 0x81, 0x82, 0x88, 0x89, 0x8a
	textBegins, goesOn                                  = 0x01, 0x00
)

func TestWebSocketAttacks(t *testing.T) {
	// The timeouts are longer than these tests wait, so what ends a connection is something else. Slow
	// messages do not end it either, except where they are the attack.
	s := start(t, Options{MessageBytes: 1 << 10, BodyTime: time.Minute, PingTime: time.Minute, linger: time.Minute})
	impatient := start(t, Options{MessageBytes: 1 << 10, BodyTime: 100 * time.Millisecond, PingTime: time.Minute,
		linger: time.Minute})
	tests := []struct {
		name   string
		send   string
		code   int
		reason string // part of the reason
	}{
		{"unmasked", "\x81\x02{}", 1002, "MASK"},
		{"reserved bit", frame(text|0x40, "{}"), 1002, "RSV1"},
		{"unknown opcode", frame(0x83, "{}"), 1002, "opcode"},
		{"control frame too long", frame(pingFrame, strings.Repeat("x", 126)), 1002, "control"},
		{"control frame in fragments", frame(pingFrame&0x7f, "x"), 1002, "FIN"},
		{"continues nothing", frame(goesOn, "x"), 1002, "continuation"},
		{"begins twice", frame(textBegins, "{") + frame(textBegins, "{"), 1002, ""},
		{"oversized", frame(text, strings.Repeat("x", 1<<10+1)), 1009, ""},
		{"says it is huge", "\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1009, ""},
		{"length with the top bit", "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1009, ""},
		{"bomb of fragments", frame(textBegins, "x") + strings.Repeat(frame(goesOn, strings.Repeat("x", 100)), 20),
			1009, ""},
		{"message without end", frame(textBegins, "x") + strings.Repeat(frame(goesOn, ""), 1000), 1008, "did not end"},
		{"message without end, with pings", frame(textBegins, "x") + strings.Repeat(frame(pingFrame, ""), 50), 1008,
			"did not end"},
		{"half a frame", "\x81\x85\x00\x00\x00\x00{", 1008, "did not end"},
		{"bad UTF-8", frame(text, "{\"op\":\"\xff\"}"), 1007, "UTF-8"},
		{"binary", frame(binaryFrame, "{}"), 1003, "text"},
		{"ping flood", strings.Repeat(frame(pingFrame, "x"), 101), 1008, "pings"},
		{"pong flood", strings.Repeat(frame(pongFrame, ""), 101), 1008, "pings"},
		{"bad close code", frame(closeFrame, "\x00\x01"), 1002, ""},
		{"bad close reason", frame(closeFrame, "\x03\xe8\xff"), 1002, ""},
		{"goodbye", frame(closeFrame, "\x03\xe8"), 1000, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sub := *s
			if tt.reason == "did not end" {
				sub = *impatient
			}
			sub.T = t
			a := sub.upgraded("/v1/stream")
			a.put(tt.send)
			if code, reason := a.closed(); code != tt.code || !strings.Contains(reason, tt.reason) {
				t.Errorf("closed with %d %q; want %d with %q", code, reason, tt.code, tt.reason)
			}
		})
	}
	t.Run("one byte at a time", func(t *testing.T) { // only a slow way to send
		sub := *s
		sub.T = t
		a := sub.upgraded("/v1/stream")
		message := `{"op":"ping","id":"p"}`
		all := frame(textBegins, "")
		for i := range len(message) {
			all += frame(goesOn, message[i:i+1])
		}
		a.put(all + frame(goesOn|0x80, ""))
		if op, payload := a.frame(); op != 1 || string(payload) != `{"op":"pong","id":"p"}` {
			t.Errorf("frame %d %s", op, payload)
		}
	})
	t.Run("gone without a word", func(t *testing.T) {
		sub := *s
		sub.T = t
		for _, path := range []string{"/v1/stream", "/v1/services/bank/events"} {
			a := sub.upgraded(path)
			a.put(frame(text, `{"op":"subscribe","id":"s","service":"bank","credits":5}`))
			a.Close()
		}
	})
	t.Run("words into a one-way stream", func(t *testing.T) {
		sub := *s
		sub.T = t
		a := sub.upgraded("/v1/services/bank/events")
		a.put(frame(text, "{}"))
		if code, reason := a.closed(); code != 1008 || !strings.Contains(reason, "takes no messages") {
			t.Errorf("closed with %d %q", code, reason)
		}
	})
	// Afterwards the host still works.
	for _, s := range []*site{s, impatient} {
		if _, err := s.client.Send(t.Context(), service.Command{Service: "bank", Key: "k", Type: "add"}); err != nil {
			t.Error(err)
		}
		if log := s.logged.String(); strings.Contains(log, "panic") {
			t.Error(log)
		}
	}
}

// The reason for a close arrives even if the host is about to send something else, and if the client is still
// sending.
func TestTheReasonIsNotLost(t *testing.T) {
	s := start(t, Options{MessageBytes: 1 << 10, linger: time.Minute})
	service := s.fake.services["bank"]
	s.fake.mu.Lock()
	for range 5000 {
		service.append("k", "added", 1, `{"by":1}`)
	}
	s.fake.mu.Unlock()
	for name, tt := range map[string]struct {
		send string
		code int
	}{
		"a frame that breaks the rules, instead of a hello": {frame(0x83, "{}"), 1002},
		"goodbye instead of a hello":                        {frame(closeFrame, "\x03\xe8"), 1000},
		"goodbye among events": {
			frame(text, `{"op":"subscribe","id":"s","service":"bank","credits":100000}`) + frame(closeFrame, "\x03\xe8"), 1000},
		"oversized among events": {
			frame(text, `{"op":"subscribe","id":"s","service":"bank","credits":100000}`) + frame(text, strings.Repeat("x", 8<<20)), 1009},
	} {
		t.Run(name, func(t *testing.T) {
			sub := *s
			sub.T = t
			for range 20 { // which goroutine is first varies
				a := sub.shaken("/v1/stream")
				a.put(tt.send)
				if code, reason := a.closed(); code != tt.code {
					t.Fatalf("closed with %d %q; want %d", code, reason, tt.code)
				}
			}
		})
	}
}

// It also arrives if the host cannot send at present, because the client does not read before it has sent
// everything.
func TestTheReasonReachesAClientThatIsSending(t *testing.T) {
	t.Parallel()
	prove.SkipShort(t, "it fills the buffers of sockets")
	s := start(t, Options{MessageBytes: 1 << 10, linger: time.Minute,
		StallTime: 100 * time.Millisecond})
	service := s.fake.services["bank"]
	large := fmt.Sprintf(`{"by":1,"text":%q}`, strings.Repeat("x", 16<<10))
	s.fake.mu.Lock()
	for range 1000 {
		service.append("k", "added", 1, large)
	}
	s.fake.mu.Unlock()
	for path, tt := range map[string]struct {
		first string
		code  int
	}{
		"/v1/stream":               {frame(text, `{"op":"subscribe","id":"s","service":"bank","credits":1000}`), 1009},
		"/v1/services/bank/events": {"", 1009},
	} {
		a := s.shaken(path)
		a.put(tt.first)
		s.until("the host cannot send", func() bool {
			return s.server.listener.Stalled() > 0
		})
		a.put(frame(text, strings.Repeat("x", 8<<20)))
		if code, reason := a.closed(); code != tt.code {
			t.Errorf("%s: closed with %d %q; want %d", path, code, reason, tt.code)
		}
	}
}

func TestBrokenHandshakes(t *testing.T) {
	s := start(t, Options{})
	const good = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " +
		"dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, headers := range []string{
		strings.Replace(good, "13", "12", 1),
		strings.Replace(good, "dGhlIHNhbXBsZSBub25jZQ==", "short", 1),
		strings.Replace(good, "Sec-WebSocket-Key", "X", 1),
		good + "Sec-WebSocket-Protocol: other\r\n",
	} {
		a := s.attacker()
		a.put("GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n")
		resp, err := http.ReadResponse(a.r, nil)
		if err != nil || resp.StatusCode != 400 || resp.Header.Get("Content-Type") != api.ContentProblem {
			t.Errorf("%q: %v %v", headers, resp, err)
		}
	}
	// Compression is not supported, so there is nothing to decompress.
	a := s.attacker()
	a.put("GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n" + good + "Sec-WebSocket-Extensions: " +
		"permessage-deflate\r\n\r\n")
	resp, err := http.ReadResponse(a.r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("%v %v", resp, err)
	}
	// Frames that were sent before the answer came are not taken for a WebSocket's.
	a = s.attacker()
	a.put("GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n" + good + "\r\n" + frame(text, `{"op":"ping"}`))
	if resp, err := http.ReadResponse(a.r, nil); err == nil && resp.StatusCode == 101 {
		t.Errorf("%v", resp)
	}
}

// A client that never reads holds up only its own connection, and no longer than a write may take.
func TestNeverReading(t *testing.T) {
	t.Parallel()
	prove.SkipShort(t, "it fills the buffers of sockets")
	s := start(t, Options{WriteTime: time.Second, InFlight: 4})
	s.fake.mu.Lock()
	for i := range 20_000 { // small ones, as a client has longer for a large batch
		s.fake.services["bank"].append("k", "", service.Version(i+1), `"`+strings.Repeat("x", 1000)+`"`)
	}
	s.fake.mu.Unlock()
	slow := s.upgraded("/v1/stream")
	slow.put(frame(text, `{"op":"subscribe","id":"s","service":"bank","credits":1000}`))
	one := s.upgraded("/v1/services/bank/events")
	sse := s.attacker()
	sse.put("GET /v1/services/bank/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
	// Others are served meanwhile.
	if _, err := s.client.Send(t.Context(), service.Command{Service: "bank", Key: "k", Type: "look"}); err != nil {
		t.Error(err)
	}
	// The host has ended all three when no streams are counted.
	s.until("all streams end", func() bool {
		if _, err := s.client.Service(t.Context(), "bank"); err != nil {
			t.Fatal(err)
		}
		return s.server.streams.Open() == 0
	})
	_ = one
}

// A client that takes nothing has the time of one write, however large the data for it is.
func TestTheTimeOfAWriteDoesNotGrowWithItsSize(t *testing.T) {
	t.Parallel()
	prove.SkipShort(t, "it fills the buffers of sockets")
	const size = 16 << 20 // for which a client that keeps the rate has four minutes
	s := startWithin(t, service.Budget{FlightBytes: 256 << 20, ConnectionBytes: 64 << 20},
		Options{WriteTime: time.Second})
	s.fake.mu.Lock()
	s.fake.services["bank"].append("k", "", 1, `"`+strings.Repeat("x", size)+`"`)
	s.fake.mu.Unlock()
	const query = "/v1/services/bank/entities/k/queries/reply-16777216"
	const events = "/v1/services/bank/events"
	for name, begin := range map[string]func(){
		"an answer to a query on a stream": func() {
			s.upgraded("/v1/stream").put(frame(text, `{"op":"query","id":"q","service":"bank","key":"k",`+
				`"type":"reply-16777216"}`))
		},
		"an event on a WebSocket":        func() { s.upgraded(events) },
		"a reply":                        func() { s.asks(query, "*/*") },
		"a page":                         func() { s.asks(events, api.ContentJSON) },
		"an event that the server sends": func() { s.asks(events, api.ContentSSE) },
	} {
		begin()
		s.until(name+" fills the connection", func() bool { _, one := s.used(); return one > size })
		s.until(name+" is given up", func() bool { _, one := s.used(); return one < size })
	}
}

// asks sends a request and reads the first line of its answer.
func (s *site) asks(path, accept string) {
	s.Helper()
	a := s.attacker()
	a.put("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nAccept: " + accept + "\r\n\r\n")
	if line, err := a.r.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		s.Fatalf("%s: %q %v", path, line, err)
	}
}

// A client sends many commands and does not read their answers. First the slots are used up, then the
// refusals fill the socket, then the host stops reading.
func TestCommandFloodWithoutReading(t *testing.T) {
	t.Parallel()
	s := start(t, Options{WriteTime: time.Second, InFlight: 4})
	a := s.upgraded("/v1/stream")
	command := frame(text, `{"op":"command","id":"`+strings.Repeat("i", 128)+`","service":"bank","key":"k","type":"look"}`)
	flood := strings.Repeat(command, 100)
	var err error
	for err == nil { // until the host closes the connection
		_, err = io.WriteString(a.Conn, flood)
	}
	if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Error("the host did not hang up")
	}
}

func TestSlowRequests(t *testing.T) {
	t.Parallel()
	// Only the timeout under test is short, so that nothing else fails on a busy machine.
	const short = 100 * time.Millisecond
	var sites []*site
	begin := func(t *testing.T, o Options) *site {
		s := start(t, o)
		sites = append(sites, s)
		return s
	}
	t.Run("headers", func(t *testing.T) {
		a := begin(t, Options{HeaderTime: short}).attacker()
		a.put("GET /healthz HTTP/1.1\r\nHost: lo")
		if _, err := io.ReadAll(a.r); err != nil { // it ends, with or without a message
			t.Error(err)
		}
	})
	t.Run("body", func(t *testing.T) {
		s := begin(t, Options{BodyTime: short})
		// a body without a length has the time of the largest
		s.fake.services["bank"].status.Spec.Limits.CommandBytes = 1000
		for _, headers := range []string{"Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"} {
			a := s.attacker()
			a.put("POST " + commands + "add HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n1")
			if headers[0] == 'T' {
				a.put("\r\n1\r\n")
			}
			resp, err := http.ReadResponse(a.r, nil)
			if err != nil || resp.StatusCode != http.StatusRequestTimeout || !resp.Close {
				t.Errorf("%v %v", resp, err)
			}
		}
	})
	t.Run("idle", func(t *testing.T) {
		a := begin(t, Options{IdleTime: short}).attacker()
		a.put("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if text, err := io.ReadAll(a.r); err != nil || !strings.HasSuffix(string(text), "{\"status\":\"ok\"}\n") {
			t.Errorf("%s %v", text, err)
		}
	})
	t.Run("large headers", func(t *testing.T) {
		a := begin(t, Options{}).attacker()
		a.put("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n")
		resp, err := http.ReadResponse(a.r, nil)
		if err == nil && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%v", resp)
		}
	})
	for _, s := range sites {
		if n := len(s.fake.seen); n != 0 {
			t.Errorf("%d commands came through", n)
		}
	}
}

// Idle connections make room; connections at work do not.
func TestCrowd(t *testing.T) {
	s := start(t, Options{Connections: 3})
	var idle []*attacker
	for i := range 20 { // most of them are closed by the end
		a := s.attacker()
		if i%2 == 0 {
			a.put("GET /healthz HTTP/1.1\r\nHo") // half a header counts as idle, too
		}
		idle = append(idle, a)
	}
	if _, err := s.client.Send(t.Context(), service.Command{Service: "bank", Key: "k", Type: "add"}); err != nil {
		t.Errorf("others are kept out: %v", err)
	}
	if _, err := idle[0].r.ReadByte(); err == nil {
		t.Error("the first one is still there")
	}
	// If all are at work, a new connection gets an error.
	s.client.Close()
	finish := s.threeSlow()
	a := s.attacker()
	resp, err := http.ReadResponse(a.r, nil)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%v %v", resp, err)
	} else if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), `"kind":"overloaded"`) || !strings.Contains(string(body), `"resource":"connections","used":3,"limit":3`) {
		t.Errorf("%s %v", body, err)
	}
	finish()
}

// threeSlow has three commands at work. finish lets them end, and fails the test if one is not answered.
func (s *site) threeSlow() (finish func()) {
	s.Helper()
	gone := make(chan error, 3)
	for range 3 {
		go func() {
			resp, err := s.http.Post(s.server.URL()+commands+"slow", "application/json", nil)
			if err == nil {
				resp.Body.Close()
			}
			gone <- err
		}()
	}
	for range 3 {
		<-s.fake.slow
	}
	return func() {
		s.Helper()
		close(s.fake.gate)
		for range 3 {
			if err := <-gone; err != nil {
				s.Error(err)
			}
		}
	}
}

// Connections take descriptors from the budget. When the journal needs more, idle connections are closed, and
// a new connection gets an error that names the resource.
func TestConnectionsLeaveDescriptorsToTheJournal(t *testing.T) {
	f := newFake()
	host := f.account
	host.SetLimit(budget.Descriptors, 20)
	journal := host.Child("journal", nil)
	journal.Set(budget.Descriptors, 12)
	s := startOn(t, f, Options{Connections: 100, Streams: 100})
	if s.server.options.Connections != 8 || s.server.options.Streams != 6 {
		t.Errorf("of 20 descriptors, of which 12 are the journal's, %d are for connections and %d for streams",
			s.server.options.Connections, s.server.options.Streams)
	}
	var idle []*attacker
	for range 30 {
		idle = append(idle, s.attacker())
	}
	if _, err := s.client.Send(t.Context(), service.Command{Service: "bank", Key: "k", Type: "add"}); err != nil {
		t.Errorf("others are kept out: %v", err)
	}
	if used := host.Used(budget.Descriptors); used > 20 {
		t.Errorf("%d descriptors are in use", used)
	}
	s.client.Close()
	finish := s.threeSlow()
	journal.Set(budget.Descriptors, 17) // three are at work
	a := s.attacker()
	resp, err := http.ReadResponse(a.r, nil)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%v %v", resp, err)
	} else if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), `"kind":"overloaded"`) || !strings.Contains(string(body), `"resource":"descriptors","used":20,"limit":20`) {
		t.Errorf("%s %v", body, err)
	}
	for _, a := range idle {
		if _, err := a.r.ReadByte(); err == nil {
			t.Error("an idle connection holds a descriptor that the journal needs")
		}
	}
	finish()
	s.http.CloseIdleConnections()
	s.client.Close()
	if err := s.server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if used := host.Used(budget.Descriptors); used != 17 {
		t.Errorf("%d descriptors are in use by a gateway that has stopped", used-17)
	}
}

// Streams are also closed when the journal needs more descriptors: those that have been open longest. The
// others go on.
func TestStreamsYieldDescriptorsToTheJournal(t *testing.T) {
	f := newFake()
	host := f.account
	host.SetLimit(budget.Descriptors, 20)
	journal := host.Child("journal", nil)
	journal.Set(budget.Descriptors, 10)
	s := startOn(t, f, Options{Connections: 100, Streams: 100})
	var streams []*attacker
	for range 6 {
		a := s.attacker()
		a.put("GET /v1/services/bank/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
		if resp, err := http.ReadResponse(a.r, nil); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v %v", resp, err)
		}
		streams = append(streams, a)
	}
	journal.Set(budget.Descriptors, 18)
	ended := func(a *attacker) bool {
		_, err := io.Copy(io.Discard, a.r)
		var late net.Error
		return !errors.As(err, &late) || !late.Timeout()
	}
	for i, a := range streams[:4] {
		if !ended(a) { // otherwise it would go on forever
			t.Errorf("stream %d goes on", i)
		}
	}
	for host.Used(budget.Descriptors) > 20 { // the client may have got its answer first
		runtime.Gosched()
	}
	for i, a := range streams[4:] {
		_ = a.SetReadDeadline(time.Now().Add(time.Millisecond))
		if ended(a) {
			t.Errorf("stream %d has ended, which there was a descriptor for", 4+i)
		}
	}
}

// 10,000 idle connections would need as many descriptors. It is enough that more come than the bound allows.
func TestIdleFlood(t *testing.T) {
	s := start(t, Options{Connections: 8})
	for i := range 500 {
		conn, err := net.Dial("tcp", s.server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%100 == 50 {
			s.client.Close() // its idle connection may be closed at this moment
			if _, err := s.client.Send(t.Context(), service.Command{Service: "bank", Key: "k", Type: "add",
				ID: service.CommandID(fmt.Sprint(i))}); err != nil {
				t.Errorf("after %d: %v", i, err)
			}
		}
	}
}
