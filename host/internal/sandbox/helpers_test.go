package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"go.uber.org/goleak"
)

// The test binary is also a compiler process: "compile" follows its name.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "compile" {
		os.Exit(compile.Serve(context.Background(), os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if usage := shared().budget.Usage(); code == 0 &&
			slices.ContainsFunc(usage, func(u service.ResourceUsage) bool { return u.Used != 0 }) {
			fmt.Fprintf(os.Stderr, "not everything was given back: %v\n", usage)
			code = 1
		}
		_ = os.RemoveAll(codeDir())
		os.Exit(code)
	}))
}

// codeDir keeps compiled code for the tests that share it, so that large modules are compiled once.
var codeDir = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "bulkhead-sandbox-")
	if err != nil {
		panic(err)
	}
	return dir
})

// shared is one runtime for all tests, so that its cache is used as in a host.
var shared = sync.OnceValue(func() *Runtime {
	r, err := NewRuntime(Options{})
	if err != nil {
		panic(err)
	}
	return r
})

func mustCompile(t testing.TB, module []byte, l service.Limits) *Program {
	t.Helper()
	p, err := shared().Compile(context.Background(), "", module, l, service.Settings{}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, detail(err))
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func instantiate(t testing.TB, p *Program, log Logger) *Instance {
	t.Helper()
	i, err := p.Instantiate(context.Background(), log)
	if err != nil {
		t.Fatalf("%v\n%s", err, detail(err))
	}
	t.Cleanup(func() { _ = i.Close(context.Background()) })
	return i
}

// nothingHeld checks that everything was given back to a runtime's budget.
func nothingHeld(t testing.TB, r *Runtime) {
	t.Helper()
	for _, u := range r.budget.Usage() {
		if u.Used != 0 {
			t.Errorf("%d of %s were not given back", u.Used, u.Resource)
		}
	}
}

func detail(err error) string {
	var e *service.Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return ""
}

// replyOf reads an outcome's reply as the journal does; clients need a receipt.
func replyOf(t testing.TB, o service.Outcome) string {
	t.Helper()
	c := o.Commit(&service.Command{}, 0)
	return string(c.Command.Reply)
}

// logSink keeps what guests log.
type logSink struct {
	mu    sync.Mutex
	lines []string
	bytes int
}

func (s *logSink) GuestLog(_ service.Name, _ service.About, level abi.LogLevel, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf("%d %s", level, text))
	s.bytes += len(text)
}

func (s *logSink) has(level abi.LogLevel, text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if strings.HasPrefix(l, fmt.Sprint(int(level), " ")) && strings.Contains(l, text) {
			return true
		}
	}
	return false
}
