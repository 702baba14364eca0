package gateway

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// little is a budget that is soon used up.
var little = service.Budget{FlightBytes: 40 << 20, ConnectionBytes: 4 << 20}

// within are options that fit into it. Stalled clients are only closed when others need room.
func within() Options {
	return Options{
		MessageBytes: 1 << 20, ModuleBytes: 1 << 20, InFlight: 1024, WriteTime: 5 * time.Minute,
		BodyTime: 5 * time.Minute, PingTime: time.Minute,
		StallTime: 5 * time.Minute,
	}
}

// used is what all connections hold, and the maximum of one.
func (s *site) used() (all, largest int64) {
	for _, h := range s.fake.account.Holders(budget.FlightBytes, 1) {
		largest = h.Used
	}
	return s.fake.account.Used(budget.FlightBytes), largest
}

// within checks, until wait returns, that no connection holds more than it may.
func (s *site) watched(wait func()) {
	s.Helper()
	var over atomic.Bool
	var watching sync.WaitGroup
	watching.Go(func() {
		for !over.Load() {
			if all, largest := s.used(); all > s.fake.budget.FlightBytes || largest > s.fake.budget.ConnectionBytes {
				s.Errorf("all connections hold %d bytes, one holds %d", all, largest)
				return
			}
			runtime.Gosched()
		}
	})
	wait()
	over.Store(true)
	watching.Wait()
}

// until waits for a condition that must become true.
func (s *site) until(what string, happens func() bool) {
	s.Helper()
	looks := time.NewTicker(time.Millisecond) // leaves the processor to those who make it true
	defer looks.Stop()
	for begin := time.Now(); !happens(); <-looks.C {
		if time.Since(begin) > 2*time.Minute { // no test takes that long
			s.Fatalf("it did not happen: %s", what)
		}
	}
}

// A client that sends queries with large replies and does not read makes the host hold no more than one
// connection may. When it finally reads, it gets an answer to each: the reply, or an error that there was no
// room for it.
func TestAnswersThatNobodyReads(t *testing.T) {
	const queries, size = 300, 1 << 20
	s := startWithin(t, little, within())
	ws := s.raw("/v1/stream", api.ProtocolStream)
	var sent sync.WaitGroup
	sent.Go(func() {
		for i := range queries {
			say(t, ws, `{"op":"query","id":"%d","service":"bank","key":"k","type":"reply-%d"}`, i, size)
		}
	})
	s.watched(func() {
		s.until("it holds much", func() bool { _, one := s.used(); return one > s.fake.budget.ConnectionBytes/2 })
		sent.Wait()
		// Not all need be handled before the client reads: answers that wait to be written hold up the rest.
		s.until("an answer or a query has no room", func() bool {
			usage := s.fake.account.Usage()
			at := slices.IndexFunc(usage, func(u service.ResourceUsage) bool { return u.Resource == "bytes_in_flight" })
			return usage[at].Refused > 0
		})
		replies, refused := 0, 0
		for range queries {
			m := hear(t, ws)
			switch {
			case m.Op == api.OpReply && len(m.Data()) == size:
				replies++
			case m.Op == api.OpError && m.Problem.Kind == "overloaded" && m.Problem.Resource == "bytes_in_flight" &&
				m.Problem.RetryAfterMS > 0 && m.ID != "":
				refused++
			default:
				t.Fatalf("%s %s %+v", m.Op, m.ID, m.Problem)
			}
		}
		if replies == 0 || refused == 0 {
			t.Errorf("%d replies, %d refusals", replies, refused)
		}
	})
	// The connection goes on.
	say(t, ws, `{"op":"query","id":"last","service":"bank","key":"k","type":"reply-%d"}`, size)
	if m := hear(t, ws); m.Op != api.OpReply || m.ID != "last" {
		t.Errorf("%+v %+v", m, m.Problem)
	}
}

