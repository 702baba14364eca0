package hosttest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// Environment of a host in another process, with few descriptors.
const (
	fewDir   = "BULKHEAD_FEW_DIR"
	fewLimit = "BULKHEAD_FEW_LIMIT"
)

// TestServeWithFewDescriptors is that process. It serves until its standard input ends, and then reports
// whether the journal is whole.
func TestServeWithFewDescriptors(t *testing.T) {
	dir := os.Getenv(fewDir)
	if dir == "" {
		t.Skip("this is run by other tests, as a process of its own")
	}
	limit, err := strconv.ParseUint(os.Getenv(fewLimit), 10, 64)
	if err == nil {
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: limit})
	}
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	h, err := host.Open(t.Context(), host.Options{Dir: dir, Logger: logger})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	s, err := gateway.New(h, gateway.Options{Listen: "127.0.0.1:0", Logger: logger})
	if err == nil {
		err = s.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\nserving %s\n", s.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = s.Stop(ctx) // streams are cut off
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	fmt.Println("stopped")
}

// few is such a process.
type few struct {
	t     testing.TB
	dir   string
	cmd   *exec.Cmd
	in    io.Closer
	out   *bufio.Scanner
	log   bytes.Buffer // read when it has ended
	limit int
	url   string
}

func startFew(t testing.TB, limit int) *few {
	t.Helper()
	f := &few{t: t, dir: t.TempDir(), limit: limit}
	f.cmd = exec.Command(os.Args[0], "-test.run", "^TestServeWithFewDescriptors$", "-test.v")
	f.cmd.Env = append(os.Environ(), fewDir+"="+f.dir, fewLimit+"="+strconv.Itoa(limit))
	f.cmd.Stderr = &f.log
	in, err := f.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f.in, f.out = in, bufio.NewScanner(out)
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill() // it has usually ended
		_ = f.cmd.Wait()
	})
	var said []string
	for f.out.Scan() {
		if url, ok := strings.CutPrefix(f.out.Text(), "serving "); ok {
			f.url = url
			return f
		}
		said = append(said, f.out.Text())
	}
	t.Fatalf("it does not serve: %s", strings.Join(said, "\n"))
	return nil
}

// open counts its descriptors.
func (f *few) open() int {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", f.cmd.Process.Pid))
	if err != nil {
		f.t.Fatal(err)
	}
	return len(all)
}

