package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// crowds are clients that read the log of a service, by the name of their benchmark: the number of
// connections, and what each does.
var crowds = map[string]struct {
	connections int
	read        func(address string) (net.Conn, error) // reads forever, or
	page        string                                 // is requested again and again
}{
	// All subscribers of a service resume after a restart.
	"resume-sse": {connections: 1000, read: func(address string) (net.Conn, error) {
		return ask(address, "GET /v1/services/crowd/events?from=start HTTP/1.1\r\nHost: localhost\r\nAccept: "+
			"text/event-stream\r\n\r\n")
	}},
	"resume-websocket": {connections: 16, read: subscriptions(64, `"from":"start"`)},
	// Subscribers whose filter matches nothing.
	"nobody": {connections: 16, read: subscriptions(64, `"from":"start","keys":["nobody"]`)},
	"never":  {connections: 16, read: subscriptions(64, `"from":"start","types":["never"]`)},
	// Each connection has a different one, so that nothing is shared.
	"nobodies":     {connections: 16, read: subscriptions(64, `"from":"start","keys":["nobody-%d","nobody"]`)},
	"pages":        {connections: 128, page: "/v1/services/crowd/events?limit=1000&from="},
	"pages-keys":   {connections: 128, page: "/v1/services/crowd/events?limit=1000&keys=nobody&from="},
	"pages-entity": {connections: 128, page: "/v1/services/crowd/entities/key7/events?limit=1000&after="},
	"backups":      {connections: 2, page: "/v1/backup"},
}

// ask sends a request, and returns the connection with the answer.
func ask(address, request string) (net.Conn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, request); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// subscriptions opens a WebSocket with a number of them.
func subscriptions(n int, from string) func(string) (net.Conn, error) {
	var connections atomic.Int64
	return func(address string) (net.Conn, error) {
		connection := connections.Add(1)
		conn, err := ask(address, "GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: "+
			"websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if err != nil {
			return nil, err
		}
		// The server must have agreed before anything is sent.
		var answer []byte
		for one := make([]byte, 1); !bytes.HasSuffix(answer, []byte("\r\n\r\n")); answer = append(answer, one...) {
			if _, err := conn.Read(one); err != nil {
				return nil, err
			}
		}
		var b bytes.Buffer
		for i := range n {
			where := from
			if strings.Contains(from, "%d") {
				where = fmt.Sprintf(from, connection*int64(n)+int64(i))
			}
			text := fmt.Sprintf(`{"op":"subscribe","id":"s%d","service":"crowd","credits":1000000,%s}`, i, where)
			if len(text) > 125 {
				return nil, fmt.Errorf("%s is too long", text)
			}
			b.Write([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}) // one short frame, masked with zeros
			b.WriteString(text)
		}
		_, err = conn.Write(b.Bytes())
		return conn, err
	}
}

// crowdVariable makes the test program a crowd: it has the crowd's name and the host's address.
const crowdVariable = "BULKHEAD_TEST_CROWD"

// beCrowd is the main function of a crowd. It runs in another process, so that it does not disturb the host's
// goroutines. It reports when all connections are open, reads until its input ends, and reports the number of
// bytes.
func beCrowd(name, address string) error {
	crowd := crowds[name]
	var read atomic.Int64
	var all, there sync.WaitGroup
	failed := make(chan error, crowd.connections)
	ended := make(chan struct{})
	for range crowd.connections {
		there.Add(1)
		all.Go(func() {
			if crowd.page != "" {
				there.Done()
				readPages(address, crowd.page, &read, ended)
				return
			}
			conn, err := crowd.read(address)
			there.Done()
			if err != nil {
				failed <- err
				return
			}
			defer conn.Close()
			go func() { <-ended; conn.Close() }()
			buf := make([]byte, 256<<10)
			for {
				n, err := conn.Read(buf)
				if read.Add(int64(n)); err == nil {
					continue
				}
				select {
				case <-ended:
				default:
					failed <- fmt.Errorf("a connection ended: %w", err)
				}
				return
			}
		})
	}
	there.Wait()
	fmt.Println("there")
	_, _ = io.Copy(io.Discard, os.Stdin)
	close(ended)
	all.Wait()
	fmt.Println(read.Load())
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func readPages(address, page string, read *atomic.Int64, ended <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { <-ended; cancel() }()
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	for ctx.Err() == nil {
		method := http.MethodGet
		if strings.HasSuffix(page, "backup") {
			method = http.MethodPost
		}
		r, err := http.NewRequestWithContext(ctx, method, "http://"+address+page, nil)
		if err != nil {
			panic(err) // the text is constant
		}
		answer, err := c.Do(r)
		if err != nil {
			continue
		}
		n, _ := io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		read.Add(n)
	}
}

// startCrowd runs a crowd, and returns when all its connections are open. leave ends it.
func startCrowd(b *testing.B, name, address string) (leave func() (read int64)) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crowdVariable+"="+name+" "+address)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "there" {
		b.Errorf("the crowd did not come: %s", lines.Text())
	}
	return func() (read int64) {
		in.Close()
		if lines.Scan() {
			read, _ = strconv.ParseInt(lines.Text(), 10, 64)
		}
		if err := cmd.Wait(); err != nil {
			b.Errorf("the crowd: %v", err)
		}
		return read
	}
}