// A reply without room is left out, although the command was carried out. The error does not say that nothing
// was written.
func TestAReplyWithoutRoomIsNoFailure(t *testing.T) {
	s := startWithin(t, little, within())
	for _, typ := range []string{"reply-5000000", "blob-5000000"} {
		g := s.do("POST", commands+typ, "", api.HeaderCommandID, `"the-id"`)
		p := s.problem(g, 503, "unknown_outcome")
		if p.CommandID != "the-id" || p.Resource != "bytes_in_flight" || p.RetryAfterMS == 0 {
			t.Errorf("%+v", p)
		}
		s.problem(s.do("POST", strings.Replace(commands, "commands", "queries", 1)+typ, ""), 503, "overloaded")
	}
	ws := s.raw("/v1/stream", api.ProtocolStream)
	say(t, ws, `{"op":"command","id":"1","service":"bank","key":"k","type":"reply-5000000","command_id":"the-id"}`)
	if m := hear(t, ws); m.Op != api.OpError || m.Problem.Kind != "unknown_outcome" ||
		m.Problem.CommandID != "the-id" || m.Problem.Resource == "" {
		t.Errorf("%+v %+v", m, m.Problem)
	}
	// What fits arrives, in either form.
	for typ, size := range map[string]int{"reply-3000000": 3_000_000, "blob-3000001": 3_000_001, "blob-20000": 20_000,
		"reply-17000": 17_000} {
		if r, err := s.client.Send(t.Context(),
			service.Command{Service: "bank", Key: "k", Type: service.Type(typ)}); err != nil || len(r.Data) != size {
			t.Errorf("%s: %d bytes, %v", typ, len(r.Data), err)
		}
		say(t, ws, `{"op":"query","id":"2","service":"bank","key":"k","type":%q}`, typ)
		if m := hear(t, ws); m.Op != api.OpReply || len(m.Data()) != size {
			t.Errorf("%s: %+v", typ, m.Problem)
		}
	}
}

// A message without room is refused under its id, and the connection goes on.
func TestAMessageWithoutRoom(t *testing.T) {
	s := startWithin(t, little, within())
	ws := s.raw("/v1/stream", api.ProtocolStream)
	const messages = 20
	data := strings.Repeat("x", 300_000)
	for i := range messages { // each waits at the gate, with its data
		say(t, ws, `{"op":"command","id":"slow%d","service":"bank","key":"k","type":"slow","data":%q}`, i, data)
	}
	say(t, ws, `{"op":"ping","id":"p"}`)
	refused := map[string]bool{}
	m := hear(t, ws)
	for ; m.Op == api.OpError; m = hear(t, ws) {
		if m.Problem.Kind != "overloaded" || m.Problem.Resource != "bytes_in_flight" ||
			!strings.HasPrefix(m.ID, "slow") || refused[m.ID] {
			t.Errorf("%s %+v", m.ID, m.Problem)
		}
		refused[m.ID] = true
	}
	if m.Op != api.OpPong || len(refused) == 0 || len(refused) > messages-3 {
		t.Errorf("%+v after %d refusals", m, len(refused))
	}
	close(s.fake.gate)
	for range messages - len(refused) {
		if m := hear(t, ws); m.Op != api.OpReply || refused[m.ID] {
			t.Errorf("%+v %+v", m, m.Problem)
		}
	}
}

