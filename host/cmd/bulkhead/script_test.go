package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// asProgram is the variable that makes the test binary act as the program.
const asProgram = "BULKHEADTEST_PROGRAM"

func TestMain(m *testing.M) {
	// by a host within a test, or by a test
	if len(os.Args) > 1 && os.Args[1] == compileModule || os.Getenv(asProgram) != "" {
		main()
	}
	testscript.Main(m, map[string]func(){"bulkhead": func() { main() }})
}

// TestScripts runs the program as its users do; see testdata/script.
func TestScripts(t *testing.T) {
	prove.SkipShort(t, "it runs the program")
	guests := buildGuests(t)
	code := compileBank(t, guests)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			address := hosttest.Address(t)
			env.Setenv("GUESTS", guests)
			for name, weak := range map[string]testguest.Weaknesses{"tally.wasm": {}, "next.wasm": {},
				"weak.wasm": {FaultAt: 2}, "double.wasm": {Step: 2}} {
				m := testguest.CounterManifest("tally")
				m.Version = name
				module := testguest.CounterOf(m.AppendJSON(nil), weak, nil)
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), module, 0o600); err != nil {
					return err
				}
			}
			env.Setenv("ADDRESS", address)
			env.Setenv("BULKHEAD_LISTEN", address)
			env.Setenv("BULKHEAD_LIMIT_COMPILE_TIME", "10m") // under the race detector, beside other tests
			env.Setenv("BULKHEAD_HOST", "http://"+address)
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "race" {
				return false, fmt.Errorf("there is no condition %s", name)
			}
			return raced.Enabled, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "remember": remember,
			"compiled": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: compiled data-directory")
				}
				ts.Check(copyPrivately(filepath.Join(ts.MkAbs(args[0]), "cache"), code))
			}},
	})
}

// compileBank makes a host compile the bank, and returns the directory with the code. Scripts about something
// else copy it into their hosts' directories with the command "compiled", as compiling takes half a minute
// under the race detector.
func compileBank(t *testing.T, guests string) string {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	module, err := os.ReadFile(filepath.Join(guests, "bank.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.Open(ctx, host.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler),
		Limits: service.Limits{CompileTime: 10 * time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Upload(ctx, module, nil)
	if err = errors.Join(err, h.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "cache")
}

// copyPrivately copies a directory to one that only its owner can enter.
func copyPrivately(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
}

// exits runs a program that must end with an exit code: exits 3 bulkhead send ...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("it ended with exit code %d, want %d", got, want)
	}
}

// remember sets a variable to what an expression finds in the last standard output: remember ID '"id":"([^"]+)"'
func remember(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: remember VARIABLE expression")
	}
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("%s is not in the output", args[1])
	}
	ts.Setenv(args[0], found[1])
}

// buildGuests compiles modules of plugins.
func buildGuests(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"bank", "counter"} {
		cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o",
			filepath.Join(dir, name+".wasm"), "./plugins/"+name+"/wasm")
		cmd.Dir = "../../.."
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	return dir
}

// The program without a process: it starts on a temporary directory and port 0, stops in stages on request,
// and closing it again does nothing.
func TestProgramStopsInStages(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code := make(chan int, 1)
	go func() {
		code <- Main(ctx, []string{"serve", "--json", "--data", dir, "--listen", "127.0.0.1:0"}, strings.NewReader(""),
			in, in)
		in.Close()
	}()
	lines := bufio.NewScanner(out)
	for _, want := range []string{"serving", "stopping", "stopping"} {
		var line served
		for line.Event == "" && lines.Scan() { // the log goes to the same place
			_ = json.Unmarshal(lines.Bytes(), &line)
		}
		if line.Event != want {
			t.Fatalf("it says %+v, want %s", line, want)
		}
		cancel()
	}
	for lines.Scan() {
	}
	if c := <-code; c != exitOK {
		t.Errorf("it ends with %d", c)
	}
}
