package compartment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

func init() { works["kernel facts"], works["use and die"], parent = kernelFacts, useAndDie, runParent }

// useAndDie uses the processor for as long as its argument says, and then gets the signal of the kernel's
// limit.
func useAndDie(_ context.Context, job Job) (string, error) {
	d, err := time.ParseDuration(job.Args[0])
	for err == nil && cpuTime() < d {
		sink++
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// The kernel measures processor time by ticks of its clock, and may be early: a child that is killed
// close to its limit has hit it.
func TestKilledNearTheLimit(t *testing.T) {
	prove.SkipShort(t, "it starts processes that use up their memory")
	for _, c := range []struct {
		use  string
		want Reason
	}{{"2800ms", CPU}, {"0s", Killed}} {
		k := task("use and die", "")
		k.CPU, k.Args = 3*time.Second, []string{c.use}
		_, err := Run(t.Context(), k)
		var e *Error
		if !errors.As(err, &e) || e.Reason != c.want {
			t.Errorf("after %s: %v; want %v", c.use, err, c.want)
		}
	}
}

// kernelFacts reports how the kernel limits the child, in lines, some for each thread.
func kernelFacts(context.Context, Job) (string, error) {
	var out strings.Builder
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return "", err
	}
	for _, thread := range threads {
		id, _ := strconv.Atoi(thread.Name())
		if now, err := syscall.Getpriority(syscall.PRIO_PROCESS, id); err == nil {
			fmt.Fprintf(&out, "nice %d\n", 20-now)
		}
	}
	for _, resource := range []int{syscall.RLIMIT_CPU, syscall.RLIMIT_FSIZE, syscall.RLIMIT_CORE} {
		var l syscall.Rlimit
		_ = syscall.Getrlimit(resource, &l)
		fmt.Fprintf(&out, "limit %d %d %d\n", resource, l.Cur, l.Max)
	}
	open, err := os.ReadDir("/proc/self/fd")
	for _, fd := range open {
		// those are Go's
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil &&
			!strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "/sys/") {
			fmt.Fprintf(&out, "open %s\n", strings.TrimRight(target, "[]0123456789"))
		}
	}
	score, _ := os.ReadFile("/proc/self/oom_score_adj")
	fmt.Fprintf(&out, "oom %s", score)
	return out.String(), err
}

// The kernel enforces the child's bounds, and the child has no open files except its pipes.
func TestTheKernelHoldsTheChild(t *testing.T) {
	secret, err := syscall.Open(os.Args[0], syscall.O_RDONLY, 0) // not closed on exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(secret)
	got, err := Run(t.Context(), task("kernel facts", ""))
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, line := range strings.Split(strings.TrimSpace(got), "\n") {
		count[line]++
	}
	own, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	expected := fmt.Sprintf("nice %d", max(nice, 20-own))
	if count[expected] < 2 {
		t.Errorf("its threads are not all nice")
	}
	delete(count, expected)
	for line, n := range map[string]int{
		fmt.Sprintf("limit %d 61 61", syscall.RLIMIT_CPU): 1, fmt.Sprintf("limit %d 1048576 1048576",
			syscall.RLIMIT_FSIZE): 1,
		fmt.Sprintf("limit %d 0 0", syscall.RLIMIT_CORE): 1, "open pipe:": 3, "oom 1000": 1,
	} {
		if count[line] != n {
			t.Errorf("%d times %q, want %d", count[line], line, n)
		}
		delete(count, line)
	}
	if len(count) > 0 {
		t.Errorf("unexpected: %v", count)
	}
}

// children returns the processes that the test binary has started and not yet waited for.
func children(t *testing.T) (ids []int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		text, _ := os.ReadFile(file) // the thread may have ended
		for _, f := range strings.Fields(string(text)) {
			id, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
	}
	return ids
}

func TestKilledFromOutside(t *testing.T) {
	k := task("wait", "")
	k.Alive = func(int64) {
		for _, id := range children(t) {
			_ = syscall.Kill(id, syscall.SIGKILL)
		}
	}
	_, err := Run(t.Context(), k)
	var e *Error
	if !errors.As(err, &e) || e.Reason != Killed {
		t.Errorf("%v", err)
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("not waited for: %v", left)
	}
}

// runParent runs a child that waits, and writes the child's process id to a file.
func runParent(file string) {
	k := task("wait", "")
	k.Alive = func(int64) {
		text := ""
		tasks, _ := filepath.Glob("/proc/self/task/*/children")
		for _, t := range tasks {
			ids, _ := os.ReadFile(t)
			text += string(ids)
		}
		_ = os.WriteFile(file, []byte(text), 0o600)
	}
	_, _ = Run(context.Background(), k)
}

// When a parent is killed, its child dies too.
func TestDiesWithItsParent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "child")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := exec.Command(self, "parent", file)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	child := 0
	wait(t, "the child", func() bool {
		text, _ := os.ReadFile(file)
		child, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return child > 0
	})
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait() // it was killed
	wait(t, "the child's end", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		return err != nil || strings.Contains(string(text), ") Z ") // perhaps nobody here reaps it
	})
}

// wait polls until a condition holds.
func wait(t *testing.T, what string, so func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for !so() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
