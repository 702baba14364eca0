//go:build unix

package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A hangup, for example because the host's terminal is closed, ends nothing: it is logged, and the host stops
// only on request.
func TestAHangupEndsNothing(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	serve := exec.CommandContext(t.Context(), self, "serve", "--data", filepath.Join(t.TempDir(), "data"), "--listen",
		"127.0.0.1:0", "--log-format", "json")
	serve.Env = append(os.Environ(), asProgram+"=1")
	log, err := serve.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	for _, step := range []struct {
		line string
		then syscall.Signal
	}{{"the host serves", syscall.SIGHUP}, {"SIGHUP has no effect", syscall.SIGHUP},
		{"SIGHUP has no effect", syscall.SIGTERM}, {"the host has stopped", 0}} {
		for lines.Scan() && !strings.Contains(lines.Text(), step.line) {
		}
		if !strings.Contains(lines.Text(), step.line) {
			t.Fatalf("the log ends without %q, with %q", step.line, lines.Text())
		}
		if step.then != 0 {
			if err := serve.Process.Signal(step.then); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := serve.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}
