package hostile

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// senders is the number of clients that send to one hostile service, over both of its shards.
const senders = 6

// attacks are all kinds of hostile guests and clients.
func attacks() []attack {
	var all []attack
	for _, g := range guests() {
		all = append(all, guestAttack(g))
	}
	all = append(all, schemaAttack())
	return append(all, clientAttacks()...)
}

// guests are the zoo, and a fast endless loop.
func guests() []testguest.HostileGuest {
	spin := testguest.HostileGuest{Name: "spin", Make: func(name string) []byte {
		return testguest.Counter(name)
	}}
	return append([]testguest.HostileGuest{spin}, testguest.HostileGuests()...)
}

func guestAttack(g testguest.HostileGuest) attack {
	name := service.Name(g.Name)
	if g.Name == "slowinit" { // its start is the attack
		return attack{name: g.Name, run: func(ctx context.Context, c *hosttest.Child) {
			var wait sync.WaitGroup
			for n := range 3 {
				wait.Go(func() {
					for ctx.Err() == nil {
						own := fmt.Sprint(name, n)
						_ = tryDeploy(ctx, c, service.Name(own), g.Make(own))
					}
				})
			}
			wait.Wait()
		}}
	}
	what := []string{"commands/c", "commands/c", "queries/q"}
	if g.Name == "spin" {
		what = []string{"commands/spin"}
	}
	return attack{
		name:  g.Name,
		setUp: func(t testing.TB, c *hosttest.Child) { deploy(t, c, name, g.Make(g.Name)) },
		run:   func(ctx context.Context, c *hosttest.Child) { send(ctx, c, name, what, `{}`) },
	}
}

// schemaAttack is a guest that makes the host check data against its schema, whose patterns read each byte a
// thousand times.
func schemaAttack() attack {
	const name = service.Name("schemas")
	return attack{
		name: string(name),
		setUp: func(t testing.TB, c *hosttest.Child) {
			m := testguest.CounterManifest(string(name))
			for n := range m.Commands[:1] {
				m.Commands[n].Input = `{"items":{"pattern":"(?:a?){320}b"}}`
			}
			deploy(t, c, name, testguest.CounterWith(m.AppendJSON(nil), nil))
		},
		run: func(ctx context.Context, c *hosttest.Child) {
			element := `"` + strings.Repeat("a", 250) + `",`
			send(ctx, c, name, []string{"commands/add"}, `[`+strings.Repeat(element, 2000)+`""]`)
		},
	}
}