// stop ends it regularly. It checks that the process's journal has never failed, and verifies the journal.
func (f *few) stop() {
	f.t.Helper()
	_ = f.in.Close()
	stopped := false
	for f.out.Scan() {
		stopped = stopped || f.out.Text() == "stopped"
	}
	if err := f.cmd.Wait(); err != nil || !stopped {
		f.t.Errorf("it did not stop: %v\n%s", err, f.log.String())
	}
	for _, word := range []string{"too many open files", "the journal failed"} {
		if strings.Contains(f.log.String(), word) {
			f.t.Errorf("its log has %q:\n%s", word, f.log.String())
		}
	}
	opened, err := storage.Open(host.JournalDir(f.dir), storage.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	report, err := verify.Run(context.Background(), opened, verify.Options{})
	if err := errors.Join(err, opened.Close()); err != nil || report.Found > 0 {
		f.t.Errorf("the journal: %v, %v", report.Problems, err)
	}
}

func (f *few) client() *client.Client {
	f.t.Helper()
	c, err := client.New(client.Options{URL: f.url})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

// There are 128 descriptors and more connections than that, and closing idle ones does not help. Still the
// journal has what it needs: commands are carried out or refused by name.
func TestFewDescriptorsAreTheJournals(t *testing.T) {
	t.Parallel()
	prove.SkipShort(t, "it starts a whole host")
	f := startFew(t, 128)
	c := f.client()
	if _, err := c.Deploy(t.Context(),
		service.Deployment{Service: "tally", Module: testguest.Counter("tally")}); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(f.url, "http://"), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%4 != 0 { // the others send nothing
			_, _ = io.WriteString(conn, "GET /v1/services/tally/events HTTP/1.1\r\nHost: localhost\r\nAccept: "+
				"text/event-stream\r\n\r\n")
		}
	}
	noise := make([]byte, 400_000)
	_, _ = rand.Read(noise)
	data := fmt.Appendf(nil, "%q", fmt.Sprintf("%x", noise))
	done := 0
	for i := range 100 {
		_, err := c.Send(t.Context(), service.Command{Service: "tally", Key: "a", Type: "add", Data: data,
			ID: service.CommandID(fmt.Sprint("c", i))})
		switch kind := service.KindOf(err); {
		case err == nil:
			done++
		case kind == service.KindOverloaded: // by name
		case kind == service.KindUnknown: // its connection was idle, and made room
		default:
			t.Errorf("command %d: %v", i, err)
		}
		if n := f.open(); n > f.limit-4 {
			t.Errorf("%d descriptors are open of %d", n, f.limit)
		}
	}
	if done < 50 {
		t.Errorf("%d commands of 100 were carried out", done)
	}
	if err := c.Ready(t.Context()); err != nil {
		t.Errorf("it is not ready: %v", err)
	}
	f.stop()
}

// A process with fewer descriptors than a host needs gets an error with the numbers.
func TestTooFewDescriptors(t *testing.T) {
	_, err := host.Open(t.Context(), host.Options{Dir: t.TempDir(), Budget: service.Budget{Descriptors: 60}})
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindInvalid || e.Resource != "descriptors" || e.Limit != 60 ||
		e.Used <= 60 || !strings.Contains(e.Message, "ulimit -n") {
		t.Errorf("with 60 descriptors: %v", err)
	}
}

// If other code in the process has taken all descriptors, a failed journal is still opened again: the host
// has a reserve.
func TestSpareDescriptors(t *testing.T) {
	dir := os.Getenv(fewDir)
	if dir == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestSpareDescriptors$")
		cmd.Env = append(os.Environ(), fewDir+"="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 160, Max: 160}); err != nil {
		t.Fatal(err)
	}
	var faulty *journaltest.Faulty
	var opened []error
	var hog []*os.File
	free := func() { // leaves none
		for {
			f, err := os.Open(os.DevNull)
			if err != nil {
				return
			}
			hog = append(hog, f)
		}
	}
	h, err := host.Open(t.Context(), host.Options{
		Dir: dir, Logger: slog.New(slog.DiscardHandler), RecoveryWait: time.Millisecond,
		OpenStorage: func() (journal.Storage, error) {
			s, err := storage.Open(host.JournalDir(dir), storage.Options{})
			opened = append(opened, err)
			faulty = &journaltest.Faulty{}
			return faulty.Wrap(s), err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Deploy(t.Context(),
		service.Deployment{Service: "tally", Module: testguest.Counter("tally")}); err != nil {
		t.Fatal(err)
	}
	send := func(id string) error {
		_, err := h.Send(t.Context(), service.Command{Service: "tally", Key: "a", Type: "add",
			ID: service.CommandID(id)})
		return err
	}
	if err := send("c1"); err != nil {
		t.Fatal(err)
	}
	free()
	faulty.FailAt(1)
	if err := send(""); service.KindOf(err) != service.KindUnknown { // the log is not read for it
		t.Fatalf("while the journal fails: %v", err)
	}
	patience, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for again := true; again; {
		switch err := send("c2"); {
		case err == nil:
			again = false
		case service.KindOf(err) != service.KindUnavailable || patience.Err() != nil:
			t.Fatalf("after it failed: %v; it was opened with %v", err, opened)
		}
	}
	if len(opened) != 2 || opened[1] != nil {
		t.Errorf("the journal was opened with %v", opened)
	}
	for _, f := range hog {
		_ = f.Close()
	}
	if err := h.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
