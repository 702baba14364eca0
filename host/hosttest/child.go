package hosttest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// buildDir holds what tests have built; see [RemoveBuilt].
var buildDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "bulkhead-test-") })

// Program is the real program, built once for all tests of a process.
var Program = sync.OnceValues(func() (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "bulkhead")
	return file, GoBuild(nil, "-o", file, "./host/cmd/bulkhead")
})

// BuiltModule builds a guest of the project, such as ./plugins/bank/wasm.
func BuiltModule(pkg, ldflags string) ([]byte, error) {
	dir, err := buildDir()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "module.wasm")
	if err := GoBuild([]string{"GOOS=wasip1", "GOARCH=wasm"}, "-buildmode=c-shared", "-ldflags="+ldflags, "-o", file,
		pkg); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// GoBuild runs go build at the root of the tree.
func GoBuild(env []string, args ...string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %v: %w\n%s", args, err, out)
	}
	return nil
}

// moduleRoot is the directory of go.mod; tests run in the directory of their package.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	return string(bytes.TrimSpace(out)), err
}

// RemoveBuilt removes what was built. TestMain calls it at the end.
func RemoveBuilt() {
	if dir, err := buildDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
}

// ChildOptions say how to start a program.
type ChildOptions struct {
	Program string        // see [Program]
	Dir     string        // of its data
	Args    []string      // of serve, beside those of every child
	Env     []string      // beside that of the test
	Wrap    []string      // a command that runs the rest of its command line
	Files   int           // limit of open files; 0: the test's own
	Kill    time.Duration // kill it this long after its start; 0: never
}

// Child is a running program that serves a directory.
type Child struct {
	Address string
	Log     *LastLines
	Exited  chan struct{} // closed when the process has ended

	cmd *exec.Cmd
	err error // of the process, after Exited is closed
}

// StartChild runs a host and waits until it serves. With Kill it returns nil if the process was killed first.
// The process ends with the test at the latest.
func StartChild(t testing.TB, o ChildOptions) *Child {
	t.Helper()
	prove.SkipShort(t, "it starts the program")
	c := &Child{Log: &LastLines{}, Exited: make(chan struct{})}
	args := append([]string{o.Program, "serve", "--json", "--data", o.Dir, "--listen", "127.0.0.1:0"}, o.Args...)
	if o.Files > 0 {
		args = append([]string{"sh", "-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(o.Files)}, args...)
	}
	args = append(slices.Clone(o.Wrap), args...)
	c.cmd = exec.Command(args[0], args[1:]...)
	// the child may wait long for the machine
	c.cmd.Env = append(append(os.Environ(), "HOME="+o.Dir, "BULKHEAD_LIMIT_COMPILE_TIME=10m",
		"BULKHEAD_COMPILE_BASE=10m"), o.Env...)
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stderr = c.Log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if o.Kill > 0 {
		defer time.AfterFunc(o.Kill, func() { c.Signal(syscall.SIGKILL) }).Stop()
	}
	serving := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var said struct{ Event, Address string }
			if json.Unmarshal(lines.Bytes(), &said) == nil && said.Event == "serving" {
				serving <- said.Address
				break
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		c.err = c.cmd.Wait()
		close(c.Exited)
	}()
	t.Cleanup(c.Kill)
	select {
	case c.Address = <-serving:
		return c
	case <-c.Exited:
		if o.Kill > 0 {
			return nil
		}
		t.Fatalf("the host ended while it started: %v\n%s", c.err, c.Log)
	case <-time.After(patience):
		t.Fatalf("the host does not serve\n%s", c.Log)
	}
	return nil
}

// PID is the id of the process.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Signal sends a signal; it does nothing if the process has ended.
func (c *Child) Signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) }

// Kill kills the process and waits for its end.
func (c *Child) Kill() {
	c.Signal(syscall.SIGKILL)
	<-c.Exited
}

// Stop asks the process to end, and waits for that.
func (c *Child) Stop(t testing.TB) {
	t.Helper()
	c.Signal(syscall.SIGTERM)
	select {
	case <-c.Exited:
		if c.err != nil {
			t.Errorf("asked to stop, the host ended with %v\n%s", c.err, c.Log)
		}
	case <-time.After(patience):
		c.Signal(syscall.SIGQUIT) // writes its stacks to the log
		<-c.Exited
		t.Fatalf("asked to stop, the host did not\n%s", c.Log)
	}
}

// Client is a client of the host. It tries a failed request once more, immediately.
func (c *Child) Client() (*client.Client, error) {
	return client.New(client.Options{URL: "http://" + c.Address, Retries: 1, Backoff: time.Millisecond})
}

// VerifyJournal runs `bulkhead journal verify` on a directory that no host has open.
func VerifyJournal(program, dir string) error {
	out, err := exec.Command(program, "journal", "verify", "--data", dir).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("journal verify ends with code %d: %s", exit.ExitCode(), out)
	}
	return err
}

// LastLines keeps the end of a process's log. It is safe for concurrent use.
type LastLines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *LastLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 64<<10 {
		l.buf.Next(l.buf.Len() - 32<<10)
	}
	return l.buf.Write(b)
}

// String is the text that was kept.
func (l *LastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
