package host_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// BenchmarkWorstUploads uploads modules of close to 32 MiB that are made to need much memory and time, over
// HTTP, beside a neighbour that sends one command after the other. It reports the maximum growth of this
// process without the neighbour, and the neighbour's latency.
func BenchmarkWorstUploads(b *testing.B) {
	const size = 32<<20 - 64<<10
	data := func() []byte { // which is accepted
		return testguest.Liar{With: func(m *testguest.Builder) { m.Passive(bytes.Repeat([]byte{1}, size)) }}.Bytes()
	}
	functions := func() []byte {
		return testguest.Liar{With: func(m *testguest.Builder) {
			for range 90_000 {
				m.Func(nil, nil, nil, bytes.Repeat([]byte{1}, size/90_000-16)) // nop
			}
		}}.Bytes()
	}
	modules := map[string]func() []byte{"data": data, "functions": functions}
	for n, g := range testguest.Growers(8 << 10) {
		// One at a time, as this process is measured.
		modules[g.Name] = func() []byte { return testguest.Growers(size)[n].Module }
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) { worstUpload(b, modules[name]()) })
	}
}

func worstUpload(b *testing.B, module []byte) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	h := hosttest.New(b, func(o *host.Options) {
		o.Compiler = []string{self, "compile"}
		o.Limits.CompileTime = service.DefaultLimits().CompileTime
	})
	h.MustDeploy("tally", testguest.Counter("tally"))
	s, err := gateway.New(h.Host, gateway.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	transport := &http.Transport{}
	defer func() {
		transport.CloseIdleConnections()
		if err := s.Stop(context.WithoutCancel(b.Context())); err != nil {
			b.Error(err)
		}
	}()
	client := http.Client{Transport: transport}
	post := func(path, contentType string, body io.Reader) (int, string) {
		resp, err := client.Post(s.URL()+path, contentType, body)
		if err != nil {
			b.Error(err)
			return 0, ""
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			b.Error(err)
		}
		return resp.StatusCode, string(text)
	}
	command := func() { post("/v1/services/tally/entities/a/commands/add", "application/json", strings.NewReader("")) }
	for range 100 {
		command()
	}
	alone := latencies(func(n int) bool { return n < 500 }, command)

	var grown int64
	var beside []time.Duration
	var status int
	var answer string
	for n := range b.N {
		// First without the neighbour, for the memory, as its commands take some, too. Each is another
		// module; otherwise it would be stored already.
		for k, neighbour := range []func(){resident1ms, command} {
			m := variant(module, 2*n+k)
			debug.FreeOSMemory()
			before := resident()
			var over atomic.Bool
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer over.Store(true)
				status, answer = post("/v1/modules", "application/wasm", bytes.NewReader(m))
			}()
			all := latencies(func(int) bool {
				if k == 0 {
					grown = max(grown, resident()-before)
				}
				return !over.Load()
			}, neighbour)
			<-done
			if k == 1 {
				beside = append(beside, all...)
			}
		}
	}
	slices.Sort(beside)
	b.ReportMetric(float64(grown)/(1<<20), "MiB-grown")
	b.ReportMetric(float64(alone[len(alone)*99/100])/1e6, "alone-p99-ms")
	b.ReportMetric(float64(beside[len(beside)*99/100])/1e6, "beside-p99-ms")
	b.ReportMetric(float64(beside[len(beside)-1])/1e6, "beside-max-ms")
	b.Logf("%d bytes: %d %.300s", len(module), status, answer)
}

// resident1ms waits a millisecond between two measurements.
func resident1ms() { time.Sleep(time.Millisecond) }

// variant is a module with another digest: it has one more custom section.
func variant(module []byte, n int) []byte {
	return append(module[:len(module):len(module)], 0, 4, 1, 'n', byte(n), byte(n>>8))
}

// latencies are the sorted latencies of an action that is repeated while more returns true.
func latencies(more func(n int) bool, action func()) []time.Duration {
	var all []time.Duration
	for more(len(all)) || len(all) == 0 {
		start := time.Now()
		action()
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	return all
}

// resident is the memory of this process that is not a mapped file, in bytes; 0 where the system does not
// tell. The journal maps its files, which grow with every command.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kilobytes); n == 1 {
			return kilobytes << 10
		}
	}
	return 0
}
