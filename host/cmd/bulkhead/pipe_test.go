//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// Log and standard output of a host go to a pipe that nobody reads, or whose reader has gone. The host still
// answers, counts what it cannot write, and stops on request.
func TestALogThatNobodyReads(t *testing.T) {
	prove.SkipShort(t, "it runs the program")
	for _, gone := range []bool{false, true} {
		t.Run(map[bool]string{false: "full", true: "gone"}[gone], func(t *testing.T) {
			dir, address := t.TempDir(), hosttest.Address(t)
			t.Setenv("BULKHEAD_HOST", "http://"+address)
			t.Setenv("BULKHEAD_LIMIT_COMPILE_TIME", "10m")
			module := filepath.Join(dir, "vandal.wasm")
			if err := os.WriteFile(module, testguest.Vandal("vandal", false), 0o600); err != nil {
				t.Fatal(err)
			}
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			serve := exec.CommandContext(context.Background(), self, "serve", "--data", filepath.Join(dir, "data"),
				"--listen", address, "--log-rate", "0", "--log-buffer", "16KiB")
			serve.Env = append(os.Environ(), asProgram+"=1")
			serve.Stdout, serve.Stderr = write, write
			if err := serve.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = serve.Process.Kill() }() // if the test fails
			write.Close()
			if gone {
				read.Close()
			}
			cliRun(t, exitOK, "services", "list", "--wait", "1m")
			cliRun(t, exitOK, "deploy", module)
			for droppedLines(t, address) == 0 { // the pipe and the host buffer a bounded amount
				cliRun(t, exitFailure, "send", "vandal/a", "trap")
			}
			for range 3 {
				cliRun(t, exitOK, "send", "vandal/a", "c")
				cliRun(t, exitFailure, "send", "vandal/a", "trap")
			}
			if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := serve.Wait(); err != nil {
				t.Errorf("it ends with %v", err)
			}
			if !gone {
				text, err := io.ReadAll(read)
				if err != nil || !strings.Contains(string(text), "Bulkhead serves on") {
					t.Errorf("the pipe has %.300q, %v", text, err)
				}
			}
		})
	}
}

// droppedLines is the value of the metric.
func droppedLines(t *testing.T, address string) (n float64) {
	t.Helper()
	r, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	found := false
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "bulkhead_log_lines_dropped_total "); ok {
			found = true
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found {
		t.Fatal("there is no metric of lines that were dropped")
	}
	return n
}