// crowdEvents is the number of events of the service that is read.
const crowdEvents = 100_000

// BenchmarkReaders measures how long commands of one service take while a crowd reads another service's log
// of 100,000 events. The host was just started, so no events are in memory. Commands come over HTTP at 200
// per second, and their time counts from when they were due. runnable is the average number of goroutines
// that wait for a processor; it distinguishes the host's own work from a busy machine.
func BenchmarkReaders(b *testing.B) {
	h := hosttest.New(b)
	h.MustDeploy("crowd", testguest.Counter("crowd"))
	h.MustDeploy("neighbour", testguest.Counter("neighbour"))
	var all sync.WaitGroup
	places := make(chan struct{}, 512)
	for i := range crowdEvents {
		all.Add(1)
		places <- struct{}{}
		err := h.SendAsync(service.Command{Service: "crowd", Key: service.Key(fmt.Sprint("key", i%100)), Type: "add"},
			func(_ service.Reply, err error) {
				if err != nil {
					b.Error(err)
				}
				<-places
				all.Done()
			})
		if err != nil {
			b.Fatal(err)
		}
	}
	all.Wait()
	names := []string{"alone"}
	for name := range crowds {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				h.Restart()
				benchReaders(b, h.Host, name)
			}
		})
	}
}

func benchReaders(b *testing.B, h *host.Host, name string) {
	const rate, commands, warm = 200, 1600, 200
	s, c := serve(b, h, "127.0.0.1:0")
	leave := func() int64 { return 0 }
	if name != "alone" {
		leave = startCrowd(b, name, s.Addr().String())
	}
	runnable := []metrics.Sample{{Name: "/sched/goroutines/runnable:goroutines"}}
	var waiting float64
	took := make([]time.Duration, commands+warm)
	var all sync.WaitGroup
	start := time.Now()
	for i := range took {
		due := start.Add(time.Duration(i) * time.Second / rate)
		time.Sleep(time.Until(due))
		metrics.Read(runnable)
		waiting += float64(runnable[0].Value.Uint64())
		all.Go(func() {
			if err := neighbour(c, i); err != nil {
				b.Error(err)
			}
			took[i] = time.Since(due)
		})
	}
	all.Wait()
	elapsed := time.Since(start)
	readers := h.Readers()
	read := leave()
	took = took[warm:]
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(took[commands/2]), "ms-p50")
	b.ReportMetric(ms(took[commands*99/100]), "ms-p99")
	b.ReportMetric(ms(took[commands-1]), "ms-max")
	b.ReportMetric(float64(read)/1e6/elapsed.Seconds(), "read-MB/s")
	b.ReportMetric(waiting/float64(len(took)), "runnable")
	b.ReportMetric(float64(readers.Turns)/elapsed.Seconds(), "turns/s")
}

func neighbour(c *client.Client, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := c.Send(ctx, service.Command{Service: "neighbour", Key: service.Key(fmt.Sprint("key", n%50)), Type: "add"})
	return err
}
