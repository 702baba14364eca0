package sandbox

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// goGuest compiles testdata/goguest once, bankGuest the bank.
var (
	goGuest   = sync.OnceValues(func() ([]byte, error) { return buildGuest("./testdata/goguest") })
	bankGuest = sync.OnceValues(func() ([]byte, error) { return buildGuest("../../../plugins/bank/wasm") })
)

func buildGuest(dirOfGuest string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "goguest")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, dirOfGuest)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, &exec.Error{Name: string(out), Err: err}
	}
	return os.ReadFile(file)
}

// inTime are limits under which a Go guest compiles on a busy machine, under the race detector.
var inTime = service.Limits{CompileTime: 10 * time.Minute}

// goProgram is the program of goGuest, with much time to compile.
func goProgram(t testing.TB, l service.Limits) *Program {
	t.Helper()
	l.CompileTime = inTime.CompileTime
	module, err := goGuest()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newRuntime(t, Options{CacheDir: codeDir()}).Compile(t.Context(), "", module, l, service.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

func TestGoGuest(t *testing.T) {
	prove.SkipShort(t, "it builds and compiles a Go guest")
	ctx := t.Context()
	p := goProgram(t, service.Limits{MemoryBytes: 16 << 20, CallTime: time.Minute})
	types := map[string]uint16{}
	for n, c := range p.Module().Manifest.Commands {
		types[c.Name] = uint16(n)
	}
	logs := &logSink{}
	i := instantiate(t, p, logs)
	at := journal.UnixNano(1_700_000_000_000_000_000)
	run := func(t *testing.T, name string, data string) (string, error) {
		t.Helper()
		o, err := i.Handle(ctx, service.GuestCall{Slot: 1, Type: types[name], ID: "id", Time: at, Seed: [16]byte{7},
			Data: []byte(data)})
		if err != nil {
			if service.KindOf(err) != service.KindFault {
				if e := i.Reset(ctx); e != nil {
					t.Fatal(e)
				}
			}
			return "", err
		}
		return replyOf(t, o), nil
	}
	for _, c := range []struct{ name, data, want string }{
		{"echo", `{"a":1}`, `{"a":1}`},
		{"now", "", "1700000000000000000"},
		{"sleep", "", "8760"},
		{"environment", "", `"1 0 true"`}, // Go makes an empty program name if there are no arguments
		{"print", "", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := run(t, c.name, c.data)
			if err != nil {
				t.Fatalf("%v\n%s", err, detail(err))
			}
			if c.name == "environment" && strings.HasSuffix(got, ` 0 true"`) {
				return
			}
			if got != c.want {
				t.Fatalf("got %s, want %s", got, c.want)
			}
		})
	}
	if !logs.has(abi.LogInfo, "to stdout") || !logs.has(abi.LogWarn, "to stderr") {
		t.Errorf("prints are missing in the log: %v", logs.lines)
	}
	first, err := run(t, "random", "")
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := run(t, "random", ""); again != first {
		t.Errorf("the same command saw %s and then %s as random", first, again)
	}
	for _, c := range []struct {
		name string
		kind service.Kind
		want string
	}{
		{"panic", service.KindTrap, "panic: boom"},
		{"nilmap", service.KindTrap, "assignment to entry in nil map"},
		{"exit", service.KindGuestExit, "proc_exit(3)"},
		{"memory", service.KindGuestMemory, "memory limit of 16777216 bytes"},
		{"recurse", service.KindGuestStack, "limit of 1048576 bytes"},
		{"spin", service.KindGuestFuel, "500000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := run(t, c.name, "")
			if service.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %v with %q", err, c.kind, c.want)
			}
			if got, err := run(t, "echo", "2"); err != nil || got != "2" {
				t.Fatalf("the next command: %s, %v", got, err)
			}
		})
	}
}