// Clients that do not finish what they begin, or do not read what they request, cannot take everything. Small
// requests of others succeed, and when others need room, stalled clients are closed.
func TestStalledClientsMakeRoom(t *testing.T) {
	t.Parallel()
	prove.SkipShort(t, "it waits for clients to stall")
	o := within()
	o.StallTime = 50 * time.Millisecond
	hostile := map[string]func(*site) io.Closer{
		"messages short of a byte": func(s *site) io.Closer {
			a := s.upgraded("/v1/stream")
			a.put(frame(text, `{"op":"query","id":"1","data":"`+strings.Repeat("x", 1<<20-100))[:1<<20-200])
			return a
		},
		"fragments": func(s *site) io.Closer {
			a := s.upgraded("/v1/stream")
			a.put(frame(textBegins, `{"op":"query","id":"1","data":"`))
			for range 15 {
				a.put(frame(goesOn, strings.Repeat("x", 60_000)))
			}
			return a
		},
		"bodies short of a byte": func(s *site) io.Closer {
			a := s.attacker()
			a.put("POST " + commands + "add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" +
				strings.Repeat("x", 999_999))
			return a
		},
		"bodies that trickle": func(s *site) io.Closer {
			a := s.attacker()
			a.put("POST " + commands + "add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" +
				strings.Repeat("x", 990_000))
			return a.trickle()
		},
		"messages that trickle": func(s *site) io.Closer {
			a := s.upgraded("/v1/stream")
			a.put(frame(text, `{"op":"query","id":"1","data":"`+strings.Repeat("x", 1<<20-100))[:1<<20-20_000])
			return a.trickle()
		},
		"unread answers": func(s *site) io.Closer {
			a := s.attacker()
			a.put("POST " + commands + "reply-3500000 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
			return a
		},
		"unread answers on streams": func(s *site) io.Closer {
			a := s.upgraded("/v1/stream")
			a.put(strings.Repeat(frame(text, `{"op":"query","id":"1","service":"bank","key":"k","type":"reply-3500000"}`), 3))
			return a
		},
		"unread events": func(s *site) io.Closer {
			a := s.attacker()
			a.put("GET /v1/services/bank/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
			return a
		},
		"unread events on streams": func(s *site) io.Closer {
			a := s.upgraded("/v1/stream")
			for i := range 8 {
				a.put(frame(text, fmt.Sprintf(`{"op":"subscribe","id":"%d","service":"bank","credits":1000}`, i)))
			}
			return a
		},
		"unread pages": func(s *site) io.Closer {
			a := s.attacker()
			a.put("GET /v1/services/bank/events?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
			return a
		},
	}
	for name, one := range hostile {
		t.Run(name, func(t *testing.T) {
			s := startWithin(t, little, o)
			s.fake.mu.Lock()
			for i := range 20 {
				s.fake.services["bank"].append("other", "", service.Version(i+1), `"`+strings.Repeat("x", 500_000)+`"`)
			}
			s.fake.mu.Unlock()
			s.watched(func() {
				for range 60 {
					defer one(s).Close()
				}
				for i := range 20 {
					r, err := s.client.Send(t.Context(), service.Command{Service: "bank", Key: "k", Type: "add",
						Data: fmt.Appendf(nil, "%q", strings.Repeat("y", 5000))})
					if err != nil || r.Version != service.Version(i+1) {
						t.Fatalf("a small command among them: %+v, %v", r, err)
					}
				}
				s.until("a large reply", func() bool {
					r, err := s.client.Query(t.Context(),
						service.Query{Service: "bank", Key: "k", Type: "reply-2000000"})
					if err != nil && service.KindOf(err) != service.KindOverloaded {
						t.Fatal(err)
					}
					return len(r.Data) == 2_000_000
				})
			})
		})
	}
}

// Random clients send commands and queries of all sizes, subscriptions, pages and bodies, completely or in
// part, read or not, and end in any way. At no time does a connection hold more than it may, and at the end
// everything has been given back, which start checks.
func TestRandomClients(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	o := within()
	o.StallTime = 20 * time.Millisecond
	s := startWithin(t, little, o)
	s.fake.mu.Lock()
	for i := range 30 {
		s.fake.services["bank"].append("k", "", service.Version(i+1), `"`+strings.Repeat("x", 1<<(i%20))+`"`)
	}
	s.fake.mu.Unlock()
	s.watched(func() {
		var clients sync.WaitGroup
		for n := range uint64(12) {
			clients.Go(func() {
				random := rand.New(rand.NewPCG(seed, n))
				for range 12 {
					if random.IntN(3) == 0 {
						s.randomRequest(random)
					} else {
						s.randomStream(random)
					}
				}
			})
		}
		clients.Wait()
	})
}

// randomSize is small mostly, and up to maximum.
func randomSize(random *rand.Rand, maximum int) int {
	return 3 + random.IntN(1+maximum>>random.IntN(20))
}

func (s *site) randomRequest(random *rand.Rand) {
	a, err := net.Dial("tcp", s.server.Addr().String())
	if err != nil {
		return
	}
	defer a.Close()
	_ = a.SetDeadline(time.Now().Add(300 * time.Millisecond)) // it may have stopped within a message
	text := ""
	switch random.IntN(4) {
	case 0:
		body := strings.Repeat("1", randomSize(random, 1<<20))
		text = fmt.Sprintf("POST %sreply-%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", commands,
			randomSize(random, 5<<20), len(body), body)
	case 1:
		body := strings.Repeat("1", randomSize(random, 1<<19))
		text = fmt.Sprintf("POST %slook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "+
			"chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", commands, len(body), body)
	case 2:
		text = "GET /v1/services/bank/events?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
	case 3:
		text = "GET /v1/services?manifest=true HTTP/1.1\r\nHost: localhost\r\nX: " +
			strings.Repeat("x", randomSize(random, 30_000)) + "\r\n\r\n"
	}
	if random.IntN(4) == 0 {
		text = text[:random.IntN(len(text))]
	}
	_, _ = io.WriteString(a, text) // the host may have closed the connection
	if random.IntN(2) == 0 {
		_, _ = io.CopyN(io.Discard, a, int64(random.IntN(1<<20)))
	}
}

func (s *site) randomStream(random *rand.Rand) {
	ws, _, err := dial(s, "/v1/stream", nil, api.ProtocolStream)
	if err != nil {
		return // refused, as others hold everything
	}
	defer ws.Close()
	_ = ws.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)) // if it does not read, it may not be read either
	var reading sync.WaitGroup
	if random.IntN(2) == 0 {
		reading.Go(func() {
			for {
				if _, _, err := ws.ReadMessage(); err != nil {
					return
				}
			}
		})
	}
	for i := range 1 + random.IntN(30) {
		data, _ := json.Marshal(strings.Repeat("d", randomSize(random, 1<<20-1000)))
		var text string
		switch random.IntN(5) {
		case 0:
			text = fmt.Sprintf(`{"op":"command","id":"%d","service":"bank","key":"k","type":"reply-%d","data":%s}`, i, randomSize(random, 4<<20), data)
		case 1:
			text = fmt.Sprintf(`{"op":"query","id":"%d","service":"blob","key":"k","type":"blob-%d","data_base64":%q}`, i, randomSize(random, 4<<20), base64.StdEncoding.EncodeToString(data[:len(data)/2]))
		case 2:
			text = fmt.Sprintf(`{"op":"subscribe","id":"%d","service":"bank","credits":%d}`, i, random.IntN(100))
		case 3:
			text = fmt.Sprintf(`{"op":"command","id":"%d","service":"bank","key":"k","type":"reject","data":%s}`, i, data)
		case 4:
			text = string(data) // not a message
		}
		if random.IntN(20) == 0 { // truncated
			if w, err := ws.NextWriter(websocket.TextMessage); err == nil {
				_, _ = io.WriteString(w, text[:random.IntN(len(text))])
			}
			break
		}
		if ws.WriteMessage(websocket.TextMessage, []byte(text)) != nil {
			break
		}
	}
	ws.Close()
	reading.Wait()
}

// Limits that one connection, or all together, cannot carry are refused at the start.
func TestLimitsAboveTheBudgetAreNamed(t *testing.T) {
	f := newFake()
	f.budget = service.Budget{FlightBytes: 20 << 20, ConnectionBytes: 2 << 20}
	_, err := New(f, Options{MessageBytes: 2 << 20, ModuleBytes: 16 << 20})
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindInvalid || len(e.Reasons) != 2 ||
		!strings.HasPrefix(e.Reasons[0], "message bytes is ") || !strings.HasPrefix(e.Reasons[1], "module bytes is ") {
		t.Errorf("%v", err)
	}
}

// The error names the resource to the client, and the holders only to the operator.
func TestHoldersAreForOperators(t *testing.T) {
	s := startWithin(t, little, within())
	g := s.do("POST", strings.Replace(commands, "commands", "queries", 1)+"reply-5000000", "")
	p := s.problem(g, 503, "overloaded")
	if p.Used == 0 || p.Limit != s.fake.budget.ConnectionBytes || p.Resource != "bytes_in_flight" ||
		strings.Contains(string(g.body), "held by") {
		t.Errorf("%s", g.body)
	}
	r := decode[api.Resources](s, s.do("GET", "/v1/resources", ""))
	if len(r.Resources) != 1 || r.Resources[0].Holders[0].Name != "bank" {
		t.Errorf("%+v", r)
	}
	s2 := start(t, Options{Token: strings.Repeat("t", minToken)})
	if g := s2.do("GET", "/v1/resources", ""); g.status != http.StatusUnauthorized {
		t.Errorf("without the token: %d", g.status)
	}
}

// leave takes everything but some bytes, until it is called again.
func (s *site) leave(left int64) (back func()) {
	s.Helper()
	n := s.fake.account.Room(budget.FlightBytes) - left
	if err := s.fake.account.Take(budget.FlightBytes, n); err != nil {
		s.Fatal(err)
	}
	return func() { s.fake.account.Give(budget.FlightBytes, n) }
}

// A stream whose first message has no room gives back exactly what it took.
func TestAFirstMessageWithoutRoom(t *testing.T) {
	s := startWithin(t, little, within())
	ws := s.raw("/v1/stream", api.ProtocolStream)
	held := func() int64 { n, _ := s.used(); return n }
	s.until("the stream is open", func() bool { return held() >= flight.StreamBytes })
	before := held()
	back := s.leave(0)
	say(t, ws, `{"op":"ping","id":"refused","service":"%s"}`, strings.Repeat("x", 12<<10))
	if m := hear(t, ws); m.Op != api.OpError || m.ID != "refused" || m.Problem.Resource != "bytes_in_flight" {
		t.Errorf("%+v %+v", m, m.Problem)
	}
	back()
	if now := held(); now != before {
		t.Errorf("the connection holds %d bytes, before the message %d", now, before)
	}
	say(t, ws, `{"op":"ping","id":"p"}`)
	if m := hear(t, ws); m.Op != api.OpPong {
		t.Errorf("%+v %+v", m, m.Problem)
	}
	ws.Close()
	s.until("the connection has left", func() bool { return held() == 0 })
	if strings.Contains(s.logged.String(), "were never given back") {
		t.Error("the connection gave back what it had not taken, or did not give it back")
	}
}

// Answers about a module or service, which may be large, take their memory before the work begins, also those
// with lines. So what was done is not reported as refused, and nothing is held without being counted.
func TestDeploymentsHaveRoomForTheirAnswer(t *testing.T) {
	s := startWithin(t, service.Budget{}, Options{})
	defer s.leave(flight.SmallFlight)()
	deployment := fmt.Sprintf(`{"module":%q}`, service.DigestOf([]byte("module")))
	for _, accept := range []string{api.ContentLines, api.ContentJSON} {
		for _, g := range []got{
			s.do("PUT", "/v1/services/shop", deployment, "Content-Type", api.ContentJSON, "Accept", accept),
			s.do("POST", "/v1/services/shop/deployments", "\x00asm", "Accept", accept),
			s.do("POST", "/v1/modules", "\x00asm good", "Accept", accept),
		} {
			if p := s.problem(g, 503, "overloaded"); p.Resource != "bytes_in_flight" {
				t.Errorf("%s: %+v", accept, p)
			}
		}
	}
	s.fake.mu.Lock()
	defer s.fake.mu.Unlock()
	if s.fake.services["shop"] != nil {
		t.Error("what was refused was carried out")
	}
}

// However many modules there are, their list takes no more memory than was taken for it.
func TestTheListOfModulesIsBounded(t *testing.T) {
	s := startWithin(t, little, within())
	many := func(n int) service.Modules {
		m := service.Modules{Modules: []service.StoredModule{}, Bytes: 7, Limit: 8, OtherCodeBytes: 9, Keep: time.Hour}
		for i := range n {
			at := service.StoredModule{Digest: service.DigestOf([]byte(fmt.Sprint(i))), Size: int64(i),
				Since: time.Unix(int64(i), 0).UTC(), Services: []service.Name{}, Earlier: []service.Name{}}
			if i%100 == 0 {
				at.Services, at.Earlier = []service.Name{"bank", "orders"}, []service.Name{"tally"}
			}
			m.Modules = append(m.Modules, at)
		}
		return m
	}
	for _, n := range []int{0, 1, 10_000} {
		want := many(n)
		s.fake.modules = &want
		if got := decode[service.Modules](s, s.do("GET", "/v1/modules", "")); !reflect.DeepEqual(got, want) {
			t.Errorf("of %d modules %d are listed: %.200v", n, len(got.Modules), got)
		}
	}
	tooMany := many(20_000)
	s.fake.modules = &tooMany
	g := s.do("GET", "/v1/modules", "")
	if g.status == http.StatusOK {
		t.Fatalf("%d bytes are listed", len(g.body))
	}
	if p := s.problem(g, 503, "overloaded"); p.Resource != "bytes_in_flight" {
		t.Errorf("the problem is %+v", p)
	}
}
