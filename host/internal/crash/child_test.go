package crash

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
	"sync"
	"syscall"
	"testing"
	"time"
)

// binaries are the real things, built once.
type binaries struct {
	bulkhead string
	bank     []byte // the module
	bankToo  []byte // the same service as another module, to deploy over it
}

var build = sync.OnceValues(func() (b binaries, err error) {
	dir, err := os.MkdirTemp("", "bulkhead-crash-")
	if err != nil {
		return b, err
	}
	buildDir = dir
	b.bulkhead = filepath.Join(dir, "bulkhead")
	if err := goBuild(nil, "-o", b.bulkhead, "./host/cmd/bulkhead"); err != nil {
		return b, err
	}
	module := filepath.Join(dir, "bank.wasm")
	wasip1 := []string{"GOOS=wasip1", "GOARCH=wasm"}
	for flags, to := range map[string]*[]byte{"-s -w": &b.bank, "-w": &b.bankToo} {
		if err := goBuild(wasip1, "-buildmode=c-shared", "-ldflags="+flags, "-o", module, "./plugins/bank/wasm"); err != nil {
			return b, err
		}
		if *to, err = os.ReadFile(module); err != nil {
			return b, err
		}
	}
	return b, nil
})

// buildDir holds what was built; TestMain removes it.
var buildDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

func goBuild(env []string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Dir = "../../.."
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %v: %w\n%s", args, err, out)
	}
	return nil
}

// patience bounds what a test waits for. It is only ever reached by a bug.
const patience = 5 * time.Minute

// child is one running host.
type child struct {
	cmd     *exec.Cmd
	address string
	log     *lastLines
	exited  chan struct{} // closed when the process is gone
	err     error         // of the process, once exited is closed
}

// start runs a host on dir and waits until it serves. With a kill delay it is
// killed that long after its birth, whatever it is doing then; start returns
// without a child if that came first.
func start(t *testing.T, bulkhead, dir string, killAfter time.Duration) *child {
	t.Helper()
	c := &child{cmd: exec.Command(bulkhead, "serve", "--json", "--data", dir, "--listen", "127.0.0.1:0"), log: &lastLines{}, exited: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), "HOME="+dir, "BULKHEAD_LIMIT_COMPILE_TIME=10m") // it may have the machine for others
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stderr = c.log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if killAfter > 0 {
		defer time.AfterFunc(killAfter, c.signal(syscall.SIGKILL)).Stop()
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
		close(c.exited)
	}()
	t.Cleanup(func() { c.kill() })
	select {
	case c.address = <-serving:
		return c
	case <-c.exited:
		if killAfter > 0 {
			return nil
		}
		t.Fatalf("the host ended while it started: %v\n%s", c.err, c.log)
	case <-time.After(patience):
		t.Fatalf("the host does not serve\n%s", c.log)
	}
	return nil
}

func (c *child) signal(s syscall.Signal) func() { return func() { _ = c.cmd.Process.Signal(s) } }

// kill ends the process at once and waits until it is gone.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)()
	<-c.exited
}

// stop asks the process to end and waits for that.
func (c *child) stop(t *testing.T) {
	t.Helper()
	c.signal(syscall.SIGTERM)()
	select {
	case <-c.exited:
		if c.err != nil {
			t.Errorf("asked to stop, the host ended with %v\n%s", c.err, c.log)
		}
	case <-time.After(patience):
		c.signal(syscall.SIGQUIT)() // its stacks go to the log
		<-c.exited
		t.Fatalf("asked to stop, the host did not\n%s", c.log)
	}
}

// verify runs `bulkhead journal verify` on a directory that no host has open.
func verify(bulkhead, dir string) error {
	out, err := exec.Command(bulkhead, "journal", "verify", "--data", dir).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("journal verify ends with code %d: %s", exit.ExitCode(), out)
	}
	return err
}

// lastLines keeps the end of what a process logs.
type lastLines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lastLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 64<<10 {
		l.buf.Next(l.buf.Len() - 32<<10)
	}
	return l.buf.Write(b)
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