// send sends data to a hostile service until ctx ends, from several concurrent clients.
func send(ctx context.Context, c *hosttest.Child, name service.Name, what []string, data string) {
	transport := &http.Transport{MaxIdleConnsPerHost: senders}
	defer transport.CloseIdleConnections()
	to := http.Client{Transport: transport}
	var wait sync.WaitGroup
	for n := range senders {
		wait.Go(func() {
			for k := n; ctx.Err() == nil; k++ {
				if err := postData(ctx, &to, c, name, fmt.Sprint("e", n), what[k%len(what)], data); err != nil {
					pause(ctx, time.Millisecond) // it may be refused immediately
				}
			}
		})
	}
	wait.Wait()
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func clientAttacks() []attack {
	return []attack{
		{name: "unread-socket", setUp: setUpBigReply, run: unreadSocket},
		{name: "unread-http", setUp: setUpBigReply, run: unreadHTTP},
		{name: "readers", setUp: setUpEvents, run: readers},
		{name: "pages", setUp: setUpEvents, run: pages},
		{name: "uploads", run: uploads, prepare: func() { growing() }},
		{name: "trickle", run: trickle},
		{name: "idle", run: idle},
		{name: "half-messages", run: halfMessages, prepare: func() { longMessage() }},
	}
}

const bigReply = service.Name("bigreply")

func setUpBigReply(t testing.TB, c *hosttest.Child) {
	deploy(t, c, bigReply, testguest.BigReply(string(bigReply)))
}

// pastEvents is the number of events that subscribers must filter, pastKeys that of their entities.
const (
	pastKeys   = 64
	pastEvents = pastKeys * 265
)

// setUpEvents fills the neighbour's log with old events.
func setUpEvents(t testing.TB, c *hosttest.Child) {
	to := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	var wait sync.WaitGroup
	for n := range pastKeys {
		wait.Go(func() {
			for range pastEvents / pastKeys {
				if err := post(t.Context(), &to, c, neighbour, fmt.Sprint("past", n), "commands/add"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	to.CloseIdleConnections()
}

// connection is a client that writes any bytes.
type connection struct {
	net.Conn
	r *bufio.Reader
}

// dial connects; nil if the host refuses.
func dial(ctx context.Context, c *hosttest.Child) *connection {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return nil
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	return &connection{conn, bufio.NewReader(conn)}
}

// upgrade opens a WebSocket; nil if the host refuses.
func upgrade(ctx context.Context, c *hosttest.Child) *connection {
	conn := dial(ctx, c)
	if conn == nil {
		return nil
	}
	fmt.Fprint(conn, "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: "+
		"websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Protocol: bulkhead.v1.json\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	resp, err := http.ReadResponse(conn.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		conn.Close()
		return nil
	}
	return conn
}

// message sends a text message.
func (c *connection) message(text string) error {
	_, err := c.Write(frame(text))
	return err
}

// frame is a text message with a mask of zeros.
func frame(text string) []byte {
	b := append(make([]byte, 0, len(text)+16), 0x81, 0x80|127)
	b = binary.BigEndian.AppendUint64(b, uint64(len(text)))
	return append(append(b, 0, 0, 0, 0), text...)
}

// again runs f repeatedly in several goroutines until ctx ends.
func again(ctx context.Context, n int, f func(ctx context.Context)) {
	var wait sync.WaitGroup
	for range n {
		wait.Go(func() {
			for ctx.Err() == nil {
				f(ctx)
				pause(ctx, 10*time.Millisecond)
			}
		})
	}
	wait.Wait()
}

// unreadSocket requests four gigabytes through one WebSocket and reads none.
func unreadSocket(ctx context.Context, c *hosttest.Child) {
	again(ctx, 1, func(ctx context.Context) {
		conn := upgrade(ctx, c)
		if conn == nil {
			return
		}
		defer conn.Close()
		for n := range 1024 {
			if err := conn.message(fmt.Sprintf(
				`{"op":"query","id":"%d","service":"bigreply","key":"k%d","type":"q","data":{}}`, n, n%8)); err != nil {
				return
			}
		}
		pause(ctx, time.Hour)
	})
}

// unreadHTTP sends requests on two hundred connections and reads no answer.
func unreadHTTP(ctx context.Context, c *hosttest.Child) {
	again(ctx, 200, func(ctx context.Context) {
		conn := dial(ctx, c)
		if conn == nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "POST /v1/services/bigreply/entities/k/queries/q HTTP/1.1\r\nHost: "+
			"localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		pause(ctx, 30*time.Second)
	})
}

// readers subscribe from the beginning, with a key that does not exist.
func readers(ctx context.Context, c *hosttest.Child) {
	again(ctx, 16, func(ctx context.Context) {
		conn := upgrade(ctx, c)
		if conn == nil {
			return
		}
		defer conn.Close()
		for n := range 64 {
			// Some filter by key, some by type: the former need the index, the latter the log.
			filter := []string{`"keys":["nobody"]`, `"types":["nothing"]`}[n%2]
			if err := conn.message(fmt.Sprintf(
				`{"op":"subscribe","id":"%d","service":"neighbour","from":"start",%s,"credits":1000}`,
				n, filter)); err != nil {
				return
			}
		}
		pause(ctx, time.Second) // once more, from the beginning
	})
}

// pages reads pages of events as fast as they come.
func pages(ctx context.Context, c *hosttest.Child) {
	again(ctx, 64, func(ctx context.Context) {
		for _, filter := range []string{"keys=nobody", "types=nothing", "limit=1000"} {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet,
				"http://"+c.Address+"/v1/services/neighbour/events?"+filter, nil)
			if err != nil {
				return
			}
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		}
	})
}

// growing is a module that becomes large when it is rewritten.
var growing = sync.OnceValue(func() []byte {
	var m testguest.Builder
	m.Memory(1, 1)
	code := slices.Concat(testguest.I32Const(0), slices.Repeat([]byte{0x40, 0}, 3<<20), testguest.Drop)
	for range 5 {
		m.Func(nil, nil, nil, code)
	}
	return m.Bytes()
})

func uploads(ctx context.Context, c *hosttest.Child) {
	module := growing()
	again(ctx, 4, func(ctx context.Context) {
		cl, err := c.Client()
		if err != nil {
			return
		}
		defer cl.Close()
		_, _ = cl.Upload(ctx, module, nil)
	})
}

// trickle sends modules a byte at a time.
func trickle(ctx context.Context, c *hosttest.Child) {
	again(ctx, 8, func(ctx context.Context) {
		conn := dial(ctx, c)
		if conn == nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "POST /v1/modules HTTP/1.1\r\nHost: localhost\r\nContent-Type: "+
			"application/wasm\r\nContent-Length: 30000000\r\n\r\n")
		for range 1000 {
			if _, err := conn.Write([]byte{0}); err != nil {
				return
			}
			pause(ctx, 100*time.Millisecond)
		}
	})
}

// idle opens connections and sends nothing.
func idle(ctx context.Context, c *hosttest.Child) {
	again(ctx, 4, func(ctx context.Context) {
		for range 500 {
			if dial(ctx, c) == nil {
				return
			}
		}
		pause(ctx, time.Hour)
	})
}

// longMessage is a message of 4 MB.
var longMessage = sync.OnceValue(func() []byte { return frame(string(make([]byte, 4_000_000))) })

// halfMessages sends messages of 4 MB short of one byte.
func halfMessages(ctx context.Context, c *hosttest.Child) {
	message := longMessage()
	again(ctx, 100, func(ctx context.Context) {
		conn := upgrade(ctx, c)
		if conn == nil {
			return
		}
		defer conn.Close()
		if _, err := conn.Write(message[:len(message)-1]); err != nil {
			return
		}
		pause(ctx, 30*time.Second)
	})
}
